"""How the pages of this folder become a site: ``make docs``, then open build/docs/html/index.html.

The pages are plain Markdown that reads well without being built; Sphinx adds navigation and search, and
refuses links that lead nowhere.
"""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

project = "moe-profiler"
release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

extensions = ["myst_parser"]
myst_heading_anchors = 4  # links to headings are checked, and are what they are on a code host
nitpicky = True

html_theme = "furo"
html_title = "moe-profiler"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = html_show_copyright = False
