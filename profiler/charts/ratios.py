"""A MoE over each dense rival, load by load: what the charts of its advantage draw.

The ratios, their intervals and the crossovers are those by which claims are judged (:mod:`profiler.claims`),
as of a claim that is looked at once: one observation an engine start, Welch's t on logarithms, like with
like, and what may not be compared keeps the reason why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from profiler import figures, replicas
from profiler.charts import words
from profiler.claims import evidence, judge, metrics, region
from profiler.claims.nouns import Case, Cell, Claim, Conditions, Finding, Grid, Models, Source
from profiler.errors import InputError, nearest
from profiler.schema import Estimate
from profiler.store import RunResult

SIMULATED = "simulated"
crossing = region.crossing  # ``11 [9, 14]``
_NOBODY = Source(name="a chart", date="2026")
UNUSED = "utilisation n/a: "


class Ceilings(NamedTuple):
    """Tokens/s that the machine's ceilings allow, by run and batch, and by run why they are not known."""

    most: Mapping[tuple[str, int | None], float]
    why_not: Mapping[str, str]


class Spot(Struct, frozen=True, kw_only=True):
    """One batch.  ``ratio``: how many times better the MoE is; its ends bound 95 % and are None where starts
    do not tell.  ``moe`` and ``rival``: the figures themselves (geometric means over starts); ``starts`` of
    the side with fewer.  ``doubts``: why it decides nothing.  ``computed``: what their ceilings on
    this machine would give (``utilisation``)."""

    batch: int
    ratio: Estimate
    moe: float
    rival: float
    starts: int
    doubts: tuple[str, ...] = ()
    computed: float | None = None

    @property
    def is_sure(self) -> bool:
        """Whether its interval may be read: starts enough to have one, and nothing against it."""
        return not self.doubts and self.ratio.low is not None and self.ratio.high is not None

    @property
    def leader(self) -> str:
        """``moe``, ``rival`` or ``undecided``."""
        if not self.is_sure:
            return "undecided"
        low, high = self.ratio.low or 0.0, self.ratio.high or 0.0
        return "moe" if low > 1 else "rival" if high < 1 else "undecided"


class Curve(Struct, frozen=True, kw_only=True):
    """One pair on one machine and engine, asked for requests of one kind (``at``, without a batch).
    ``why_not``: why no ratio of ceilings could be computed; None where it was, or nobody says."""

    moe: str
    rival: str
    metric: str
    machine: str
    engine: str
    at: Cell
    spots: tuple[Spot, ...]
    crossovers: tuple[Estimate, ...]
    runs: tuple[str, ...]
    why_not: str | None = None

    @property
    def place(self) -> tuple[str, ...]:
        """Curves of one place may share a chart."""
        lengths = (self.at.input_tokens, self.at.output_tokens)
        return (self.moe, self.machine, self.engine, *(f"{each}" for each in lengths))


class Pairs(NamedTuple):
    """Which models are put over which."""

    moes: tuple[str, ...]
    rivals: tuple[str, ...]


def pairs(runs: Sequence[RunResult], baseline: str | None = None) -> Pairs:
    """Every MoE with every dense model, in the order of the runs; ``baseline``: with this model alone.

    Raises InputError for a baseline that none of the runs is of.
    """
    kinds = {run.manifest.model.name: run.manifest.model.facts for run in runs}
    names = {
        kind: tuple(m for m, facts in kinds.items() if facts and facts.kind == kind)
        for kind in ("moe", "dense")
    }
    if baseline is None:
        return Pairs(names["moe"], names["dense"])
    found = tuple(model for model in kinds if baseline in (model, words.short(model)))
    if not found:
        raise InputError(f"--baseline {baseline}: no run is of this model{nearest(baseline, kinds)}")
    return Pairs(tuple(model for model in names["moe"] if model not in found), found)


def curves(runs: Sequence[RunResult], metric: str, chosen: Pairs) -> list[Curve]:
    """One for each pair in each setting and for each kind of requests that has a ratio of ``metric``.

    What a simulated engine gave stands beside nothing that was measured.
    """
    found: list[Curve] = []
    for engine in (None, SIMULATED):
        own = [run for run in runs if (run.manifest.engine.kind == SIMULATED) == (engine is not None)]
        batches = _batches(own)
        if batches:
            ceilings = _ceilings(own)
            for claim in _claims(chosen, metric, batches, engine):
                for case in evidence.cases(claim, own):
                    found += _of_case(case, metric, ceilings)
    return found


