"""How long the requests of a scenario are: the shortest, the mean, the longest."""

from __future__ import annotations

import functools

from msgspec import Struct

from profiler.settings import Length, Load, Workload
from profiler.workload.draws import bounds, mean
from profiler.workload.trace import Trace, load_trace


class Extent(Struct, frozen=True, kw_only=True):
    """Tokens of a request, over all kinds of a mix, all turns of a conversation, all rows of a trace.

    ``shortest_input`` is of what a request says itself; the other inputs are whole prompts, what was said
    before included.  ``longest_total`` is the longest prompt with its answer, ``longest_at`` says in
    words which request that is, where that is not plain.
    """

    shortest_input: int
    mean_input: int
    longest_input: int
    mean_output: int
    longest_output: int
    longest_total: int
    longest_at: str | None = None


def extent(workload: Workload, load: Load) -> Extent:
    """The extent of what ``load`` offers.  Raises InputError when its trace cannot be read."""
    if load.mode == "replay":
        assert load.trace is not None, "a replay without its trace"
        return _of_trace(load.trace, load_trace(load.trace, load))
    own = _of_shares(workload)
    talk = workload.conversation
    if talk is None:
        return own
    turns, most = mean(talk.turns), bounds(talk.turns)[1]
    # Turn j of n holds j + 1 prompts of its own kind and j answers; averaged over j.
    return Extent(
        shortest_input=own.shortest_input,
        mean_input=round((own.mean_input * (turns + 1) + own.mean_output * (turns - 1)) / 2),
        longest_input=most * own.longest_input + (most - 1) * own.longest_output,
        mean_output=own.mean_output,
        longest_output=own.longest_output,
        longest_total=most * own.longest_total,
        longest_at="the last turn of a conversation",
    )


def _of_shares(workload: Workload) -> Extent:
    kinds = [(share.weight, share.input_tokens, share.output_tokens) for share in workload.mix]
    if not kinds:
        assert workload.input_tokens is not None, "a workload without lengths, mix or trace"
        assert workload.output_tokens is not None, "a workload without lengths, mix or trace"
        kinds = [(1.0, workload.input_tokens, workload.output_tokens)]
    inputs = [bounds(wanted) for _, wanted, _ in kinds]
    outputs = [bounds(wanted) for _, _, wanted in kinds]
    return Extent(
        shortest_input=min(low for low, _ in inputs),
        mean_input=_weighted([(weight, wanted) for weight, wanted, _ in kinds]),
        longest_input=max(high for _, high in inputs),
        mean_output=_weighted([(weight, wanted) for weight, _, wanted in kinds]),
        longest_output=max(high for _, high in outputs),
        longest_total=max(i[1] + o[1] for i, o in zip(inputs, outputs, strict=True)),
    )


def _weighted(lengths: list[tuple[float, int | Length]]) -> int:
    whole = sum(weight for weight, _ in lengths)
    return round(sum(weight * mean(length) for weight, length in lengths) / whole)


@functools.lru_cache(maxsize=2)
def _of_trace(path: str, trace: Trace) -> Extent:
    rows = len(trace)
    totals = list(map(sum, zip(trace.input_tokens, trace.output_tokens, strict=True)))
    longest = max(totals)
    return Extent(
        shortest_input=min(trace.input_tokens),
        mean_input=round(sum(trace.input_tokens) / rows),
        longest_input=max(trace.input_tokens),
        mean_output=round(sum(trace.output_tokens) / rows),
        longest_output=max(trace.output_tokens),
        longest_total=longest,
        longest_at=f"{path}, line {trace.lines[totals.index(longest)]}",
    )
