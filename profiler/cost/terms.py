"""On what terms a token is paid for: what a user may say of prices, utilisation, power and the grid.

A TOML file of these tables (``--terms``), with the command's own options above it.  Nothing is measured here.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from profiler.settings import Count, Positive, Settings, Span

Basis = Literal["rented", "spot", "reserved", "owned", "electricity", "api"]
Share = Annotated[float, Meta(gt=0, le=1)]
Part = Annotated[float, Meta(ge=0, lt=1)]


class Owned(Settings, frozen=True, kw_only=True):
    """A node that is bought: what it costs, how long it serves, and what it costs while it does.

    ``node_price`` None: the catalog's for the GPU.  ``node_w`` is what a node draws at work, used where the
    run's own power was not measured.  ``hosting_per_kw_month``: rack, cooling, network, per kW of ``node_w``.
    """

    node_price: Positive | None = None
    gpus_per_node: Count = 8
    life_years: Positive = 4.0
    residual_frac: Part = 0.25
    interest_frac: Span = 0.08
    opex_frac: Span = 0.05
    node_w: Positive | None = None
    hosting_per_kw_month: Span = 0.0


class Spot(Settings, frozen=True, kw_only=True):
    """How often a spot machine is taken away; what a restart costs is the run's own measured start time, or
    ``restart_s`` where there is none."""

    preemptions_per_hour: Span = 0.05
    restart_s: Positive | None = None


class Terms(Settings, frozen=True, kw_only=True):
    """Everything a cost depends on that no run can measure.

    ``price``: USD per hour or a sheet, as for ``--price``; None: what the run was made with, else the
    catalog's.  ``utilization``: share of the paid time in which the engine works at the measured load, or
    24 hourly weights of the day's load in its place.  ``tariff`` is per kWh in ``currency``; ``pue`` None:
    the run's own.  ``blend`` is input : output (: cached input).  ``rates``: USD for one unit of another
    currency.
    """

    basis: Basis = "rented"
    price: str | None = None
    utilization: Share = 1.0
    load_profile: tuple[Span, ...] = ()
    pue: Annotated[float, Meta(ge=1)] | None = None
    tariff_usd_per_kwh: Positive = 0.10
    grid: str | None = None
    blend: tuple[Span, ...] = (3.0, 1.0)
    redundant_replicas: Annotated[int, Meta(ge=0)] = 0
    rates: dict[str, Positive] = field(default_factory=dict)
    owned: Owned = field(default_factory=Owned)
    spot: Spot = field(default_factory=Spot)
