"""On what terms a token is paid for: what a user may say of prices, utilisation, power and the grid.

A TOML file of these tables or single ``key=value`` words (``--terms``), with the command's own options above
them.  Nothing is measured here.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta, field

from profiler import catalog
from profiler.cost import utilization
from profiler.errors import InputError, nearest
from profiler.settings import Count, Positive, Settings, Span, Whole

Basis = Literal["rented", "spot", "reserved", "owned", "electricity", "api"]
BASES: tuple[str, ...] = get_args(Basis)
Share = Annotated[float, Meta(gt=0, le=1)]
Part = Annotated[float, Meta(ge=0, lt=1)]
DEFAULT = "default"
MOST = 1e18  # of anything: beyond it sums lose their parts, and beyond 1e308 everything


class Owned(Settings, frozen=True, kw_only=True):
    """A node that is bought: what it costs, how long it serves, and what it costs while it does.

    ``node_price`` (USD) None: the catalog's for the GPU.  ``node_w`` is what the whole node draws at work, W;
    None: what the run measured, else the boards' TDP.  ``interest_frac`` and ``opex_frac`` are a year's, the
    latter of ``node_price``.  ``hosting_per_kw_month`` (USD): rack, cooling, network, per kW of the node.
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
    """How often a spot machine is taken away, and how long a restart takes; ``restart_s`` None: the start
    that the run measured, which does not hold finding another machine or fetching the weights to it."""

    preemptions_per_hour: Span = 0.05
    restart_s: Positive | None = None


class Terms(Settings, frozen=True, kw_only=True):
    """Everything a cost depends on that no run can measure.

    ``price``: USD per hour or a sheet, as for ``--price``; None: what the run was made with, else the
    catalog's.  ``api_prices``: a sheet of token prices, over the catalog's.  ``utilization``: share of the
    paid time in which the engine works at the measured load; where 24 hourly weights of the day's load are
    given instead (``load_profile``), it is mean over peak.
    ``pue`` None: the run's own.  ``grid``: a name of the catalog's or gCO2e per kWh.  ``blend``: shares of
    input, output (and cached input) tokens, which sum to 1.  ``replicas`` carry the load,
    ``redundant_replicas`` stand by.  ``rates``: USD for one unit of another currency.
    ``said``: whose word a field is, by dotted name; what nobody gave is absent.
    """

    basis: Basis = "rented"
    price: str | None = None
    api_prices: str | None = None
    utilization: Share = 1.0
    load_profile: tuple[Span, ...] = ()
    pue: Annotated[float, Meta(ge=1)] | None = None
    tariff_usd_per_kwh: Positive = 0.10
    grid: str | None = None
    blend: tuple[Span, ...] = (0.75, 0.25)
    replicas: Count = 1
    redundant_replicas: Whole = 0
    rates: dict[str, Positive] = field(default_factory=dict)
    owned: Owned = field(default_factory=Owned)
    spot: Spot = field(default_factory=Spot)
    said: dict[str, str] = field(default_factory=dict)

    def whose(self, name: str) -> str:
        """``default``, or where the user said it (``--pue``, ``terms.toml``)."""
        return self.said.get(name, DEFAULT)

    @property
    def paid_share(self) -> float:
        """Share of the paid engine time that works at the measured load: the utilisation, thinned by the
        replicas that stand by."""
        return self.utilization * self.replicas / (self.replicas + self.redundant_replicas)


_KEYS: dict[str, tuple[str, ...]] = {
    "": tuple(name for name in Terms.__struct_fields__ if name != "said"),
    "owned.": Owned.__struct_fields__,
    "spot.": Spot.__struct_fields__,
}
_TABLES = (*_KEYS, "rates.")
_TEXTS = ("basis", "price", "api_prices", "grid", "blend", "utilization")

# ------------------------------------------------------------------------------------------ reading


