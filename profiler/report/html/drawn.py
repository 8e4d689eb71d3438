"""Which figures of which runs a page shows, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from profiler import alike
from profiler.charts import kinds
from profiler.charts.kinds import Asked
from profiler.charts.nouns import Absent, Chart
from profiler.charts.words import one_line, slug
from profiler.report.html.nouns import Block, Figure, Gaps, Item, Notes, Paragraph, Section
from profiler.store import RunResult

# Each run in detail has some fifteen figures; of more runs than this nobody looks at all.
MOST_IN_DETAIL = 6

# Of several runs: by how their ids begin, figures for those who look for just that.
SAY_LESS = ("tpot-", "e2e-", "requests-", "clocks-", "temperature-", "memory-use-", "memory-experts-",
            "routing-layers-", "routing-ranks-")  # fmt: skip

TERMS_BELOW = (
    "At another price, utilisation or PUE: enter it above the table of all loads; these figures follow."
)


class Part(NamedTuple):
    """A section and the families of charts (``charts.kinds``) that make it; ``most_models`` and ``most_runs``
    are what its figures can show and a reader tell apart; ``about`` is said above them."""

    id: str
    title: str
    families: tuple[str, ...]
    most_models: int = 1000
    most_runs: int = 1000
    about: str = ""


OF_ALL = (
    Part("advantage", "The advantage of the mixture", ("advantage", "crossover"), most_models=8),
    Part("speed", "Speed under load", ("latency",), most_runs=24),
    Part("fronts", "Cost against latency and energy", ("frontier",), most_runs=60, about=TERMS_BELOW),
    Part("quality", "Cost against quality", ("quality",)),
    Part("split", "Prefill and decode", ("split",), most_runs=6),
    Part("memories", "Memory side by side", ("memory",), most_runs=24),
)
OF_ONE = (
    Part("distributions", "How long requests waited", ("distributions",)),
    Part("time", "Over time", ("power",)),
    Part("memory", "Memory", ("memory",)),
    Part("utilisation", "Against the machine's ceilings", ("roofline",)),
    Part("experts", "Which experts work", ("routing",)),
)


class Drawn(NamedTuple):
    """Sections that have a figure, and what could not be drawn of all others, each with its reason."""

    sections: list[Section]
    gaps: list[Item]

    def keys(self) -> set[str]:
        """Of the rows of the cost table that figures draw, and a page computes again with them."""
        blocks = [block for section in self.sections for block in section.blocks]
        charts = [block.chart for block in blocks if isinstance(block, Figure)]
        return {row["key"] for chart in charts for row in chart.rows if row.get("key")}


def of(runs: Sequence[RunResult], asked: Asked) -> Drawn:
    """What a page shows of these runs."""
    sections: list[Section] = []
    gaps: list[Item] = []
    for part in OF_ALL if len(runs) > 1 else OF_ALL[:-1]:
        shown = _shown(part, runs)
        _place(part, _draw(part, shown, asked), sections, gaps, _left_out(shown, runs))
    if len(runs) == 1:
        for part in OF_ONE:
            _place(part, _draw(part, runs, asked), sections, gaps)
    else:
        sections += _each(runs, in_detail(runs), asked, gaps)
    return Drawn(sections, gaps)


def _shown(part: Part, runs: Sequence[RunResult]) -> list[RunResult]:
    """Of the models with most runs, and of these in turn, as many as the part's figures can show."""
    counted = Counter(run.manifest.model.name for run in runs)
    models = {name for name, _ in counted.most_common(part.most_models)}
    return _first([run for run in runs if run.manifest.model.name in models], part.most_runs)


def _left_out(shown: Sequence[RunResult], runs: Sequence[RunResult]) -> list[str]:
    """What a figure leaves to the tables, in words."""
    if len(shown) == len(runs):
        return []
    models, whole = (len({run.manifest.model.name for run in each}) for each in (shown, runs))
    told = f"Shown are {len(shown):,} of {len(runs):,} runs, {models:,} of {whole:,} models"
    return [f"{told}; the tables have all."]


def in_detail(runs: Sequence[RunResult]) -> list[RunResult]:
    """Whose insides are shown: of runs of the same thing under one scenario the last whole one."""
    kinds_ = _alike(runs)
    return _in_order(runs, [own[0] for own in kinds_][:MOST_IN_DETAIL])


def _first(runs: Sequence[RunResult], most: int) -> list[RunResult]:
    """Kinds of runs by turns, the last whole run of each first."""
    turns = [(place, run) for own in _alike(runs) for place, run in enumerate(own)]
    chosen = runs if len(runs) <= most else [run for _, run in sorted(turns, key=lambda pair: pair[0])[:most]]
    return _in_order(runs, chosen)


