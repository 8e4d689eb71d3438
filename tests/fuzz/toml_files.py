"""Every TOML file a user writes, and the CSV ones that may stand for them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct, inspect

from profiler import prices, scenario
from profiler.catalog import boards, token_prices
from profiler.claims import reading as claim_files
from profiler.claims.nouns import Claim
from profiler.cost import terms, utilization
from profiler.cost.terms import Terms
from profiler.errors import InputError
from profiler.settings import Scenario
from profiler.sweep import grid
from profiler.sweep.nouns import File
from profiler.toml_tables import fields_of
from tests.fuzz.nouns import ROOT, Target, fresh

MOST_LINE = 4000
BREAKS = (b"\\", b'"""', b"'''")  # how a text gets a line end


def keys(schema: type[Struct]) -> tuple[str, ...]:
    """The names of every key below a schema, and the words that are allowed as values."""
    found: dict[str, None] = {}

    def see(node: inspect.Type) -> None:
        if isinstance(node, inspect.UnionType):
            for each in node.types:
                see(each)
        elif isinstance(node, inspect.VarTupleType):
            see(node.item_type)
        elif isinstance(node, inspect.LiteralType):
            found.update(dict.fromkeys(str(value) for value in node.values))
        elif struct := fields_of(node):
            for each in struct.fields:
                found[each.name] = None
                see(each.type)

    see(inspect.type_info(schema))
    return tuple(found)


def refusing(read: Callable[[bytes], None], data: bytes) -> None:
    """``read``, which may refuse its input in a line that names the file."""
    try:
        read(data)
    except InputError as error:
        said = str(error)
        assert said, "refused without a word"
        if not any(mark in data for mark in BREAKS):  # a text of the user's may hold line ends of its own
            assert "\n" not in said, f"more than a line: {said!r:.400}"
        assert len(said) < MOST_LINE, f"a line of {len(said)}: {said:.200}"


def _scenario(data: bytes) -> None:
    what = scenario.load(str(fresh("s.toml", data)))
    points = scenario.points(what)
    assert len(points) > 0 or what.search is not None, "nothing to measure"
    assert len(scenario.digest(what)) == 64


def _sweep(data: bytes) -> None:
    path = fresh("w.toml", data)
    file = grid.read(path)
    if math.prod(len(values) if isinstance(values, list) else 1 for values in file.axes.values()) > 200:
        return  # many cells take long by right
    found = grid.grid(file, str(path))
    assert found.cells
    assert len({cell.id for cell in found.cells}) == len(found.cells), "two cells of one name"


def _claim(data: bytes) -> None:
    claim = claim_files.read(fresh("c.toml", data))
    assert claim.id == "c"


def _gpu_sheet(data: bytes) -> None:
    for spec in boards.own(fresh("g.toml", data)):
        assert spec.memory_bytes > 0
        assert all(rate is None or 0 < rate < math.inf for rate in (spec.mem_bw_gbs, spec.dense_bf16_tflops))


def _prices(name: str, data: bytes) -> None:
    path = str(fresh(name, data))
    for gpu in ("NVIDIA H100 80GB HBM3", "H20", None):
        found = prices.quote(gpu, "on_demand", path)
        if not isinstance(found, prices.Missing):
            assert 0 < found.usd_per_hour < math.inf
            prices.age_note(found)
        prices.offers(gpu, "spot", path)


def _token_prices(name: str, data: bytes) -> None:
    for offer in token_prices.api_offers("Qwen/Qwen3-32B", sheet=str(fresh(name, data))):
        assert 0 < offer.usd_per_m_output < math.inf


def _terms(data: bytes) -> None:
    found = terms.read([str(fresh("t.toml", data))])
    assert 0 < found.paid_share <= 1
    assert math.isclose(sum(found.blend), 1, abs_tol=1e-6)


def _day(data: bytes) -> None:
    share, _ = utilization.read(str(fresh("day.csv", data)), "utilization", Path())
    assert 0 < share <= 1


# -------------------------------------------------------------------------------------------- seeds


def _files(*patterns: str) -> Iterator[bytes]:
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            yield path.read_bytes()


