"""Measured energy as it is paid for and emitted: per output token, with the building's share and the time
that the machine waits.  Never from a data sheet.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from profiler import consumption, stats
from profiler.cost import kinds
from profiler.cost.terms import Terms
from profiler.figures import Figures
from profiler.prices import Missing
from profiler.schema import Estimate

J_PER_KWH = 3.6e6
NOT_MEASURED = "no energy was measured (docs/energy.md: what is read on which machine)"
NO_PUE = "no PUE given, the building is left out (--pue 1.2)"


class Energy(Struct, frozen=True, kw_only=True):
    """What an output token takes at the meter (J) and where that meter is.

    ``j_per_output_token`` holds the token's share of the time that is paid and not worked, where idle power
    was measured; ``work_w`` and ``idle_w`` are the powers it is made of, the latter None where unknown.
    ``pue`` 1 where there is none.  ``boundary`` names what is inside, ``notes`` what is not.
    """

    j_per_output_token: Estimate
    work_w: float
    idle_w: float | None
    pue: float
    boundary: str
    notes: tuple[str, ...]

    @property
    def kwh_per_m_output_tokens(self) -> Estimate:
        return stats.scaled(self.j_per_output_token, 1e6 / J_PER_KWH)


class Measured(NamedTuple):
    """Energy of an output token (J) without the building's share, and what it carries on top where the
    machine waits a second for each second of work (None where idle power was not measured)."""

    working_j: Estimate
    waiting_j: Estimate | None
    work_w: float
    idle_w: float | None
    inside: str


def pue_of(found: Figures, terms: Terms) -> float | None:
    """The user's, else the run's own; None where nobody says."""
    return terms.pue if terms.pue is not None else found.facts.get("pue")


def measured(found: Figures) -> Measured | Missing:
    """Of the widest boundary: the host, else the boards (the CPU packages without any)."""
    host, own = found.estimates.get(consumption.HOST), found.estimates.get(consumption.GROSS)
    rate = found.estimates.get("output_tokens_per_s")
    working = host or own
    if working is None or rate is None or rate.value <= 0:
        return Missing(NOT_MEASURED)
    idle = found.estimates.get(consumption.IDLE)
    waiting = None
    if idle is not None:
        waiting = stats.ratio_of(idle, rate) if idle.low is not None else stats.inverted(rate, idle.value)
    return Measured(
        working_j=working,
        waiting_j=waiting,
        work_w=working.value * rate.value,
        idle_w=idle.value if idle else None,
        inside="host" if host else str(found.facts.get("energy_boundary") or "boards"),
    )


def energy(found: Figures, terms: Terms) -> Energy | Missing:
    """In a share u of the paid time the machine works, else it waits: a token then carries (1 − u)/u of the
    idle power over the rate on top of its own energy."""
    known = measured(found)
    if isinstance(known, Missing):
        return known
    waits = 1 / terms.paid_share - 1
    pue = pue_of(found, terms)
    boundary = f"{known.inside} × PUE {pue:g}" if pue else known.inside
    notes = [] if pue else [NO_PUE]
    each = known.working_j
    if waits > 0 and known.waiting_j is None:
        notes.append("energy of the idle time is left out: idle power was not measured")
        boundary += ", idle time left out"
    elif waits > 0 and known.waiting_j is not None:
        each = kinds.combined([(1.0, known.working_j), (waits, known.waiting_j)])
        is_host = known.inside == "host" and found.gpu
        notes += ["energy of the idle time is that of the boards only"] if is_host else []
    return Energy(
        j_per_output_token=stats.scaled(each, pue or 1.0),
        work_w=known.work_w,
        idle_w=known.idle_w,
        pue=pue or 1.0,
        boundary=boundary,
        notes=tuple(notes),
    )


def usd_per_m_output_tokens(used: Energy, terms: Terms) -> Estimate:
    """The electricity bill over the output tokens."""
    return stats.scaled(used.kwh_per_m_output_tokens, terms.tariff_usd_per_kwh)
