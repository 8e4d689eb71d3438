"""``profile plot``: one figure of sealed runs, as a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler.cli.base import Basis, PriceText, TermWords, figure_file, say, write_figure
from profiler.errors import InputError, nearest

if TYPE_CHECKING:
    from profiler.charts.nouns import Absent, Chart

THEMES = ("light", "dark")
WIDTHS_PX = (240, 4000)
MOST_NAMED = 4


def plot(
    kind: Annotated[
        str,
        typer.Argument(
            help="advantage, crossover, latency, distributions, power, memory, roofline, routing, split, "
            "frontier or quality."
        ),
    ],
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders of run folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: .svg, .png or .csv (its data).")],
    chart: Annotated[
        str | None, typer.Option(help="Which of a kind's charts, by its id.  [the first]")
    ] = None,
    theme: Annotated[str, typer.Option(help="light or dark.")] = "light",
    width: Annotated[int, typer.Option(help="Pixels.")] = 760,
    baseline: Annotated[
        str | None, typer.Option(help="advantage: the one rival.  [every dense model]")
    ] = None,
    score: Annotated[str | None, typer.Option(help="quality: a benchmark, as for profile frontier.")] = None,
    price: PriceText = None,
    basis: Basis = None,
    terms: TermWords = None,
) -> None:
    """Draw one figure of sealed runs as SVG or PNG, or write its data as CSV."""
    from profiler import store
    from profiler.charts.kinds import KINDS, Asked
    from profiler.cost import terms as given

    _check(kind, list(KINDS), "kind of figure")
    _check(theme, THEMES, "--theme")
    if not WIDTHS_PX[0] <= width <= WIDTHS_PX[1]:
        raise InputError(f"--width {width}: between {WIDTHS_PX[0]} and {WIDTHS_PX[1]} pixels")
    figure_file(out, "-o")
    asked = Asked(terms=given.read(terms or (), price=price, basis=basis), baseline=baseline, score=score)
    chosen = _chosen(kind, KINDS[kind](store.find(runs), asked), chart)
    write_figure(chosen, out, "dark" if theme == "dark" else "light", width)


def _check(word: str, known: Sequence[str], what: str) -> None:
    if word not in known:
        raise InputError(f"{what} {word}: no such thing{nearest(word, known)}")


def _chosen(kind: str, found: Sequence[Chart | Absent], wanted: str | None) -> Chart:
    """The chart to draw, and a word of the others: the one that is asked for, else the first of the sort that
    its kind begins with.  Raises InputError, with the reasons, where there is none."""
    from profiler.charts.nouns import Absent, Chart

    charts = {each.id: each for each in found if isinstance(each, Chart)}
    sort = found[0].id.split("-")[0] if found else kind
    name = wanted or next((each for each in charts if each.split("-")[0] == sort), "")
    absent = {each.id: each for each in found if isinstance(each, Absent)}
    if wanted is not None and wanted not in charts:
        why = f": {_reasons([absent[wanted]])}" if wanted in absent else nearest(wanted, charts)
        raise InputError(f"--chart {wanted}: no such figure of {kind} of these runs{why}")
    others = _listed([each for each in charts if each != name])
    if name not in charts:
        why = _reasons(absent.values()) or "there is nothing to draw"
        raise InputError(
            f"no figure of {kind} of these runs: {why}{f'; with --chart: {others}' if others else ''}"
        )
    if wanted is None and others:
        say(f"drawn: {name}; also, with --chart: {others}")
    return charts[name]


def _reasons(absent: Iterable[Absent]) -> str:
    """``Clocks over time, Temperature over time: why``: a reason that several share stands once."""
    shared: dict[str, dict[str, None]] = {}
    for each in absent:
        shared.setdefault(each.reason, {})[each.title] = None
    return "; ".join(f"{', '.join(titles)}: {why}" for why, titles in shared.items())


def _listed(names: Sequence[str]) -> str:
    more = f", … ({len(names)} in all)" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