SWEEP = b"""about = "x"
starts = 2
interleave = "model"
[axes]
model = ["tiny-moe", "tiny-dense"]
"load.concurrency" = [1, 8]
workload.input_tokens = [16, {mean = 64, spread = 0.5}]
engine.dtype = ["bfloat16", "float16"]
[set]
engine.kind = "simulated"
engine.args = { itl_s = 0.005 }
workload.output_tokens = 16
measure.window_s = "1s"
[[exclude]]
model = "tiny-moe"
workload.input_tokens = 16
[[when]]
cells = { model = "tiny-moe" }
set = { engine.args = { itl_s = 0.001 } }
"""
GPU = b"""[[gpu]]
gpu = "Own 1"
source = "datasheet"
mem_gb = 96
mem_bw_gbs = 4000.0
dense_bf16_tflops = 148
tdp_w = 400
driver_name = "OWN ?1"
price_names = "Own|O1"
[[gpu]]
gpu = "H20"
kind = "cpu"
cores = 8
measured = true
source = "x"
"""
PRICES = b"""[[price]]
gpu = "H100"
vendor = "v"
kind = "on_demand"
usd_per_hour = 2.5
date = "2026-05-01"
source = "a quote"
[[price]]
gpu = "machine"
kind = "spot"
price_per_hour = "10"
currency = "CNY"
date = "until 2025-02-08"
source = "s"
[rates]
CNY = 0.14
"""
PRICE_LINES = b"""gpu,vendor,kind,usd_per_hour,date,source
H100,v,on_demand,2.5,2026-05-01,a quote
H20,"v, w",spot,1.1,undated,s
"""
TOKENS = b"""[[price]]
model = "Qwen/Qwen3-32B"
provider = "p"
kind = "list"
usd_per_m_input = 0.1
usd_per_m_output = 0.3
usd_per_m_cached_input = 0.02
date = "2026-05-01"
source = "s"
"""
TOKEN_LINES = b"""model,provider,kind,usd_per_m_input,usd_per_m_output,date,source
qwen3-32b,p,list,0.1,0.3,2026-05,s
qwen3-32b,q,batch,0.1,0.3,2025,s
"""
TERMS = b"""basis = "owned"
utilization = "60%"
pue = 1.2
tariff_usd_per_kwh = 0.1
grid = "400"
blend = "3:1"
replicas = 2
redundant_replicas = 1
price = 2.5
[rates]
EUR = 1.1
[owned]
node_price = 250000
life_years = 4
residual_frac = 0.1
[spot]
preemptions_per_hour = 0.1
restart_s = 60
"""
PROFILE = b"load_profile = [1,1,1,1,1,1,2,4,8,9,9,9,8,8,9,9,9,8,7,6,5,4,3,2]\nprice = 1.0\n"
DAY = b"hour,weight\n" + b"".join(b"%d,%d\n" % (hour, hour % 7) for hour in range(24))
SPELLED = b"""[workload]
input_tokens = {mean = 512, spread = 0.5, min = 3}
output_tokens = 64
[load]
mode = "open"
stages = [{for_s = "30s", requests_per_s = 1}, {for_s = 20, requests_per_s = 1.5, to_requests_per_s = 4}]
[measure]
window_s = "1min"
target_ci_frac = "5%"
[slo]
ttft_p99_s = "500ms"
"""
SHEET = tuple(name for name in boards.OwnRow.__struct_fields__)
PRICE_KEYS = (*("gpu", "vendor", "kind", "usd_per_hour", "price_per_hour", "currency", "date", "source"),)
TOKEN_KEYS = (
    *token_prices.COLUMNS,
    "usd_per_m_input",
    "usd_per_m_output",
    "cny_per_m_input",
    "rates",
    "price",
)
WORTH = ("on_demand", "spot", "reserved", "machine", "H100", "EUR", "usd", "rates", "price", "eur_per_hour")


def _seeds(*fixed: bytes, files: tuple[str, ...] = ()) -> Callable[[], Iterator[bytes]]:
    return lambda: iter([*fixed, *_files(*files), b"x = " + b"9" * 5000, b"x = " + b"[" * 3000, b"\xff"])


CLAIMS = ("profiler/catalog/claims/*.toml",)
TARGETS = (
    Target(
        "scenario",
        partial(refusing, _scenario),
        _seeds(SPELLED, files=("scenarios/*.toml",)),
        "toml",
        keys(Scenario),
    ),
    Target("sweep", partial(refusing, _sweep), _seeds(SWEEP), "toml", (*keys(File), *keys(Scenario))),
    Target("claim", partial(refusing, _claim), _seeds(files=CLAIMS), "toml", keys(Claim)),
    Target("gpu_sheet", partial(refusing, _gpu_sheet), _seeds(GPU), "toml", SHEET),
    Target(
        "prices", partial(refusing, partial(_prices, "p.toml")), _seeds(PRICES), "toml", (*PRICE_KEYS, *WORTH)
    ),
    Target(
        "prices_csv",
        partial(refusing, partial(_prices, "p.csv")),
        _seeds(PRICE_LINES),
        "lines",
        (*PRICE_KEYS, *WORTH),
    ),
    Target(
        "token_prices",
        partial(refusing, partial(_token_prices, "a.toml")),
        _seeds(TOKENS),
        "toml",
        TOKEN_KEYS,
    ),
    Target(
        "token_prices_csv",
        partial(refusing, partial(_token_prices, "a.csv")),
        _seeds(TOKEN_LINES),
        "lines",
        TOKEN_KEYS,
    ),
    Target("terms", partial(refusing, _terms), _seeds(TERMS, PROFILE), "toml", keys(Terms)),
    Target(
        "day", partial(refusing, _day), _seeds(DAY, b"1\n" * 24), "lines", ("hour", "weight", "23", "50%")
    ),
)
