"""Was a load point in a steady state?  In words, since nothing but a reader's trust hangs on it.

A closed loop asks the same of a machine all the time, so what it gives should not jump, drift or begin
slower: of each window the rate of output tokens (``stats.steady``), of its windows one by one the same, and
the clocks of the boards.  In an open loop the rate follows the arrivals and tells nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from profiler.samples import series
from profiler.site import Site, short
from profiler.stats import steady
from profiler.stats.steady import Change
from profiler.windows import WindowView, request_latency

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

# What every note of a load point that was not steady begins with.
PREFIX = "not steady: "
# Slices no shorter than an answer, or waves of answers that began together look like changes; no finer than
# this many, and with enough tokens in each that their number is no matter of chance.
MOST_SLICES, FEWEST_TOKENS = 100, 20


def notes(site: Site, views: Sequence[WindowView]) -> Iterator[str]:
    """What speaks against a steady state, of the windows of one load point in the order they were held."""
    closed = [view for view in views if view.window.point.mode == "closed" and view.span_s]
    yield from _worst([found for view in closed if (found := _rate(view))], len(closed))
    yield from _from_window_to_window(closed)
    for uuid in site.gpus:
        clocks = [found for view in closed if (found := _clock(site, view, uuid))]
        yield from _worst(clocks, len(closed))
    yield from _preempted(site, closed)


class _Found(NamedTuple):
    """A change of ``what`` inside one window."""

    what: str
    view: WindowView
    change: Change

    def __str__(self) -> str:
        span_s, share = self.view.span_s or 0.0, self.change.change_frac
        where = f"window {self.view.window.index}"
        if self.change.at_frac is None:
            return f"{self.what} {_moved(share)} in the course of {where}"
        at_s = self.change.at_frac * span_s
        if self.change.kind == "jump":
            return f"{self.what} {_moved(share)} after {at_s:.3g} s of {where}"
        level = "higher" if share > 0 else "lower"
        return f"{self.what} was {abs(share):.0%} {level} in the first {at_s:.3g} s of {where} (warm-up?)"


def _moved(share: float) -> str:
    return f"{'rose' if share > 0 else 'fell'} by {abs(share):.0%}"


def _worst(found: Sequence[_Found], windows: int) -> Iterator[str]:
    if found:
        worst = max(found, key=lambda each: abs(each.change.change_frac))
        often = f" (so or alike in {len(found)} of {windows} windows)" if windows > 1 else ""
        yield f"{PREFIX}{worst}{often}"


def _rate(view: WindowView) -> _Found | None:
    rates = rate_slices(view)
    change = None if rates is None else steady.change(rates)
    return change and _Found("output tokens/s", view, change)


def rate_slices(view: WindowView) -> Floats | None:
    """Output tokens/s of a steady window, slice by slice; None where it holds too few answers to tell."""
    import numpy as np

    times, tokens = view.arrived_output
    inside = view.within(times)
    times, tokens = times[inside], tokens[inside]
    e2e_s = request_latency(view, "e2e_s")[view.measured]
    if view.span_s is None or not len(e2e_s) or not e2e_s.mean() > 0:
        return None
    slices = int(min(MOST_SLICES, view.span_s / e2e_s.mean(), tokens.sum() / FEWEST_TOKENS))
    if slices < steady.FEWEST:
        return None
    place = ((times - view.start - 1) * slices) // (view.end - view.start)
    found: Floats = np.bincount(place, weights=tokens, minlength=slices) / (view.span_s / slices)
    return found


def _from_window_to_window(views: Sequence[WindowView]) -> Iterator[str]:
    """A drift over the windows of one engine start: it warms up, fills up or wears down."""
    for start in sorted({view.window.engine_start for view in views}):
        held = [view for view in views if view.window.engine_start == start]
        change = steady.change(_rates(held)) if len(held) >= steady.FEWEST else None
        if change:
            yield (
                f"{PREFIX}output tokens/s {_moved(change.change_frac)} "
                f"from window {held[0].window.index} to window {held[-1].window.index}"
            )


def _rates(views: Sequence[WindowView]) -> Floats:
    import numpy as np

    def rate(view: WindowView) -> float:
        times, tokens = view.arrived_output
        return float(tokens[view.within(times)].sum()) / (view.span_s or np.nan)

    return np.array([rate(view) for view in views])


def _clock(site: Site, view: WindowView, uuid: str) -> _Found | None:
    source = f"gpu:{uuid}"
    _, clocks = series(site.within((view.start, view.end)), source, "sm_clock_mhz")
    change = steady.change(clocks)
    return change and _Found(f"the clock of {short(source)}", view, change)


def _preempted(site: Site, views: Sequence[WindowView]) -> Iterator[str]:
    """No change of state by itself, but work done twice: the engine had too little memory for the load."""
    source, total = f"engine:{site.manifest.model.name}", 0
    for view in views:
        _, count = series(site.within((view.start, view.end)), source, "preemptions")
        total += int(count[-1] - count[0]) if len(count) else 0
    if total > 0:
        yield f"the engine preempted {total:,} requests for want of memory, and did their work again"
