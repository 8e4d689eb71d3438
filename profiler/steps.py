"""What an engine worked on in the steady windows of a load point, counted from the tokens that came.

Engines with continuous batching give every running sequence one token a pass (*step*).  At the moment of a
token n sequences are running, so it is 1/n of a step, and the steps of a window are the sum of 1/n over its
decode tokens, also where n changes.  A prompt shares a step with the sequences that decode (chunked prefill),
or has its own where none does; its first token comes out of that step and is no decode token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from profiler.windows import WindowView

if TYPE_CHECKING:
    from profiler.windows import Ints

# Tokens of several sequences that lie closer together came out of one step.
TOGETHER_NS = 1_000_000


class Prompts(Struct, frozen=True, kw_only=True):
    """``sequences`` prompts that were worked off in ``steps`` steps; each of ``tokens`` on average, behind
    ``context`` more that the cache had."""

    steps: int = 0
    sequences: int = 0
    tokens: float = 0.0
    context: float = 0.0


class Steps(Struct, frozen=True, kw_only=True):
    """All steady windows of a load point together.

    ``steps`` are those with decoding sequences; ``context``: tokens before a decode token, on average.
    ``mixed`` prompts came beside decoding sequences, ``alone`` ones had steps of their own.
    """

    decode_tokens: float
    steps: float
    context: float
    mixed: Prompts
    alone: Prompts

    @property
    def output_tokens(self) -> float:
        return self.decode_tokens + self.mixed.sequences + self.alone.sequences

    @property
    def batch(self) -> float:
        """Decoding sequences of a step, mean over steps."""
        return self.decode_tokens / self.steps if self.steps else 0.0


def count(views: Sequence[WindowView], cached_frac: float = 0.0) -> Steps | None:
    """``cached_frac``: the share of prompts that a prefix cache had, where requests do not say it themselves.
    None where no token came, or where the length of a prompt is unknown."""
    if any((view["input_tokens"][view["first_ns"] >= 0] < 0).any() for view in views):
        return None
    decoded = [_decoded(view) for view in views]
    tokens, steps, before = (sum(each[place] for each in decoded) for place in range(3))
    begun = [_begun(view, cached_frac) for view in views]
    found = Steps(
        decode_tokens=tokens,
        steps=steps,
        context=before / tokens if tokens else 0.0,
        mixed=_together([each[~each["alone"]] for each in begun]),
        alone=_together([each[each["alone"]] for each in begun]),
    )
    return found if found.output_tokens else None


def _decoded(view: WindowView) -> tuple[float, float, float]:
    """Decode tokens that arrived in the window, the steps they are, and the sum of the tokens before each.

    Sequences are counted at the middle of the gap before a token: at its end those of the same step may have
    left already.
    """
    import numpy as np

    row, times, _ = view.arrivals
    _, amounts = view.arrived_output
    is_first = np.ones(len(row), dtype=bool)
    is_first[1:] = row[1:] != row[:-1]
    middle = np.where(is_first, times, (times + np.roll(times, 1)) // 2)
    decode = np.where(is_first, np.maximum(amounts - 1, 0), amounts) * view.within(times)
    emitted = np.cumsum(amounts) - amounts
    before_row = emitted[is_first][np.cumsum(is_first) - 1]
    before = view["input_tokens"][row] + emitted - before_row + (amounts - 1) / 2
    steps = decode / np.maximum(_running(view, middle), 1)
    return float(decode.sum()), float(steps.sum()), float((decode * before).sum())


def _running(view: WindowView, times: Ints) -> Ints:
    """How many sequences were between their first and last token."""
    import numpy as np

    came = view["first_ns"] >= 0
    begun = np.searchsorted(np.sort(view["first_ns"][came]), times, side="right")
    ended = np.searchsorted(np.sort(view["last_ns"][came]), times, side="right")
    return np.asarray(begun - ended)


def _begun(view: WindowView, cached_frac: float) -> Any:
    """The requests whose first token arrived in the window, by its time: a structured array."""
    import numpy as np

    first = view["first_ns"]
    kept = np.flatnonzero((first >= 0) & view.within(first))
    kept = kept[np.argsort(first[kept])]
    given, said = view["input_tokens"][kept], view["cached_tokens"][kept]
    cached = np.where(said >= 0, said, given * cached_frac)
    fields = {"first_ns": first[kept], "alone": _running(view, first[kept] - TOGETHER_NS) == 0}
    fields |= {"tokens": given - cached, "cached": cached}
    table = np.empty(len(kept), dtype=[(name, column.dtype) for name, column in fields.items()])
    for name, column in fields.items():
        table[name] = column
    return table


def _together(windows: Sequence[Any]) -> Prompts:
    import numpy as np

    rows = np.concatenate(windows)
    if not len(rows):
        return Prompts()
    steps = sum(1 + int((np.diff(each["first_ns"]) > TOGETHER_NS).sum()) for each in windows if len(each))
    mean = {name: float(rows[name].mean()) for name in ("tokens", "cached")}
    return Prompts(steps=steps, sequences=len(rows), tokens=mean["tokens"], context=mean["cached"])
