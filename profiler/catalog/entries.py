"""What a row of the price and grid sheets says.  Money stands in the currency it was quoted in."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

# ISO 4217 codes of the currencies that GPUs, tokens and electricity are sold in.
_CODES = """AED ARS AUD BDT BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR ISK JPY KES
KRW KZT LKR MAD MMK MXN MYR NGN NOK NPR NZD PEN PHP PKR PLN QAR RON RSD SAR SEK SGD THB TRY TWD UAH USD VND
ZAR"""
CURRENCIES = frozenset(_CODES.split())


class PriceOffer(Struct, frozen=True, kw_only=True):
    """One offer or estimate of a GPU-hour; ``kind`` says on what terms (``gpu_offers.KINDS``).

    ``doubtful``: why the row is not believed (:mod:`profiler.catalog.checks`); such a row is shown and
    counts in no median.
    """

    gpu: str
    vendor: str
    kind: str
    price_per_gpu_hour: float
    date: str
    source: str
    currency: str = "USD"
    doubtful: str | None = None


class ApiOffer(Struct, frozen=True, kw_only=True):
    """What a provider asks for 10⁶ tokens of a model; ``kind``: at the list price or in batches, which may
    take hours.  None where a provider tells no price of its own for cached input."""

    model: str
    provider: str
    kind: Literal["list", "batch"]
    per_m_input: float
    per_m_output: float
    per_m_cached_input: float | None
    date: str
    source: str
    currency: str = "USD"
    doubtful: str | None = None

    @property
    def usd_per_m_input(self) -> float:
        """Of an offer in USD; ``api_offers`` gives no other."""
        return self.per_m_input

    @property
    def usd_per_m_output(self) -> float:
        return self.per_m_output

    @property
    def usd_per_m_cached_input(self) -> float | None:
        return self.per_m_cached_input


class Capex(Struct, frozen=True, kw_only=True):
    """What buying costs: ``usd`` for ``gpus`` GPUs.  ``scope`` says what is in it: the ``card`` alone (no
    server, no network), one GPU with its ``server share``, a whole ``node``, a whole ``rack``."""

    item: str
    gpu: str
    gpus: int
    scope: Literal["card", "server share", "node", "rack"]
    usd: float
    date: str
    source: str
    doubtful: str | None = None

    @property
    def usd_per_gpu(self) -> float:
        return self.usd / self.gpus


class Grid(Struct, frozen=True, kw_only=True):
    """A grid's mean emissions over a year, location-based: what the mix of the plants there emits, whatever
    a contract says.  ``scope``: ``direct`` at the plants, or over the ``life cycle`` of plants and fuels.
    """

    name: str
    aliases: str
    g_co2e_per_kwh: float
    year: int
    scope: Literal["direct", "life cycle"]
    source: str
