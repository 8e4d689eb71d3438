"""Every command of the README and the documentation is run, or says why not; every link leads somewhere.

How a page says what it expects: tests/docs/pages.py.  Where its commands are run: tests/docs/sandbox.py.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from profiler import catalog, comparison
from profiler.cli import app
from profiler.cli.base import limits
from profiler.comparison import columns as columns_of_rows
from profiler.cost import answers, at_slo, break_even, flips, invoice, sensitivity, summary
from profiler.report import listing
from profiler.sweep import nouns as sweep
from tests.docs import pages, sandbox
from tests.docs.pages import DOCS, PAGES, ROOT

COMMANDS = getattr(get_command(app), "commands")  # noqa: B009
TWO_WORDS = ("claims run", "sweep status")
LIMIT_S = 600  # many times what it takes, for machines that do much else
SIDE_BY_SIDE = 4
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=pages.name)


# ------------------------------------------------------------------------------------ commands are run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What the pages' RUN… stand for: the reference runs of this repository, and some of made-up speed."""
    folder = tmp_path_factory.mktemp("runs")
    sandbox.make_runs(folder)
    return folder


def to_run(page):
    return [each for each in pages.commands(page) if each.why_not is None]


@pytest.fixture(scope="module")
def ran(request, runs, tmp_path_factory):
    """What came of the commands of every page that was asked for; most of them wait, so pages go side by
    side."""
    asked = {item.callspec.params["page"] for item in request.session.items if "ran" in item.fixturenames}

    def whole(page):
        folder = tmp_path_factory.mktemp("page")
        return sandbox.run(to_run(page), folder, sandbox.prepare(page, folder, runs), LIMIT_S)

    longest_first = sorted(asked, key=lambda page: -len(to_run(page)))
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        return dict(zip(longest_first, pool.map(whole, longest_first), strict=True))


@pytest.mark.parametrize("page", [page for page in PAGES if to_run(page)], ids=pages.name)
@pytest.mark.timeout(LIMIT_S + 180)
def test_commands_of_a_page_run_and_print_what_it_says(page, ran):
    wrong = []
    for command, (code, came) in zip(to_run(page), ran[page], strict=True):
        if code not in command.codes:
            wrong.append(
                f"{command.place}: {command.text}\n  exit {code}, not {command.codes}: {came[-1500:]}"
            )
        elif command.is_compared and (line := pages.differs(command.shown, came)):
            wrong.append(f"{command.place}: {command.text}\n  shows {line}")
    assert not wrong, "\n".join(wrong)


@EACH_PAGE
def test_what_is_not_run_says_why(page):
    for command in pages.commands(page):
        if command.why_not is not None:
            assert len(command.why_not.split()) >= 2, command.place


@EACH_PAGE
def test_a_command_shown_with_a_prompt_stands_in_a_block_that_is_run(page):
    for block in pages.blocks(page):
        if block.language != "console":
            shown = [line for line in block.lines if line.lstrip().startswith("$ ")]
            assert not shown, f"{page.name}:{block.line}: make it a block console"


# --------------------------------------------------------------------- words of commands that are not run


def options(command):
    return {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}


@EACH_PAGE
def test_calls_of_the_tool_name_real_commands_and_options(page):
    """Of commands, synopses, workflows and prose alike; whole commands are given to the real parser."""
    for call, is_command in pages.mentions(page):
        words = call.split()
        two = " ".join(words[:2]).rstrip(",.:")
        name = two if two in TWO_WORDS else words[0].rstrip(",.:")
        if words[0].startswith("-"):
            assert words[0] in ("--help", "--version"), call
            continue
        assert name in COMMANDS, f"profile {call}: no such command"
        known = options(COMMANDS[name])
        for word in re.findall(r"(?<![\w-])--?[a-z][\w-]*", call):
            family = word.startswith("--slo-") and name in ("run", "cost", "plan", "frontier")
            plain = word.startswith("-") and not word.startswith("--") and len(word) > 2  # -COLUMN, -m…
            assert word in known or family or plain or word == "--help", f"profile {call}: no option {word}"
        if is_command and "…" not in call and "$" not in call:
            parsed(name, call)