def _claims(chosen: Pairs, metric: str, batches: Sequence[int], engine: str | None) -> Iterator[Claim]:
    for moe in chosen.moes:
        for rival in chosen.rivals:
            yield Claim(
                id="chart",
                text="",
                source=_NOBODY,
                subject=Models(names=(moe,)),
                baseline=Models(names=(rival,)),
                metric=metric,
                relation="more",
                conditions=Conditions(weights="any", engine=engine),
                cells=(Grid(batch=tuple(batches)),),
            )


def _batches(runs: Sequence[RunResult]) -> list[int]:
    """Requests in flight of every closed load."""
    held = [window.point for run in runs for window in run.manifest.windows]
    held += [each.point for run in runs if (told := run.manifest.imported) for each in told.points]
    return sorted({each.concurrency for each in held if each.mode == "closed" and each.concurrency})


def _of_case(case: Case, metric: str, ceilings: Ceilings) -> Iterator[Curve]:
    """By the lengths of the requests; a case in no setting has no figures."""
    if case.setting is None:
        return
    ruling = judge.ruling(replace(case, looks=(1.0,)))
    by_lengths: dict[Cell, list[Finding]] = {}
    for finding in ruling.findings:
        if finding.ratio is not None:
            by_lengths.setdefault(replace(finding.evidence.cell, batch=None), []).append(finding)
    for at, findings in by_lengths.items():
        sides = [side for each in findings for side in (each.evidence.subject, each.evidence.baseline)]
        folders = tuple(dict.fromkeys(run for side in sides for run in side.runs))
        yield Curve(
            moe=words.one_line(case.setting.subject),
            rival=words.one_line(case.setting.baseline),
            metric=metric,
            machine=words.one_line(case.setting.machine),
            engine=words.one_line(case.setting.engine),
            at=at,
            spots=tuple(_spot(case, each, each.ratio, metric, ceilings) for each in findings if each.ratio),
            crossovers=tuple(each for cell, each in ruling.crossovers if cell == at),
            runs=folders,
            why_not=next((ceilings.why_not[run] for run in folders if run in ceilings.why_not), None),
        )


def _spot(case: Case, finding: Finding, ratio: Estimate, metric: str, ceilings: Ceilings) -> Spot:
    found, batch = finding.evidence, finding.evidence.cell.batch or 0
    if finding.confidence is None:  # of windows within one start, which say nothing of the next
        ratio = Estimate(ratio.value, n=ratio.n)
    moe, rival = found.subject, found.baseline
    most = [
        _mean(ceilings.most[run, batch] for run in side.runs if (run, batch) in ceilings.most)
        for side in (moe, rival)
    ]
    is_rate = metrics.of(metric).more_is_better
    bars = (judge.FEW_STARTS, judge.NO_SCATTER)
    doubts = dict.fromkeys([*case.doubts, *found.doubts, *(why for why in bars if why == finding.why)])
    return Spot(
        batch=batch,
        ratio=ratio if is_rate else _inverted(ratio),
        moe=_geometric(moe.values),
        rival=_geometric(rival.values),
        starts=min(len(moe.values), len(rival.values)),
        doubts=tuple(map(words.one_line, doubts)),
        computed=most[0] / most[1] if is_rate and most[0] and most[1] else None,
    )


def _inverted(ratio: Estimate) -> Estimate:
    low, high = (1 / end if end else None for end in (ratio.high, ratio.low))
    return Estimate(1 / ratio.value, low, high, ratio.n, ratio.over)


def _geometric(values: Sequence[float]) -> float:
    from statistics import geometric_mean

    return geometric_mean(values)


def _mean(values: Iterable[float]) -> float | None:
    held = list(values)
    return sum(held) / len(held) if held else None


def _ceilings(runs: Sequence[RunResult]) -> Ceilings:
    most: dict[tuple[str, int | None], list[float]] = {}
    why: dict[str, str] = {}
    for run, found in replicas.figures_of_starts(runs):
        for each in found:
            limit = each.facts.get("ceiling_output_tokens_per_s")
            if limit is not None:
                most.setdefault((str(run.folder), each.point.concurrency), []).append(limit)
            notes = (each.facts["notes"] or "").split(figures.NOTE_SEPARATOR)
            told = next((note for note in notes if note.startswith(UNUSED)), None)
            if told:
                why[str(run.folder)] = words.one_line(told.removeprefix(UNUSED))
    return Ceilings({key: sum(held) / len(held) for key, held in most.items()}, why)
