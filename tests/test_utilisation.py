"""Utilisation of runs whose every step is known, against bytes and operations written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from profiler import alike, catalog, comparison, experts, routing, store
from profiler.report import page, utilisation
from profiler.schema import EngineFacts, Model
from profiler.settings import EngineSettings
from tests import make
from tests.routing import recorded

GB, TERA = 1e9, 1e12
SHEET = """
[[gpu]]
gpu = "cpu"
kind = "cpu"
cores = 2
mem_gb = 8
mem_bw_gbs = 10
dense_bf16_tflops = 1
dense_fp32_tflops = 0.5
measured = true
source = "a test"
"""
MOE, DENSE = (catalog.tiny_models()[name] for name in ("tiny-moe", "tiny-dense"))
UNIFORM = EngineFacts(kind="transformers", version="5", device="cpu", routing="uniform")

# tiny-moe, of the config: 3 layers of 1024, 8 heads and 2 for keys and values of 128, 2 of 32 experts of
# 3·1024·640, vocabulary 2048, bf16.
LAYERS = 3
ATTENTION = 1024 * 1024 + 2 * 1024 * 256 + 1024 * 1024 + 2 * 128
PRODUCTS = ATTENTION - 2 * 128  # norms of queries and keys are no matrices
NORMS = 2 * 1024
ROUTER = 1024 * 32
EXPERT = 3 * 1024 * 640
HEAD = 2048 * 1024
CACHED = 2 * 2 * 128 * 2  # bytes a token and layer: key and value of two heads in bf16
PAIR = 4 * 8 * 128  # operations of a token against one before it, a layer


def moved(touched: float, tokens: float, read: float) -> float:
    """Bytes of a step of ``tokens`` whose sequences have ``read`` tokens in the cache, all together."""
    weights = LAYERS * (ATTENTION + NORMS + ROUTER + touched * EXPERT) + 1024 + HEAD + tokens * 1024
    return 2 * weights + LAYERS * CACHED * (read + tokens)


def worked(chosen: float, tokens: float, pairs: float, sampled: float) -> float:
    each = 2 * LAYERS * (PRODUCTS + ROUTER + chosen * EXPERT)
    return each * tokens + 2 * HEAD * sampled + LAYERS * PAIR * pairs


def uniform(tokens: float) -> float:
    return 32 * (1 - (30 / 32) ** tokens)


@pytest.fixture
def sheet(tmp_path, monkeypatch):
    path = tmp_path / "sheet.toml"
    path.write_text(SHEET)
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(path))


def model(config):
    return Model(name="m", weights="random", config=config, facts=make.FACTS)


def run(out, config=MOE, engine=UNIFORM, **changes):
    """One slot alone: prompts of 10 tokens, answers of 5, 25 tokens/s."""
    given = {"model": model(config), "engine": engine, "run_id": "run"} | changes
    make.writer(out, [make.steady(0, 10.0)], **given).seal()
    return store.load(out / given["run_id"])


def row(*args, **changes):
    return comparison.rows([run(*args, **changes)])[0]


# A request of that slot: a step of its prompt, and four of one token behind 11, 12, 13, 14 cached ones (the
# step itself caches the token it works on, so 10 + n are read for the n-th).
def request_bytes(at_decode: float, at_prompt: float) -> float:
    return moved(at_prompt, 10, 0) + 4 * moved(at_decode, 1, 12.5)


def request_work(chosen: float) -> float:
    return worked(chosen, 10, 55, 1) + 4 * worked(chosen, 1, 13.5, 1)


def test_every_share_is_what_it_is_by_hand(tmp_path, sheet):
    found = row(tmp_path)
    a_second = 5  # requests
    assert found["output_tokens_per_s"] == pytest.approx(25)
    assert found["s_mbu_frac"] == pytest.approx(a_second * request_bytes(2, uniform(10)) / (10 * GB))
    assert found["mbu_frac"] == pytest.approx(a_second * request_bytes(32, 32) / (10 * GB))
    assert found["s_mfu_frac"] == pytest.approx(a_second * request_work(2) / TERA)
    assert found["mfu_frac"] == pytest.approx(a_second * request_work(32) / TERA)
    assert found["coverage_frac"] == pytest.approx(2 / 32)
    assert (found["coverage_source"], found["routing"]) == ("uniform", "uniform")
    assert found["ceiling_source"] == "measured: cpu, a test"
    assert found["ceiling_bound_by"] == "bandwidth"


def test_the_ceiling_is_what_is_left_when_nothing_but_reading_takes_time(tmp_path, sheet):
    """Activations are read too: the share of the ceiling is a little above S-MBU, and all else agrees."""
    found = row(tmp_path)
    assert found["ceiling_frac"] == pytest.approx(25 / found["ceiling_output_tokens_per_s"])
    assert found["s_mbu_frac"] < found["ceiling_frac"] < found["s_mbu_frac"] * 1.05


def test_shares_have_the_interval_of_the_rate(tmp_path, sheet):
    made = [make.steady(0, 10.0), make.steady(1, 40.0)]
    made[1] = (made[1][0], made[1][1][:45])
    make.writer(tmp_path, made, model=model(MOE), engine=UNIFORM).seal()
    found = comparison.rows([store.load(tmp_path / "run")])[0]
    for name in ("mbu_frac", "s_mbu_frac", "mfu_frac", "s_mfu_frac", "ceiling_frac"):
        for end in ("_low", "_high"):
            wide = found[f"output_tokens_per_s{end}"] / found["output_tokens_per_s"]
            assert found[name + end] / found[name] == pytest.approx(wide)


def test_eight_in_step_read_the_weights_once(tmp_path, sheet):
    """Eight slots in lockstep: an eighth of the steps a token, and more experts a step."""
    window, _ = make.steady(0, 10.0)
    together = [make.request(0, 8 * n + slot, 10 + n * 0.2) for n in range(50) for slot in range(8)]
    make.writer(tmp_path, [(window, together)], model=model(MOE), engine=UNIFORM).seal()
    found = comparison.rows([store.load(tmp_path / "run")])[0]
    prompts, decoding = moved(uniform(80), 80, 0), moved(uniform(8), 8, 8 * 12.5)
    assert found["output_tokens_per_s"] == pytest.approx(200)
    assert found["s_mbu_frac"] == pytest.approx(5 * (prompts + 4 * decoding) / (10 * GB))
    assert found["coverage_frac"] == pytest.approx(uniform(8) / 32)


def test_a_prompt_beside_a_decoding_sequence_shares_its_step(tmp_path, sheet):
    """The first token of one slot comes with the third of the other."""
    window, first = make.steady(0, 10.0)
    second = [make.request(0, 50 + n, 9.96 + n * 0.2) for n in range(1, 50)]
    make.writer(tmp_path, [(window, first + second)], model=model(DENSE), engine=UNIFORM).seal()
    found = comparison.rows([store.load(tmp_path / "run")])[0]
    alone = comparison.rows([run(tmp_path, DENSE, run_id="alone")])[0]
    # A request alone is five passes over the weights.  Of two, two are the second's own before the first
    # begins, three are shared (one of them the first's prompt), two are the first's own.
    reads = found["mbu_frac"] / alone["mbu_frac"]
    assert reads == pytest.approx(7 / 5, rel=0.02)


def test_a_dense_model_has_nothing_sparse_about_it(tmp_path, sheet):
    found = row(tmp_path, DENSE, replace(UNIFORM, routing=None))
    assert found["s_mbu_frac"] == found["mbu_frac"] > 0
    assert found["s_mfu_frac"] == found["mfu_frac"] > 0
    assert (found["coverage_frac"], found["coverage_source"], found["routing"]) == (None, None, None)


def test_arithmetic_in_fp32_is_held_against_its_own_rate(tmp_path, sheet):
    half, whole = (
        row(tmp_path, settings=EngineSettings(kind="transformers", dtype=dtype), run_id=dtype)
        for dtype in ("bfloat16", "float32")
    )
    assert whole["s_mfu_frac"] == pytest.approx(2 * half["s_mfu_frac"])
    assert whole["s_mbu_frac"] == pytest.approx(2 * half["s_mbu_frac"])


# ------------------------------------------------------------------------------- which experts


def test_a_skew_that_was_made_touches_fewer(tmp_path, sheet):
    found = row(tmp_path, engine=replace(UNIFORM, routing="skew=1.5"))
    prompt = experts.distinct_skewed(32, 2, 10, 1.5)
    assert found["s_mbu_frac"] == pytest.approx(5 * request_bytes(2, prompt) / (10 * GB))
    assert found["coverage_source"] == "skew"


def test_what_a_router_did_that_nobody_watched_is_an_upper_bound_and_says_so(tmp_path, sheet):
    found = row(tmp_path, engine=replace(UNIFORM, routing="model"))
    assert found["coverage_source"] == "uniform"
    assert "an upper bound" in found["notes"]
    assert "upper bound" not in (row(tmp_path, run_id="made")["notes"] or "")


@pytest.fixture
def watched(tmp_path):
    """All tokens go to experts 0 and 1 of 32, three layers."""
    chosen = np.tile(np.array([0, 1]), (40, 12, 3, 1))

    def made(routing):
        facts = {"model": model(MOE), "engine": replace(UNIFORM, routing=routing), "run_id": routing}
        return recorded.run(tmp_path, chosen, 32, prompt=6, windows=[make.steady(0, 10.0)], **facts)

    return made


def test_measured_coverage_wins_over_any_form(watched, sheet):
    found = comparison.rows([watched("model")])[0]
    assert found["coverage_source"] == "measured"
    assert found["coverage_frac"] == pytest.approx(2 / 32)
    assert found["coverage_frac_low"] <= 2 / 32 <= found["coverage_frac_high"]
    assert found["s_mbu_frac"] == pytest.approx(5 * request_bytes(2, 2) / (10 * GB), rel=0.02)


def test_a_prompt_alone_touches_what_prompts_do_and_not_what_as_many_sequences_do(tmp_path, sheet):
    """All tokens of a request go to the same two experts, each request to others."""
    pairs = np.array([[2 * (n % 16), 2 * (n % 16) + 1] for n in range(32)])
    chosen = np.broadcast_to(pairs[:, None, None, :], (32, 20, 3, 2))
    facts = {"model": model(MOE), "engine": replace(UNIFORM, routing="model")}
    found = recorded.run(tmp_path, chosen, 32, prompt=16, windows=[make.steady(0, 10.0)], **facts)
    (seen,) = comparison.rows([found])
    assert routing.report(found).decode_coverage(10).value > 14
    assert seen["s_mbu_frac"] == pytest.approx(5 * request_bytes(2, 2) / (10 * GB))


def test_a_routing_recorded_otherwise_is_not_the_loads(watched, sheet):
    """The recording says ``model``; the load ran with a made one."""
    assert comparison.rows([watched("uniform")])[0]["coverage_source"] == "uniform"


# ---------------------------------------------------------------------------------- what is not known


def test_without_ceilings_nothing_is_zero_and_one_line_says_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.delenv(catalog.SHEET_VARIABLE, raising=False)
    made = run(tmp_path)
    rows = comparison.rows([made])
    for name in ("mbu_frac", "s_mbu_frac", "ceiling_frac", "ceiling_output_tokens_per_s", "ceiling_source"):
        assert rows[0][name] is None
    assert rows[0]["coverage_frac"] == pytest.approx(2 / 32), "that takes no machine"
    assert not utilisation.known(rows)
    text = page.markdown(rows, [made])
    assert text.count("profile doctor --measure") == 1
    assert "S-MBU" not in text


def test_a_row_of_a_machine_with_more_cores_is_not_this_ones(tmp_path, sheet):
    host = replace(make.HOST, cores=4)
    assert row(tmp_path, host=host)["mbu_frac"] is None


@pytest.mark.parametrize("name", ["speculative-config", "data_parallel_size", "pipeline_parallel_size"])
def test_where_a_token_is_no_step_nothing_is_claimed(tmp_path, sheet, name):
    found = row(tmp_path, settings=EngineSettings(kind="vllm", args={name: 2}))
    assert found["s_mbu_frac"] is None
    assert name.replace("-", "_") in found["notes"]


def test_an_endpoint_of_unknown_inside_says_nothing(tmp_path, sheet):
    remote = EngineFacts(kind="endpoint", version=None, device="remote")
    found = row(tmp_path, model=Model(name="m", weights="remote"), engine=remote)
    assert found["mbu_frac"] is None
    assert "utilisation" not in (found["notes"] or "")


def test_more_than_the_ceiling_is_shown_and_questioned(tmp_path, sheet):
    slow = SHEET.replace("mem_bw_gbs = 10", "mem_bw_gbs = 0.5")
    (tmp_path / "sheet.toml").write_text(slow)
    catalog.boards._with_own.cache_clear()
    found = row(tmp_path)
    catalog.boards._with_own.cache_clear()
    assert found["s_mbu_frac"] > 1
    assert "above 1" in found["notes"]


# ------------------------------------------------------------------------------------------ GPUs


def on_gpus(out, count, **changes):
    cards = tuple(replace(make.GPU, uuid=f"GPU-{n}") for n in range(count))
    engine = replace(UNIFORM, kind="vllm", device="cuda", gpus=tuple(card.uuid for card in cards))
    host = replace(make.HOST, gpus=cards)
    return row(out, engine=engine, host=host, run_id=f"gpus{count}{len(changes)}", **changes)


def test_a_data_sheet_is_named_and_two_gpus_have_twice_its_bandwidth(tmp_path):
    one, two = on_gpus(tmp_path, 1), on_gpus(tmp_path, 2)
    assert one["s_mbu_frac"] == pytest.approx(5 * request_bytes(2, uniform(10)) / 3350e9)
    assert one["ceiling_source"].startswith("data sheet: H100 SXM5 80GB")
    assert two["s_mbu_frac"] == pytest.approx(one["s_mbu_frac"] / 2)


def test_gpus_that_share_a_model_must_talk(tmp_path):
    large = model(catalog.models()["Qwen/Qwen3-32B"].config)
    one, two = (on_gpus(tmp_path, count, model=large) for count in (1, 2))
    assert one["ceiling_bound_by"] == two["ceiling_bound_by"] == "bandwidth"
    gain = two["ceiling_output_tokens_per_s"] / one["ceiling_output_tokens_per_s"]
    assert 1.8 < gain < 2


def test_a_small_model_waits_for_launches(tmp_path):
    """Three layers of five operations, the embedding and the head."""
    found = on_gpus(tmp_path, 1)
    assert found["ceiling_bound_by"] == "launch"
    # Five steps a request of five tokens, one of them with ten tokens; in the other four the reading of no
    # operation takes longer than its launch.
    launches_s = (3 * 5 + 2) * 3e-6
    assert 3 * 3e-6 < uniform(10) * 3 * 2 * EXPERT / 3350e9 < 12 * launches_s
    reading_s = uniform(10) * 3 * 2 * EXPERT / 3350e9
    by_hand = (5 * launches_s - 3 * 3e-6 + reading_s) / 5
    assert 1 / found["ceiling_output_tokens_per_s"] == pytest.approx(by_hand, rel=0.01)


def test_a_measured_ceiling_wins_over_the_data_sheet(tmp_path, monkeypatch):
    path = tmp_path / "own.toml"
    given = {"gpu": "NVIDIA H100 80GB HBM3", "mem_bw_gbs": 3000, "measured": True, "source": "here"}
    lines = (f"{k} = {str(v).lower() if v is True else repr(v)}\n" for k, v in given.items())
    path.write_text("[[gpu]]\n" + "".join(lines))
    sheet_row = on_gpus(tmp_path, 1)
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(path))
    found = on_gpus(tmp_path / "b", 1)
    assert found["s_mbu_frac"] == pytest.approx(sheet_row["s_mbu_frac"] * 3350 / 3000)
    assert found["s_mfu_frac"] == pytest.approx(sheet_row["s_mfu_frac"]), (
        "what was not measured is the sheet's"
    )
    assert found["ceiling_source"].startswith("measured: H100")


def test_a_cache_of_eight_bits_is_half_the_bytes(tmp_path):
    plain = on_gpus(tmp_path, 1)
    fp8 = on_gpus(tmp_path, 1, settings=EngineSettings(kind="vllm", args={"kv_cache_dtype": "fp8_e4m3"}))
    cache = 5 * LAYERS * CACHED * (10 + 4 * (12.5 + 1)) / 3350e9
    assert plain["s_mbu_frac"] - fp8["s_mbu_frac"] == pytest.approx(cache / 2)


# ------------------------------------------------------------------------------- told apart, printed


def test_runs_that_were_routed_otherwise_are_never_one(tmp_path, sheet):
    made = [run(tmp_path, engine=replace(UNIFORM, routing=how), run_id=how) for how in ("model", "uniform")]
    assert alike.same_engine(made[0], made[0])
    assert not alike.same_engine(*made)
    text = page.markdown(comparison.rows(made), made)
    assert "| routing |" in text


def test_the_table_says_what_is_reached_of_what(tmp_path, sheet):
    made = run(tmp_path)
    text = page.markdown(comparison.rows([made]), [made])
    assert "% of bandwidth" in text
    assert "6.25% (uniform)" in text
    assert "ceilings measured: cpu, a test" in text
    assert "| routing |" not in text, "one model, one routing: nothing to tell apart"