def _alike(runs: Sequence[RunResult]) -> list[list[RunResult]]:
    """Runs of the same thing together, the last whole one of each first; kinds in the order of the runs."""
    held: dict[tuple[str, str], list[RunResult]] = {}
    for run in runs:
        if run.manifest.windows:
            held.setdefault((alike.fingerprint(run), run.manifest.scenario.name), []).append(run)
    return [sorted(own, key=_whole_and_late, reverse=True) for own in held.values()]


def _whole_and_late(run: RunResult) -> tuple[bool, int]:
    return run.manifest.status == "complete", run.manifest.unix_ns


def _in_order(runs: Sequence[RunResult], chosen: Sequence[RunResult]) -> list[RunResult]:
    wanted = {id(run) for run in chosen}
    return [run for run in runs if id(run) in wanted]


def _draw(part: Part, runs: Sequence[RunResult], asked: Asked) -> list[Chart | Absent]:
    return [chart for name in part.families for chart in kinds.KINDS[name](runs, asked)]


def _place(
    part: Part,
    found: Sequence[Chart | Absent],
    sections: list[Section],
    gaps: list[Item],
    told: Sequence[str] = (),
) -> None:
    """As a section where it has a figure; else its reasons among the gaps."""
    missing = [Item(each.title, one_line(each.reason)) for each in found if isinstance(each, Absent)]
    if len(missing) == len(found):
        gaps += missing
    else:
        above = [Paragraph(text) for text in (*told, part.about) if text]
        sections.append(Section(id=part.id, title=part.title, blocks=(*above, *blocks(found))))


def blocks(found: Iterable[Chart | Absent]) -> tuple[Block, ...]:
    """The figures, below them what could not be drawn, and above them what all of them say."""
    found = list(found)
    charts = [each for each in found if isinstance(each, Chart)]
    missing = tuple(Item(each.title, one_line(each.reason)) for each in found if isinstance(each, Absent))
    shared = _shared(charts)
    figures = [
        Figure(each, notes=tuple(note for note in each.notes if note not in shared)) for each in charts
    ]
    above = [Notes(tuple(map(one_line, shared)))] if shared else []
    return (*above, *figures, *([Gaps(missing)] if missing else []))


def _shared(charts: Sequence[Chart]) -> list[str]:
    """Notes of most figures of a section, in the order in which they are first said."""
    if len(charts) < 3:
        return []
    told = Counter(note for chart in charts for note in dict.fromkeys(chart.notes))
    return [note for note, times in told.items() if 2 * times > len(charts)]


def _each(
    runs: Sequence[RunResult], detailed: Sequence[RunResult], asked: Asked, gaps: list[Item]
) -> list[Section]:
    """A section with a part for each of the runs that are shown in detail."""
    parts: list[Section] = []
    for run in detailed:
        found = [chart for part in OF_ONE for chart in _draw(part, [run], asked)]
        charts = [each for each in found if isinstance(each, Chart)]
        name = f"run-{slug(run.folder.name)}"
        if charts:
            shown, folded = _folded(blocks(found))
            parts.append(Section(id=name, title=_name(run, detailed), blocks=shown, folded=folded))
        else:
            gaps += [Item(f"{_name(run, detailed)}: {each.title}", one_line(each.reason)) for each in found
                     if isinstance(each, Absent)]  # fmt: skip
    if not parts:
        return []
    left = len(runs) - len(detailed)
    told = (
        f"Of {len(runs):,} runs {len(detailed)} are shown in detail: of those of the same thing the last "
        "whole one. All are in the tables; profile report RUN shows one in full."
    )
    lead = (Paragraph(told),) if left else ()
    return [Section(id="runs", title="Run by run", blocks=lead, parts=tuple(parts))]


def _folded(found: Sequence[Block]) -> tuple[tuple[Block, ...], tuple[Block, ...]]:
    """What is shown at once, and the figures that say less, behind a line."""
    less = [block for block in found if isinstance(block, Figure) and block.chart.id.startswith(SAY_LESS)]
    return tuple(block for block in found if block not in less), tuple(less)


def _name(run: RunResult, among: Sequence[RunResult]) -> str:
    """The model, and where it has several runs the end of the folder's name."""
    model = run.manifest.model.name
    several = sum(each.manifest.model.name == model for each in among) > 1
    return one_line(f"{model}, run {run.folder.name.rsplit('-', 1)[-1]}" if several else model)