def parsed(name, call):
    """The call as the tool's own parser sees it: unknown options, missing and malformed values end here."""
    words = shlex.split(re.sub(r" [0-9]?[<>]+ ?[^ ]+", "", call))[len(name.split()) :]  # redirections
    context = COMMANDS[name].make_context(name, words)
    if name in ("run", "plan"):
        limits(context.args, COMMANDS[name], middle="p50" if name == "plan" else None)


@EACH_PAGE
def test_targets_and_programs_that_a_page_calls_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for command in pages.commands(page):
        for target in re.findall(r"^make ([a-z-]+)", command.text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), command.place
        for module in re.findall(r"python -m ((?:benchmarks|tools)[\w.]*)", command.text):
            path = ROOT / module.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), command.place
        for path in re.findall(r"python ((?:benchmarks|tools)/\S+\.py)", command.text):
            assert (ROOT / path).exists(), command.place


# ---------------------------------------------------------------------------------------- other languages


@EACH_PAGE
def test_toml_of_a_page_is_toml(page):
    for block in pages.blocks(page):
        if block.language == "toml":
            tomllib.loads("\n".join(block.lines))


@EACH_PAGE
def test_scripts_and_manifests_of_a_page_are_whole(page):
    for block in pages.blocks(page):
        text = "\n".join(block.lines)
        if block.language == "bash":
            done = subprocess.run(["bash", "-n"], input=text, check=False, capture_output=True, text=True)
            assert not done.stderr, f"{page.name}:{block.line}: {done.stderr}"
        elif block.language == "yaml":
            assert yaml.safe_load(text), f"{page.name}:{block.line}"


def test_python_of_the_readme_runs(runs, tmp_path):
    """As it stands, but measured for a second and judged by what the pages' other commands are."""
    (block,) = [each for each in pages.blocks(ROOT / "README.md") if each.language == "python"]
    code = "\n".join(block.lines)
    settings = ", ".join(repr(each) for each in (*sandbox.SHORT, "measure.repeats=1", "load.concurrency=1"))
    asked = 'profiler.run(["tiny-moe", "tiny-dense"], scenario="smoke", price=0.10)'
    assert asked in code
    code = code.replace(asked, f'profiler.run("sim", "smoke", [{settings}], engine="simulated", price=0.10)')
    shutil.copytree(runs / "reference", tmp_path / "results")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=120)


# --------------------------------------------------------------------------------------- links and the site


