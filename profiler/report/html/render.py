"""Document → HTML: one file that needs nothing else, or a page of the local server.

In a file style, scripts and data stand in the page, and its policy (CSP) allows just those, by their hashes:
no network, no other script, whatever a name in the data may hold.  Templates escape every text; data are
JSON in which no ``<`` is left.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from profiler import __version__
from profiler.charts import theme
from profiler.charts.nouns import Chart
from profiler.report.html.nouns import Document, Figure, Form, Table

if TYPE_CHECKING:
    from jinja2 import Environment

HERE = Path(__file__).resolve().parent
TEMPLATES, STATIC = HERE / "templates", HERE / "static"
STYLES, SCRIPTS = ("page.css",), ("money.js", "tables.js", "charts.js", "page.js")
DRAWING = "vega.js"  # the name under which a server gives the bundle
SERVED = ("view.css", "view.js")  # what only pages of a server have: lists of runs, and news of them
_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
_ESCAPES = str.maketrans(_IN_SCRIPT)


class Links(NamedTuple):
    """Where a server gives what a file has inside."""

    styles: tuple[str, ...]
    scripts: tuple[str, ...]


class Island(NamedTuple):
    """Data for the page's script; ``text`` is markup-free JSON."""

    id: str
    text: Any


def html(document: Document) -> str:
    """The whole page in one file."""
    scripts = [text for name in script_names(document) if (text := asset(name))]
    style = stylesheet()
    policy = _policy(scripts=map(_hash, scripts), styles=[_hash(style)])
    return _page(
        "page.html", document, {"policy": policy, "style": _safe(style), "scripts": _all_safe(scripts)}
    )


def served(document: Document, base: str, template: str = "page.html", **more: Any) -> str:
    """The same for a server that gives :func:`asset` under ``base``; ``template`` may extend page.html and
    is given ``more``."""
    style, script = SERVED
    styles, scripts = [*STYLES, style], [*script_names(document), script]
    links = Links(*(tuple(f"{base}/{name}" for name in names) for names in (styles, scripts)))
    policy = _policy(scripts=["'self'"], styles=["'self'"], to="'self'")
    return _page(template, document, {"policy": policy, "links": links, **more})


def script_names(document: Document) -> list[str]:
    """What the page needs, in the order in which it needs it; nothing draws where there is no figure."""
    return [*([DRAWING] if charts_of(document) else []), *SCRIPTS]


@cache
def asset(name: str) -> str | None:
    """A style sheet or script by the name that a served page calls it; None where there is no such."""
    if name == DRAWING:
        return _drawing()
    if name == STYLES[0]:
        return stylesheet()
    return _static(name) if name in (*SCRIPTS, *SERVED) else None


@cache
def stylesheet() -> str:
    return "".join(_static(name) for name in STYLES)


@cache
def _static(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8").replace("\r", "")


@cache
def _drawing() -> str:
    """Vega, Vega-Lite and vega-embed; in a function, for its names are one letter long."""
    import vl_convert

    return f"(()=>{{{vl_convert.javascript_bundle()}}})();"


# ----------------------------------------------------------------------------------------- the page


def _page(template: str, document: Document, words: Mapping[str, Any]) -> str:
    page = environment().get_template(template)
    text: str = page.render(document=document, islands=list(_islands(document)), version=__version__, **words)
    return text


@cache
def environment() -> Environment:
    """Templates in which every text is escaped, and a name that is not there is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.filters["kind"] = lambda each: type(each).__name__
    found.globals["links"] = None
    return found


def _islands(document: Document) -> Iterator[Island]:
    charts = charts_of(document)
    if charts:
        yield island("themes", {name: theme.config(name) for name in ("light", "dark")})
    for chart in charts:
        yield island(f"chart-{chart.id}", chart_data(chart))
    for block in document.blocks():
        if isinstance(block, Form):
            yield island("money", block.money)
        elif isinstance(block, Table) and block.data is not None:
            yield island(f"data-{block.id}", block.data)


def charts_of(document: Document) -> list[Chart]:
    return [block.chart for block in document.blocks() if isinstance(block, Figure)]


def island(name: str, value: Any) -> Island:
    """``value`` as JSON that no HTML parser sees an end in."""
    return Island(name, _safe(msgspec.json.encode(value).decode().translate(_ESCAPES)))


def chart_data(chart: Chart) -> dict[str, Any]:
    """What the script draws from.  ``rows`` are lists in the order of ``fields``: a key once, not a thousand
    times."""
    fields = list(dict.fromkeys(name for row in chart.rows for name in row))
    return {
        "id": chart.id,
        "title": chart.title,
        "summary": chart.summary,
        "columns": chart.columns,
        "fields": fields,
        "rows": [[row.get(name) for name in fields] for row in chart.rows],
        "spec": chart.spec,
        "height": chart.height,
        "notes": chart.notes,
    }


# --------------------------------------------------------------------------------------- the policy


def _policy(scripts: Any, styles: Any, to: str = "'none'") -> str:
    """``to``: where the page may ask for data and send a form."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(scripts)}",
            f"style-src {' '.join(styles)}",
            "img-src data: blob:",
            f"connect-src {to}",
            "base-uri 'none'",
            f"form-action {to}",
        ]
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _safe(text: str) -> Any:
    """Our own script or style, or JSON without ``<``: written into the page as it stands."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704


def _all_safe(texts: Sequence[str]) -> list[Any]:
    return [_safe(text) for text in texts]
