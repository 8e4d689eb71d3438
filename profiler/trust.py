"""May the figures be believed?  What records, samples and the client's own audit say against them.

Values and one-line notes: was the client the limit, did a cache answer, do the server's counts agree with
what was counted and sent, were several tokens in a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from profiler import stats
from profiler.samples import between, series
from profiler.schema import Estimate, Manifest, Window
from profiler.settings import Scenario
from profiler.windows import OPEN_MODES, WindowView, request_latency

if TYPE_CHECKING:
    import numpy as np

# Chance hits of a block or two (chat templates, for one) are no sign of a cache at work.
FRESH_HIT_FRAC = 0.01


@dataclass(frozen=True)
class Client:
    """The load generator's own part in one load point: the worst of its windows, None where not measured.

    ``bound``: what of its own slowness is in the figures, in words; None: nothing.
    """

    send_lag_p99_s: float | None = None
    cpu_frac: float | None = None
    loop_lag_p99_s: float | None = None
    bound: str | None = None


def client(windows: Sequence[Window]) -> Client:
    audits = [window.audit for window in windows if window.audit is not None]

    def worst(values: list[float | None]) -> float | None:
        return max((value for value in values if value is not None), default=None)

    reasons = dict.fromkeys(reason for audit in audits for reason in audit.bound_by)
    return Client(
        send_lag_p99_s=worst([audit.send_lag_p99_s for audit in audits]),
        cpu_frac=worst([audit.cpu_frac for audit in audits]),
        loop_lag_p99_s=worst([audit.loop_lag_p99_s for audit in audits]),
        bound="; ".join(reasons) or None,
    )


@dataclass(frozen=True)
class Sampling:
    """The sampler's own part in one load point: the worst of its windows, None where it did not say.

    ``cpu_frac`` of one core; ``late_s_max`` the worst lateness of a tick of any probe.
    """

    cpu_frac: float | None = None
    late_s_max: float | None = None


def sampling(samples: Any, steady: Sequence[WindowView]) -> Sampling:
    """From the sampler's own reports, one every few seconds: each is of the time since the one before it.

    Its CPU time starts anew where it was replaced: what the one before took until it ended nobody knows."""
    import numpy as np

    times, spent_s = series(samples, "sampler", "cpu_s")
    cpu: list[float] = []
    late: list[float] = []
    for view in steady:
        first, last = times.searchsorted(view.start, side="right") - 1, times.searchsorted(view.end)
        if first < 0 or last >= len(times):
            continue
        span_s = float(times[last] - times[first]) / 1e9
        if (np.diff(spent_s[first : last + 1]) >= 0).all():
            cpu.append(float(spent_s[last] - spent_s[first]) / span_s)
        inside = between(samples, int(times[first]) + 1, int(times[last]))
        late += [each["value"] for each in _lateness(inside)]
    return Sampling(max(cpu, default=None), max(late, default=None))


def _lateness(samples: Any) -> list[dict[str, Any]]:
    import pyarrow.compute as pc

    own = pc.and_(
        pc.equal(samples["source"], "sampler"), pc.ends_with(samples["name"], pattern="_late_max_s")
    )
    rows: list[dict[str, Any]] = samples.filter(own).to_pylist()
    return rows


def first_wave_ttft(steady: Sequence[WindowView]) -> Estimate | None:
    """Mean TTFT of the requests that were due before the steady window: the start, when all slots (or, in
    an open loop, an idle server) meet their first requests.  A batch is one wave and has none."""
    import numpy as np

    waves = []
    for view in steady:
        early = view.ok & (view["due_ns"] < view.start)
        if view.window.point.mode != "batch" and early.any():
            waves.append(request_latency(view, "ttft_s")[early])
    if not waves:
        return None
    pooled = np.concatenate(waves)
    if len(waves) == 1:
        return stats.of_sample(pooled, "requests")
    found = stats.over_repeats([float(wave.mean()) for wave in waves])
    return Estimate(found.value, found.low, found.high, len(pooled), "requests")


def tokens_per_chunk(steady: Sequence[WindowView]) -> Estimate | None:
    """Output tokens over arrivals of the measured requests: 1 unless the engine sends several at once."""
    chunks = sum(int(view.measured[view.arrivals.row].sum()) for view in steady)
    tokens = sum(int(view["output_tokens"][view.measured].sum()) for view in steady)
    return Estimate(tokens / chunks, n=chunks, over="chunks") if chunks else None


def prefix_cache_hit(steady: Sequence[WindowView], samples: Any, source: str) -> Estimate | None:
    """The fraction of prompt tokens that came from a prefix cache: by the requests' ``usage`` where it
    tells, else by the growth of the engine's own counters over the windows, else None."""
    cached = prompt = told = 0
    for view in steady:
        hits, sent = view["cached_tokens"], view["input_tokens"]
        tells = view.measured & (hits >= 0) & (sent > 0)
        cached, prompt = cached + int(hits[tells].sum()), prompt + int(sent[tells].sum())
        told += int(tells.sum())
    if told:
        return Estimate(cached / prompt, n=told, over="requests")
    grown = [_growth(view, samples, source) for view in steady]
    known = [each for each in grown if each is not None]
    asked = sum(queries for _, queries in known)
    return Estimate(sum(hits for hits, _ in known) / asked, n=len(known), over="repeats") if asked else None