def anchors(page: Path) -> set[str]:
    """What a code host makes of the headings of a page."""
    found, fenced = set(), False
    for line in page.read_text().splitlines():
        fenced ^= bool(pages.FENCE.match(line))
        if not fenced and (heading := re.match(r"#+ (.*)", line)):
            text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).lower()
            found.add(re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-"))
    return found


@EACH_PAGE
def test_links_lead_to_files_and_headings_that_exist(page):
    prose, fenced = [], False
    for line in page.read_text().splitlines():
        fenced ^= bool(pages.FENCE.match(line))
        prose += [] if fenced else [line]
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", "\n".join(prose))):
        if re.match(r"https?:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.name}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page.name}: {target}"


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    words = ("-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, str(DOCS), str(tmp_path / "html")],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    loaded = re.compile(
        r"<(?:script|img|link|iframe|source)\b[^>]*?(?:src|href)=\"(https?:)?//", re.IGNORECASE
    )
    imported = re.compile(r"url\([\"']?(https?:)?//|@import")
    for built in (tmp_path / "html").rglob("*"):
        if built.suffix == ".html":
            assert not loaded.search(built.read_text()), built.name
        elif built.suffix == ".css":
            assert not imported.search(built.read_text()), built.name


def test_every_page_is_in_the_site():
    """Sphinx warns of one that no table of contents names; the README and CONTRIBUTING name the site."""
    assert "docs/index.md" in (ROOT / "README.md").read_text()
    assert "docs/index.md" in (ROOT / "CONTRIBUTING.md").read_text()


def test_pictures_say_what_the_runs_say(runs, tmp_path):
    """By their text alternative, which holds the values: how long a line of text is differs by fonts."""
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "reference").symlink_to(runs / "reference")
    made = re.findall(
        r"^`profile (plot .* -o (\w+\.svg))`", (DOCS / "howto" / "plot.md").read_text(), re.MULTILINE
    )
    assert {name for _, name in made} == {path.name for path in (DOCS / "images").glob("*.svg")}
    for words, name in made:
        done = [sys.executable, "-m", "profiler", *words.split()]
        subprocess.run(done, cwd=tmp_path, check=True, capture_output=True)
        now, kept = ((folder / name).read_text() for folder in (tmp_path, DOCS / "images"))
        assert described(now) == described(kept), f"docs/images/{name}: profile {words}"


def described(svg: str) -> str:
    return svg[svg.index("<desc") : svg.index("</desc>")]


# ------------------------------------------------------------------------------------------------- metrics


def test_every_column_is_defined_in_the_reference_of_metrics():
    """Names in the first cell of a table, in code; ``_low`` and ``_high`` are defined once for all."""
    text = (DOCS / "metrics.md").read_text()
    cells = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    sections = (summary.COLUMNS, invoice.KIND_COLUMNS, invoice.LINE_COLUMNS, at_slo.COLUMNS, flips.COLUMNS)
    sections += (answers.REQUEST_COLUMNS, answers.SOLVED_COLUMNS, break_even.COLUMNS, sensitivity.COLUMNS)
    columns = {*comparison.COLUMNS, *(name for section in sections for name in section)}
    ends = {name for name in columns if name.removesuffix("_low").removesuffix("_high") in columns - {name}}
    assert columns - ends - named == set()
    others = {"_ratio", "_ratio_low", "_ratio_high", *ratios()}
    assert set(comparison.AGAINST) - named - others == set()
    assert named - columns - set(comparison.AGAINST) == set(), "a name that no table has"


def ratios():
    return {f"{name}_ratio{end}" for name in columns_of_rows.RATIOS for end in ("", "_low", "_high")}


def test_every_key_of_a_sweep_is_in_its_reference():
    text = (DOCS / "sweeps.md").read_text().split("<!-- keys -->")[1].split("\n\n")[0]
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(named) == sorted(sweep.File.__struct_fields__)


def test_what_the_readme_and_the_changelog_count_is_there():
    told = ((ROOT / name).read_text() for name in ("README.md", "CHANGELOG.md"))
    models, claims = len(catalog.models()), len(listing.list_claims())
    for text in told:
        assert set(re.findall(r"(\d+) published models", text)) == {str(models)}
        assert set(re.findall(r"(\d+) published claims", text)) == {str(claims)}


# ----------------------------------------------------------------------------------- the reader of the pages


def test_a_command_goes_on_after_a_backslash_and_inside_a_quotation(tmp_path):
    page = tmp_path / "page.md"
    first = "<!-- not run: needs a GPU -->\n```console\n$ a \\\n  b\nout\n$ c 'x\ny'\n```\n"
    page.write_text(first + "\n```console\n$ d\n```\n")
    found = pages.commands(page)
    assert [each.text for each in found] == ["a \\\n  b", "c 'x\ny'", "d"]
    assert [each.why_not for each in found] == ["needs a GPU", "needs a GPU", None]
    assert found[0].shown == ("out",)
    with pytest.raises(AssertionError, match="begins with a command"):
        pages.commands(_page(tmp_path, "```console\nprofile run\n```\n"))


def _page(folder, text):
    (folder / "other.md").write_text(text)
    return folder / "other.md"


@pytest.mark.parametrize(
    ("shown", "came", "is_told"),
    [
        (("a  1 ±2%", "b"), " a 1 ±2%\n\nb\nc\n", False),
        (("a … b",), "a 123 b\n", False),
        (("…", "c"), "a\nb\nc\n", False),
        (("a", "c"), "a\nb\nc\n", True),
        (("a", "…", "d"), "a\nb\nc\n", True),
        (("a",), "ab\n", True),
    ],
)
def test_what_is_shown_is_what_came(shown, came, is_told):
    assert bool(pages.differs(shown, came)) == is_told


def test_calls_are_found_however_the_tool_is_called():
    text = "for n in 1 2; do X=1 .venv/bin/profile run -m a \\\n  --quiet; done  # profile no\n"
    text += "profile list gpus | head"
    assert list(pages.calls(text)) == ["run -m a    --quiet", "list gpus"]
