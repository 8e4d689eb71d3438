"""The two ways: separate load points, and regression over slices of windows in which both kinds mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from profiler import consumption, stats
from profiler.consumption import Consumption
from profiler.schema import Estimate, LoadPoint
from profiler.site import Site
from profiler.split import fit, slices
from profiler.split.fit import Spread
from profiler.split.slices import Slices
from profiler.windows import WindowView

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Flags = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

Quantity = Literal["engine time", "energy"]
POINTS, REGRESSION = "separate points", "regression"
ALWAYS_BUSY_FRAC = 0.99
PARTS_OF_ONE_WINDOW = 10
ADVICE = "run scenario split, or fewer requests at a time"


class Standing(Struct, frozen=True, kw_only=True):
    """Power of standing by that is counted apart from the tokens, and whose word it is.

    ``measured``: in idle baselines of this ``kind``.  ``fitted``: what the regression leaves when no token
    is worked off.  ``inside``: not told apart, so it is in the tokens' figures.
    """

    watts: float = 0.0
    source: Literal["measured", "fitted", "inside"] = "inside"
    kind: str | None = None


class Way(Struct, frozen=True, kw_only=True):
    """One quantity split one way, per token.  ``undecided``: why a figure is missing.

    ``context``: what each decode token takes more for 1000 tokens before it, where that could be told apart.
    ``shares``: what input, decoding and standing by come to in the load's own windows, as parts of the whole,
    and what they leave of it (below 0: they exceed it).
    """

    way: str
    input: Estimate | None = None
    output: Estimate | None = None
    context: Estimate | None = None
    standing: Standing = Standing()
    residual_frac: float | None = None
    slices: int | None = None
    vif: float | None = None
    condition: float | None = None
    shares: tuple[float, float, float, float] | None = None
    basis: str = ""
    undecided: str | None = None


class Held(NamedTuple):
    """One load point of one run: its steady windows, and what they consumed."""

    site: Site
    point: LoadPoint
    views: list[WindowView]
    wholes: list[Slices]
    consumed: Consumption

    def total(self, name: str) -> float:
        return sum(each.total(name) for each in self.wholes)

    @property
    def name(self) -> str:
        load = self.point.concurrency or f"{self.point.requests_per_s:.4g}/s"
        return f"{self.site.manifest.scenario.name} at {load}"

    @property
    def is_prefill(self) -> bool:
        """Whether every answer is one token, which comes out of prefill itself."""
        return self.total("decode_tokens") == 0 < self.total("input_tokens")

    @property
    def over(self) -> str:
        """What an interval over the parts of this point is taken over: its windows, or slices of the one."""
        return "repeats" if len(self.wholes) > 1 else "slices"

    @property
    def busy_frac(self) -> float:
        return self.total("busy_s") / self.total("span_s")

    def sliced(self) -> list[Slices]:
        return [slices.of_window(view, self.site.run.samples, self.site.gpus) for view in self.views]


class _Rows(NamedTuple):
    """Slices as columns: the quantity, and the input, decode and context tokens that it went into."""

    quantity: Floats
    span_s: Floats
    tokens: Floats
    windows: Ints


class _UndecidedError(Exception):
    """Why a figure cannot be given."""


# ------------------------------------------------------------------------------------- separate points


def by_points(
    quantity: Quantity, at: Held, alone: Held | Estimate | None, decode: Held, standing: Standing
) -> Way:
    """Prefill from where it stands ``alone`` (or a figure for it), decoding from ``decode`` less that."""
    prefill = "TTFT at concurrency 1" if isinstance(alone, Estimate) else alone.name if alone else "none"
    by = ", by difference" if decode is at else ""
    way = Way(way=POINTS, standing=standing, basis=f"prefill: {prefill}; decode: {decode.name}{by}")
    if alone is None:
        return replace(way, undecided="no run holds prefill alone: run scenario prefill and give it too")
    try:
        _refuse_energy(quantity, *(each for each in (at, alone, decode) if isinstance(each, Held)))
        inputs = _given(alone) if isinstance(alone, Estimate) else _prefill(quantity, alone, standing)
        outputs = _decode(quantity, decode, inputs, standing)
        figures = inputs.estimate(0, alone.over or "repeats"), outputs.estimate(0, decode.over)
        shares = _shares(quantity, at, figures, standing)
    except _UndecidedError as error:
        return replace(way, undecided=str(error))
    return replace(way, input=figures[0], output=figures[1], shares=shares)


def _given(prefill: Estimate) -> Spread:
    import numpy as np

    if prefill.low is None or prefill.high is None or prefill.n < 2:
        return Spread(np.array([prefill.value]), np.array([math.nan]), 0, prefill.n)
    error = (prefill.high - prefill.low) / 2 / stats.t_quantile(prefill.n - 1)
    return Spread(np.array([prefill.value]), np.array([error]), prefill.n - 1, prefill.n)


def _prefill(quantity: Quantity, alone: Held, standing: Standing) -> Spread:
    import numpy as np

    rows, groups = _parts(quantity, alone, standing)
    inputs = rows.tokens[:, 0]
    return fit.jackknife(lambda kept: np.array([rows.quantity[kept].sum() / inputs[kept].sum()]), groups)


def _vain(held: Held) -> str:
    return f"in {held.name} part of every window went to requests that never got a token"


def _decode(quantity: Quantity, held: Held, prefill: Spread, standing: Standing) -> Spread:
    """What is left for a decode token when the prompts are paid; the error of that payment is part of its
    own, degrees of freedom by Welch and Satterthwaite (Biometrics Bull. 2, 1946)."""
    import numpy as np

    rows, groups = _parts(quantity, held, standing)
    if not rows.tokens[:, 1].any():
        raise _UndecidedError(_vain(held))
    per_input = float(prefill.values[0])

    def estimate(kept: Flags) -> Floats:
        inputs, decoded, _ = rows.tokens[kept].sum(axis=0)
        return np.asarray(np.array([rows.quantity[kept].sum() - per_input * inputs, inputs]) / decoded)

    own = fit.jackknife(estimate, groups)
    if own.values[0] <= 0:
        raise _UndecidedError(f"prefill alone would take more than all there was in {held.name}")
    paid = float(own.values[1] * prefill.errors[0])
    error = float(np.hypot(own.errors[0], paid))
    df = float(min(own.df, prefill.df))
    if df > 0 and error > 0:
        df = error**4 / (own.errors[0] ** 4 / own.df + paid**4 / prefill.df)
    return Spread(own.values[:1], np.array([error]), df, own.n)


def _parts(quantity: Quantity, held: Held, standing: Standing) -> tuple[_Rows, Ints]:
    """The windows of a point, or slices of its only one, and which of them are left out together."""
    import numpy as np

    whole = held.over == "repeats"
    rows = _rows(quantity, held.wholes if whole else held.sliced(), standing)
    count = len(rows.quantity)
    groups = np.arange(count)
    return rows, groups if whole else groups * PARTS_OF_ONE_WINDOW // max(count, PARTS_OF_ONE_WINDOW)


# ------------------------------------------------------------------------------------- regression


def by_regression(quantity: Quantity, at: Held, standing: Standing) -> Way:
    """Over the slices of all windows of ``at``.  Where the standing power was not measured it is told apart
    only if the engine was idle at times; engine time has none."""
    import numpy as np

    way = Way(way=REGRESSION, standing=standing, basis=at.name)
    try:
        _refuse_energy(quantity, at)
        rows = _rows(quantity, at.sliced(), standing)
        if len(rows.quantity) < fit.MIN_SLICES:
            raise _UndecidedError(
                f"{len(rows.quantity)} slices of the windows can be used, {fit.MIN_SLICES} are needed: "
                "hold the load for longer (measure.window_s, measure.repeats)"
            )
        idles = quantity == "energy" and standing.source == "inside" and at.busy_frac < ALWAYS_BUSY_FRAC
        columns, has_context = _columns(rows, idles)
        vif, condition = fit.collinearity(columns, constant=idles)
        way = replace(way, slices=len(rows.quantity), vif=_finite(vif), condition=_finite(condition))
        if (why := fit.undecided(vif, condition)) is not None:
            raise _UndecidedError(f"{why}: {ADVICE}")
        mean_context = rows.tokens[:, 2].sum() / rows.tokens[:, 1].sum() if has_context else 0.0
        found = fit.fit(
            rows.quantity / rows.span_s, columns, rows.windows, _combine(columns.shape[1], mean_context)
        )
        figures = found.spread.estimate(0, "slices"), found.spread.estimate(1, "slices")
        if idles:
            standing = Standing(watts=float(found.spread.values[-1]), source="fitted")
        shares = _shares(quantity, at, figures, standing)
    except _UndecidedError as error:
        return replace(way, undecided=str(error))
    return replace(
        way,
        input=figures[0],
        output=figures[1],
        context=stats.scaled(found.spread.estimate(2, "slices"), 1e3) if has_context else None,
        standing=standing,
        residual_frac=float(np.float64(found.residual_frac)),
        shares=shares,
    )


def _columns(rows: _Rows, idles: bool) -> tuple[Floats, bool]:
    """Tokens a second, context too where that can be told apart, and a constant where there is idling."""
    import numpy as np

    rates = rows.tokens / rows.span_s[:, None]
    constant = [np.ones((len(rates), 1))] * idles
    for kinds in (3, 2):
        columns = np.hstack([rates[:, :kinds], *constant])
        if kinds == 2 or fit.undecided(*fit.collinearity(columns, constant=idles)) is None:
            break
    return columns, kinds == 3


def _combine(count: int, mean_context: float) -> Floats:
    """Coefficients → figures: a decode token is taken at the mean context of these windows."""
    import numpy as np

    mix = np.eye(count)
    if mean_context:
        mix[1, 2] = mean_context
    return mix


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# ------------------------------------------------------------------------------------- both


def _refuse_energy(quantity: Quantity, *used: Held) -> None:
    """What refuses energy per token refuses its parts."""
    for held in used if quantity == "energy" else ():
        if held.consumed.estimates[consumption.GROSS] is None:
            raise _UndecidedError(held.consumed.reasons.get(consumption.GROSS, "not measured"))


def _rows(quantity: Quantity, parts: Sequence[Slices], standing: Standing) -> _Rows:
    """The slices in which all is known, of all parts."""
    import numpy as np

    spent = []
    for part in parts:
        if quantity == "engine time":
            spent.append(part.busy_s)
        elif part.energy_j is None:
            raise _UndecidedError(part.reason or "not measured")
        else:
            spent.append(part.energy_j - standing.watts * part.span_s)
    known = np.concatenate([part.known for part in parts])
    columns = [
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("span_s", "input_tokens", "decode_tokens", "context_tokens")
    ]
    windows = np.repeat(np.arange(len(parts)), [len(part.span_s) for part in parts])
    return _Rows(
        np.concatenate(spent)[known], columns[0][known], np.column_stack(columns[1:])[known], windows[known]
    )


def _shares(
    quantity: Quantity, at: Held, figures: tuple[Estimate, Estimate], standing: Standing
) -> tuple[float, float, float, float]:
    """Input, decoding, standing by and the rest, as parts of all that this load's windows took."""
    spent = float(_rows(quantity, at.wholes, Standing()).quantity.sum())
    if spent <= 0:
        raise _UndecidedError(_vain(at))
    inputs = figures[0].value * at.total("input_tokens") / spent
    outputs = figures[1].value * at.total("decode_tokens") / spent
    idle = standing.watts * at.total("span_s") / spent if quantity == "energy" else 0.0
    return inputs, outputs, idle, 1 - inputs - outputs - idle


def standing_by(used: Sequence[Held]) -> Standing:
    """Mean idle power of the runs' baselines; inside the tokens' figures where a run lacks one."""
    idle = [held.consumed.estimates[consumption.IDLE] for held in used]
    watts = [each.value for each in idle if each is not None]
    if not watts or len(watts) < len(idle):
        return Standing()
    kinds = dict.fromkeys(str(held.consumed.facts["idle_kind"]) for held in used)
    return Standing(watts=sum(watts) / len(watts), source="measured", kind=" / ".join(kinds))