def _growth(view: WindowView, samples: Any, source: str) -> tuple[float, float] | None:
    """Tokens hit and looked up in one window; None where the counters were not read, or set back."""
    found = []
    for name in ("prefix_cache_hit_tokens", "prefix_cache_query_tokens"):
        times, values = series(samples, source, name)
        before, after = times.searchsorted((view.start, view.end), side="right")
        if before == 0 or after <= before:
            return None
        found.append(float(values[after - 1] - values[before - 1]))
    hits, queries = found
    return (hits, queries) if 0 <= hits <= queries and queries > 0 else None


def meant_fresh(scenario: Scenario) -> bool:
    """Whether no prompt was meant to find any part of itself in a cache (a trace may hold what it likes)."""
    work = scenario.workload
    shared = work.shared_prefix_tokens or work.conversation is not None
    return not shared and scenario.load.mode != "replay"


def offered(steady: Sequence[WindowView]) -> Estimate | None:
    """Requests due a second in the windows of an open loop, whatever became of them."""
    rates = [
        int(view.inside.sum()) / view.span_s
        for view in steady
        if view.span_s and view.window.point.mode in OPEN_MODES
    ]
    return stats.over_repeats(rates) if rates else None


def routing_made_up(manifest: Manifest) -> str | None:
    """Why nothing that depends on a MoE's routing or on the quality of its answers may rest on this run; None
    where the model's own trained router chose, for dense models, and where nobody knows."""
    routing, facts = manifest.engine.routing, manifest.model.facts
    if facts is None or facts.kind != "moe":
        return None
    if routing not in (None, "model"):
        return f"experts were chosen by the profiler ({routing})"
    return "experts were chosen by a router of random weights" if manifest.model.weights == "random" else None


def notes(steady: Sequence[WindowView], scenario: Scenario, hit: Estimate | None) -> Iterator[str]:
    yield from _chunk_notes(steady)
    yield from _usage_notes(steady)
    if scenario.workload.images is not None:
        yield _pictures_note(steady)
    if hit is not None and hit.value > FRESH_HIT_FRAC and meant_fresh(scenario):
        yield (
            f"{hit.value:.0%} of the prompt tokens came from a prefix cache although every prompt was fresh: "
            "prefill looks cheaper than it is"
        )


def _chunk_notes(steady: Sequence[WindowView]) -> Iterator[str]:
    beyond = [view.beyond_pieces for view in steady]
    mean = tokens_per_chunk(steady)
    if mean and (
        any((more > 0).any() for more in beyond) or any((view.arrivals.tokens > 1).any() for view in steady)
    ):
        yield (
            f"the engine sent several tokens in one chunk ({mean.value:.2f} on average): "
            "ITL holds zero gaps, read TPOT beside it"
        )
    if any((more < 0).any() for more in beyond):
        yield "the engine sent some tokens in several pieces: ITL is between pieces, read TPOT beside it"
    if any(prompts_unknown(view) for view in steady):
        yield "input tokens n/a: the endpoint does not say how long every prompt was"


def _usage_notes(steady: Sequence[WindowView]) -> Iterator[str]:
    """Requests whose ``usage`` disagrees with what was counted or sent."""
    for counted, words in (
        ("output_tokens", "the output tokens counted"),
        ("input_tokens", "the input tokens sent"),
    ):
        both = [(view[counted], view[f"reported_{counted}"], view.measured) for view in steady]
        wrong = sum(int((ok & (told >= 0) & (ours >= 0) & (told != ours)).sum()) for ours, told, ok in both)
        if wrong:
            total = sum(int(ok.sum()) for _, _, ok in both)
            yield f"usage disagrees with {words} in {wrong:,} of {total:,} requests"


def _pictures_note(steady: Sequence[WindowView]) -> str:
    """What a picture is worth in tokens is the model's secret; ``usage`` says what the prompts came to."""
    more: list[int] = []
    for view in steady:
        told = view.measured & (view["input_tokens"] >= 0)
        more += (view["input_tokens"] - view["planned_input_tokens"])[told].tolist()
    note = "the lengths asked for, and what was checked against the model's context, leave out the pictures"
    if not more:
        return f"{note}, of whose tokens the endpoint says nothing"
    return f"{note}: with them a prompt held {sum(more) / len(more):,.0f} tokens more by the endpoint's usage"


def prompts_unknown(view: WindowView) -> bool:
    """Whether the length of any prompt that counts, or was measured, is not known."""
    counts: np.ndarray[Any, Any] = view.within(view["first_ns"]) | view.measured
    return bool((view["input_tokens"][counts] < 0).any())
