"""What the commands share: their words, and how they print."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler import plain
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from rich.console import Console

    from profiler.charts.nouns import Chart
    from profiler.charts.theme import Theme

FAILED, UNDECIDED, INTERRUPTED = 1, 3, 130
SAY_EVERY_S = 2.0
PIPED_WIDTH = 200  # a pipe has no width: no cell is folded

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", help="Model to measure: Hub id, folder or catalog name; repeat to compare."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change a scenario field: load.concurrency=1,8,64 (repeatable)."),
]
PriceText = Annotated[
    str | None, typer.Option("--price", help="USD per GPU-hour (machine-hour on CPU), or a price sheet.")
]

Basis = Annotated[
    str | None, typer.Option(help="rented, spot, reserved, owned, electricity or api.  [rented]")
]
Utilization = Annotated[
    str | None,
    typer.Option(help="Share of the paid time that works at this load: 0.4, or a day's load (CSV).  [1]"),
]
Pue = Annotated[
    str | None, typer.Option(help="Energy the building takes over energy the machine takes: 1.2.")
]
TermWords = Annotated[
    list[str] | None,
    typer.Option("--terms", help="Other terms: a TOML file, or owned.life_years=3; repeatable."),
]


def say(text: str) -> None:
    """A line for the user, beside the result."""
    print(plain.visible(text), file=sys.stderr, flush=True)  # noqa: T201


class Progress:
    """Says now and then how far the figures are that no index holds yet."""

    def __init__(self) -> None:
        self._begin = self._said = perf_counter()

    def __call__(self, done: int, total: int) -> None:
        now = perf_counter()
        if done and now - self._said > SAY_EVERY_S:
            self._said = now
            left_s = (now - self._begin) / done * (total - done)
            say(f"reading runs for the first time: {done:,} of {total:,}, about {left_s:.0f} s left")


def write(text: str) -> None:
    """The result, or a part of it."""
    sys.stdout.write(plain.visible(text))


def console() -> Console:
    """Where tables are printed: as wide as the terminal, and a pipe takes any width.  A model's name is its
    name: ``sim:b:`` is no emoji, and an escape character in it commands nothing."""
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(plain.visible(text), **how)

    return PlainConsole(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False, emoji=False)


def limits(words: list[str], command: Any, middle: str | None = None) -> dict[str, str]:
    """The ``--slo-METRIC-QUANTILE LIMIT`` family, name → limit, out of words no option takes; ``middle`` is
    the quantile where none is named, None where one must be.

    Raises InputError for any other word.
    """
    found, left = {}, iter(words)
    for word in left:
        option, equals, limit = word.partition("=")
        name = re.fullmatch(r"--slo-([a-z0-9]+?)(?:-(p\d+))?", option)
        if name is None or not (name[2] or middle):
            known = [each for parameter in command.params for each in parameter.opts if each.startswith("--")]
            known += [f"--slo-{metric}-p99" for metric in ("ttft", "itl", "tpot", "e2e")]
            what = "no such option" if word.startswith("-") else "unexpected argument"
            raise InputError(f"{what}: {word}{nearest(option, known)}")
        limit = limit if equals else next(left, "")
        if not limit or limit.startswith("-"):
            raise InputError(f"{option} needs a limit: {option} 500ms")
        found[f"{name[1]}_{name[2] or middle}_s"] = limit
    return found


def promised(words: Sequence[Path], context: typer.Context) -> tuple[list[Path], dict[str, float]]:
    """Run folders and the ``--slo-METRIC-QUANTILE LIMIT`` family in seconds, out of what a list of folders
    has taken up: an option that typer does not know lands among them, its limit after it.

    Raises InputError for an option that is none and a limit that is no time.
    """
    from profiler import slo, toml_tables

    folders, others, left = [], list(context.args), iter(map(str, words))
    for word in left:
        if word.startswith("-"):
            others += [word] if "=" in word else [word, next(left, "")]
        else:
            folders.append(Path(word))
    found = {
        name: toml_tables.seconds(limit, f"--slo-{name.removesuffix('_s').replace('_', '-')}")
        for name, limit in limits(others, context.command).items()
    }
    slo.limits(found)
    return folders, found


def at_hand(words: Sequence[str]) -> list[str]:
    """A command's words, with folders of this machine in place of addresses (``--option=ADDRESS`` too).

    Raises InputError for an address with no sealed run behind it.
    """
    from profiler.storage import mirror, places

    found = []
    for word in words:
        option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        local = str(mirror.local(value)) if places.is_address(value) else value
        found.append(f"{option}{equals}{local}")
    return found


def figure_file(out: Path | None, option: str) -> None:
    """Raises InputError for a file that no figure can be written to; None is no file."""
    if out is None:
        return
    from profiler.charts.drawing import SUFFIXES

    if out.suffix.lower() not in SUFFIXES:
        raise InputError(f"{option} {out}: its ending says what is written: {', '.join(SUFFIXES)}")
    if out.is_dir() or not out.resolve().parent.is_dir():
        raise InputError(
            f"{option} {out}: {'is a folder' if out.is_dir() else f'there is no folder {out.parent}'}"
        )


def write_figure(chart: Chart, out: Path, theme: Theme = "light", width: int = 760) -> None:
    """Drawn in memory, then written whole or not at all."""
    from profiler import store
    from profiler.charts import drawing

    data = drawing.encoded(chart, out.suffix.lower(), theme, width)
    with store.replacing(out) as beside:
        beside.write_bytes(data)