def read(given: Sequence[str] = (), **options: Any) -> Terms:
    """The terms in words: ``given`` are TOML files and ``key=value`` (``owned.life_years=5``), later ones
    over earlier ones; ``options`` are fields by name, as the command's own options have them (None: not
    given), and stand above all.  Raises InputError.
    """
    tree: dict[str, Any] = {}
    said: dict[str, str] = {}
    for word in given:
        source, base, layer = _layer(word)
        _lay(tree, said, _normal(layer, source, base), source)
    for name, value in options.items():
        if value is not None:
            layer = {name: str(value) if name in _TEXTS else _value(str(value))}
            _lay(tree, said, _normal(layer, f"--{name}", Path()), f"--{name}")
    try:
        return msgspec.convert({**tree, "said": said}, Terms)
    except msgspec.ValidationError as error:
        raise InputError(_explain(str(error), tree, said)) from None


def _layer(word: str) -> tuple[str, Path, dict[str, Any]]:
    """What one ``--terms`` word says: its name in messages, where its relative paths begin, its tables."""
    key, equals, text = (part.strip() for part in word.partition("="))
    if equals and not os.path.isfile(word):
        if not all(key.split(".")):
            raise InputError(f"--terms {word}: expected key=value, such as owned.life_years=5")
        layer: dict[str, Any] = {}
        *above, last = key.split(".")
        table = layer
        for name in above:
            table = table.setdefault(name, {})
        table[last] = text.strip("\"'") if key in _TEXTS else _value(text)
        return "--terms", Path(), layer
    path = Path(os.path.expanduser(word))
    try:
        return path.name, path.parent, tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError(f"--terms {word}: neither key=value nor a TOML file that exists") from None
    except OSError as error:
        raise InputError(f"--terms {word}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a name that no file has
        raise InputError(f"--terms {word}: not valid TOML: {error}") from None


def _value(text: str) -> Any:
    """A TOML value, else the text itself."""
    try:
        parsed = tomllib.loads(f"x = {text}")
    except (ValueError, RecursionError):  # no TOML; a number too long, lists too deep
        return text
    return parsed["x"] if set(parsed) == {"x"} else text


def _lay(
    tree: dict[str, Any], said: dict[str, str], layer: dict[str, Any], source: str, at: str = ""
) -> None:
    """Put a layer over ``tree``; a table is laid over key by key."""
    for key, value in layer.items():
        name = f"{at}{key}"
        known = _KEYS.get(at)
        if known is not None and key not in known:
            raise InputError(f"{source}: unknown key {name}{_hint(name)}")
        if at == "rates." and key not in catalog.CURRENCIES:
            raise InputError(f"{source}: {name}: unknown currency{nearest(key, catalog.CURRENCIES)}")
        if at == "rates." and not (isinstance(value, int | float) and 0 < value < math.inf):
            raise InputError(f"{source}: {name}: expected USD for one {key}, a number > 0, got {value!r}")
        if f"{name}." in _TABLES:
            if not isinstance(value, dict):
                raise InputError(f"{source}: {name}: expected a table, got {value!r}")
            _lay(tree.setdefault(key, {}), said, value, source, f"{name}.")
        else:
            if isinstance(value, int | float) and not abs(value) < MOST:
                raise InputError(
                    f"{_where(source, name)}: expected a finite number below {MOST:g}, got {value}"
                )
            tree[key] = value
            said[name] = source


def _hint(name: str) -> str:
    """The nearest key; for one that lacks its table (``life_years``) the whole name."""
    every = [f"{at}{key}" for at, keys in _KEYS.items() for key in keys]
    tails = [full for full in every if full.rpartition(".")[2] == name.rpartition(".")[2]]
    return f" (did you mean {tails[0]!r}?)" if tails else nearest(name, every)


def _normal(layer: dict[str, Any], source: str, base: Path) -> dict[str, Any]:
    """What a user may write in several ways, in the one way of ``Terms``."""
    found = dict(layer)
    if "utilization" in layer and "load_profile" in layer:
        raise InputError(f"{source}: utilization and load_profile: give one of them")
    for key in layer.keys() & _SPELLINGS.keys():
        found |= _SPELLINGS[key](layer[key], _where(source, key), base)
    return found


def _where(source: str, key: str) -> str:
    """How a message begins: an option is its own name."""
    return source if source == f"--{key}" else f"{source}: {key}"


def _utilization(given: Any, where: str, base: Path) -> dict[str, Any]:
    share, weights = utilization.read(given, where, base)
    return {"utilization": share, "load_profile": weights}


def _load_profile(given: Any, where: str, base: Path) -> dict[str, Any]:
    if isinstance(given, str):
        return _utilization(given, where, base)
    return {"utilization": utilization.of_profile(given if isinstance(given, list) else [], where)}


def _blend(given: Any, where: str, _base: Path) -> dict[str, Any]:
    """``3:1`` is a ratio, ``0.75/0.25`` or a list are shares; input : output (: cached input)."""
    text = str(given)
    try:
        parts = [float(part) for part in re.split("[:/,]", text.strip("[ ]"))]
    except ValueError:
        parts = []
    if not 2 <= len(parts) <= 3 or not all(part >= 0 for part in parts) or not 0 < sum(parts) < math.inf:
        raise InputError(
            f"{where} {text}: expected input:output or input:output:cached, such as 3:1 or 0.75/0.25"
        )
    if ":" in text:
        return {"blend": [part / sum(parts) for part in parts]}
    if abs(sum(parts) - 1) > 1e-6:
        raise InputError(f"{where} {text}: shares sum to {sum(parts):g}, not to 1; a ratio is written 3:1")
    return {"blend": parts}


def _price(given: Any, where: str, base: Path) -> dict[str, Any]:
    """A number or the path of a sheet, which is read when it is known for which GPU."""
    try:
        usd = float(str(given))
    except ValueError:
        path = base / Path(os.path.expanduser(str(given)))
        if os.path.isfile(path):
            return {"price": str(path)}
        raise InputError(
            f"{where} {given}: neither a number (USD per hour) nor a price sheet that exists"
        ) from None
    if not 0 < usd < math.inf:
        raise InputError(f"{where} {given}: a price is a positive number of USD per hour")
    return {"price": str(given)}


def _api_prices(given: Any, where: str, base: Path) -> dict[str, Any]:
    path = base / Path(os.path.expanduser(str(given)))
    if not os.path.isfile(path):
        raise InputError(f"{where} {given}: no such sheet of token prices")
    return {"api_prices": str(path)}


def _grid(given: Any, where: str, _base: Path) -> dict[str, Any]:
    """gCO2e per kWh, or a name that the catalog knows."""
    try:
        g_per_kwh = float(str(given))
    except ValueError:
        catalog.grid(str(given))
    else:
        if not 0 <= g_per_kwh < math.inf:
            raise InputError(f"{where} {given}: expected gCO2e per kWh, a number ≥ 0, or a grid's name")
    return {"grid": str(given)}


_SPELLINGS: dict[str, Callable[[Any, str, Path], dict[str, Any]]] = {
    "utilization": _utilization,
    "load_profile": _load_profile,
    "blend": _blend,
    "price": _price,
    "api_prices": _api_prices,
    "grid": _grid,
}


def _explain(message: str, tree: dict[str, Any], said: dict[str, str]) -> str:
    """msgspec's words for a wrong value in the user's: where, which key, what was expected and found."""
    what, _, at = message.partition(" - at `$.")
    key = re.sub(r"`$|\[.*", "", at)
    found: Any = tree
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else found
    expected = what.partition(", got")[0].replace(" | null", "").replace("`", "")
    expected = expected.replace("float", "a number").replace("int", "a whole number").replace("str", "text")
    if key == "basis":
        return f"{_where(said[key], key)} {found}: no such basis{nearest(str(found), BASES)}"
    where = _where(said.get(key, "--terms"), key)
    return f"{where}: {expected[:1].lower()}{expected[1:]}, got {found!r}"
