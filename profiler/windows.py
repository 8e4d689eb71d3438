"""One held window's requests as arrays: which were measured, when their tokens came, how long they waited.

Latencies belong to the requests that were *due* inside the steady window, all of which ran to their end
under the same load (of a batch: to all).  Latency counts from ``due``, so neither a stalled server nor a
stalled client can hide.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler.schema import Window

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LATENCIES = ("ttft_s", "itl_s", "tpot_s", "e2e_s")
OPEN_MODES = ("open", "replay")
NOT_MEASURED = ("ok", "cancelled")


class Arrivals(NamedTuple):
    """All token arrivals, one element an arrival: request row, time in ns, tokens."""

    row: Ints
    times_ns: Ints
    tokens: Ints


class WindowView:
    """One window's requests as arrays: times in ns (−1 where it never came), one element a request."""

    def __init__(self, window: Window, table: Any) -> None:
        import numpy as np

        first, last = np.searchsorted(table["window"].to_numpy(), (window.index, window.index + 1))
        self.window = window
        self._columns = table.slice(first, last - first)
        self.outcome: list[str] = self._columns["outcome"].to_pylist()
        self.start, self.end = window.steady_start_ns or 0, window.steady_end_ns or 0
        self.span_s = (self.end - self.start) / 1e9 if self.end > self.start > 0 else None
        self.inside = self._inside()
        self.ok = self.has_outcome("ok")
        self.measured = self.inside & self.ok

    def __getitem__(self, name: str) -> Ints:
        import numpy as np
        import pyarrow.compute as pc

        if name not in self._columns.column_names:  # written before there was such a column
            return np.full(len(self.outcome), -1, dtype=np.int64)
        filled: Ints = pc.fill_null(self._columns[name], -1).to_numpy()
        return filled

    def _inside(self) -> Flags:
        """Requests due in the window; all of a batch, whose window begins when the first is *sent*."""
        due = self["due_ns"]
        if self.window.point.mode == "batch":
            return due >= 0
        return (due >= self.start) & (due < self.end)

    def has_outcome(self, outcome: str) -> Flags:
        import numpy as np

        return np.array([each == outcome for each in self.outcome], dtype=bool)

    def failures(self) -> Iterator[str]:
        """Outcomes of the failed requests that were due in the window (all of them, if never steady)."""
        for outcome, inside in zip(self.outcome, self.inside, strict=True):
            if (inside or self.span_s is None) and outcome not in NOT_MEASURED:
                yield outcome

    @cached_property
    def arrivals(self) -> Arrivals:
        import numpy as np
        import pyarrow.compute as pc

        times, counts = self._columns["arrivals_ns"], self._columns["arrival_tokens"]
        lengths = pc.fill_null(pc.list_value_length(times), 0).to_numpy().astype(np.int64)
        flat, tokens = (
            pc.list_flatten(column).to_numpy(zero_copy_only=False).astype(np.int64)
            for column in (times.combine_chunks(), counts.combine_chunks())
        )
        return Arrivals(np.repeat(np.arange(len(lengths)), lengths), flat, tokens)

    @cached_property
    def shown_tokens(self) -> Floats:
        """Tokens of all arrivals of each request."""
        import numpy as np

        row, _, tokens = self.arrivals
        # Without a single arrival bincount forgets the type of its weights.
        return np.bincount(row, weights=tokens, minlength=len(self.outcome)).astype(np.float64)

    @cached_property
    def beyond_pieces(self) -> Ints:
        """Output tokens of each measured request less those its arrivals show: engines that return text
        only may send several tokens in one piece, or one in several; 0 for the other requests."""
        import numpy as np

        return np.where(self.measured, self["output_tokens"] - self.shown_tokens, 0).astype(np.int64)

    def within(self, times: Ints) -> Flags:
        """Which of these instants lie in the steady window."""
        return (times > self.start) & (times <= self.end)

    @cached_property
    def arrived_output(self) -> tuple[Ints, Floats]:
        """Arrival times and output tokens; where the stream shows fewer or more pieces than ``usage``
        counts tokens (engines that return text only), each piece carries its share of the request's count."""
        import numpy as np

        row, times, pieces = self.arrivals
        seen = self.shown_tokens
        share = np.divide(self["output_tokens"], seen, out=np.ones_like(seen), where=seen > 0)
        return times, pieces * share[row]


def request_latency(view: WindowView, name: str) -> Floats:
    """One latency of every request in seconds (ttft_s, tpot_s, e2e_s); NaN where a request has none:
    it never came, or (tpot_s) the answer is a single token."""
    import numpy as np

    first, last, due = view["first_ns"], view["last_ns"], view["due_ns"]
    came = first >= 0
    if name == "ttft_s":
        return np.where(came, (first - due) / 1e9, np.nan)
    if name == "e2e_s":
        return np.where(came, (last - due) / 1e9, np.nan)
    steps = view["output_tokens"] - 1
    return np.where(came & (steps > 0), (last - first) / 1e9 / np.maximum(steps, 1), np.nan)


def latency_samples(view: WindowView, name: str) -> Floats:
    """The window's sample of one latency in seconds, one element a measured request (for ITL: a gap)."""
    import numpy as np

    if name == "itl_s":
        return _gaps(view)
    sample: Floats = request_latency(view, name)[view.measured]
    return np.asarray(sample[~np.isnan(sample)])


def _gaps(view: WindowView) -> Floats:
    """Gaps between token arrivals; a chunk of k tokens is one gap and k − 1 zero gaps, and so is a piece
    of text that holds k tokens by the server's count."""
    import numpy as np

    row, times, tokens = view.arrivals
    kept = view.measured[row]
    row, times, tokens = row[kept], times[kept], tokens[kept]
    same = row[1:] == row[:-1]
    gaps = (times[1:] - times[:-1])[same] / 1e9
    together = int((tokens - 1).clip(min=0).sum() + view.beyond_pieces.clip(min=0).sum())
    return np.concatenate([gaps, np.zeros(together)])


def flights(view: WindowView) -> tuple[Ints, Ints]:
    """When each request was sent and ended; of one whose end was not seen, the end of the load."""
    import numpy as np

    sent, ended = view["sent_ns"], np.maximum(view["done_ns"], view["last_ns"])
    ended = np.where(ended < 0, view.window.closed_ns, ended)
    return sent[sent >= 0], np.maximum(ended, sent)[sent >= 0]


def busy_spans(view: WindowView) -> tuple[Ints, Ints]:
    """Where the stretches of time with at least one request in flight begin and end, in order."""
    import numpy as np

    sent, ended = flights(view)
    order = np.argsort(sent)
    sent, ended = sent[order], np.maximum.accumulate(ended[order])
    opens = np.concatenate([[True], sent[1:] > ended[:-1]])[: len(sent)]
    closes = np.concatenate([opens[1:], [True]])[: len(sent)]
    return sent[opens], ended[closes]
