"""The words of a plan: what they mean, and one line for each that means nothing."""

from __future__ import annotations

import json

import pytest

from profiler import models
from profiler.errors import InputError
from profiler.plan.question import Request, resolve
from tests.plan.ask import DENSE_14B, MOE, question


def test_names_loads_and_lengths_are_those_of_the_scenario():
    found = question()
    assert [each.name for each in found.candidates] == [MOE, DENSE_14B]
    assert [gpu.gpu for gpu in found.gpus] == ["H100 SXM5 80GB"]
    assert [point.concurrency for point in found.points] == [1, 8, 32, 128]
    assert (found.lengths.mean_input, found.lengths.mean_output, found.tokens_each) == (512, 256, 768)
    assert found.most_requests == 128


def test_set_reaches_loads_and_lengths():
    found = question(overrides=["load.concurrency=4,64", "workload.input_tokens=2000"])
    assert [point.concurrency for point in found.points] == [4, 64]
    assert found.lengths.mean_input == 2000


def test_an_ambiguous_gpu_is_said():
    assert any("H100 PCIe" in note for note in question().notes)
    assert not any("--gpu" in note for note in question(gpu="H100 SXM").notes)


def test_limits_by_quantile_and_without():
    found = question(slo={"ttft_p99_s": "500ms", "tpot_p50_s": "50ms"})
    assert {(limit.words, limit.limit_s) for limit in found.limits} == {("TTFT p99", 0.5), ("TPOT p50", 0.05)}


def test_weights_are_as_published_unless_told(monkeypatch):
    monkeypatch.setattr(models, "_reaches", lambda *_: pytest.fail("the network was asked"))
    published = question("deepseek-ai/DeepSeek-V3", gpu="H200").candidates[0].widths
    assert (round(published.routed, 2), published.compute) == (1.0, "fp8")
    assert (
        question("deepseek-ai/DeepSeek-V3", gpu="H200", weights="random").candidates[0].widths.routed == 2.0
    )
    eight = question(MOE, weights="fp8").candidates[0].widths
    assert (eight.routed, eight.other, eight.embedding, eight.compute) == (1.0, 1.0, 2.0, "fp8")
    four = question(MOE, weights="int4").candidates[0].widths
    assert (four.routed, four.compute) == (0.56, "bf16"), "weights alone are small; products are in 16 bits"


def test_the_cache_may_be_in_eight_bits():
    assert question(overrides=["engine.args.kv_cache_dtype=fp8"]).candidates[0].widths.cache == 1


@pytest.mark.parametrize(
    ("routing", "cv"), [("auto", None), ("model", None), ("uniform", 0.0), ("skew=1.1", 1.1)]
)
def test_skew_is_known_where_the_scenario_fixes_it(routing, cv):
    assert question(overrides=[f"engine.routing='{routing}'"]).cv == cv


def test_what_is_not_predicted_is_said():
    for scenario, word in [
        ("conversation", "prefix cache"),
        ("shared-prefix", "prefix cache"),
        ("mix", "mean lengths"),
        ("open", "bursts"),
    ]:
        assert any(word in note for note in question(scenario=scenario).notes), scenario


def test_answers_of_one_token_have_no_time_between_them():
    assert question(scenario="prefill").metric == "cost"
    assert question(scenario="prefill", metric="energy").metric == "energy"


def test_a_sheet_of_ones_own_names_gpus(tmp_path):
    path = tmp_path / "two.toml"
    row = "[[gpu]]\ngpu = '{}'\nsource = 'mine'\nmem_gb = {}\nmem_bw_gbs = 3000\ndense_bf16_tflops = 900\n"
    path.write_text(row.format("H100 SXM5 80GB", 79.6) + row.format("Prototype", 64))
    found = question(gpu=str(path)).gpus
    assert [(gpu.gpu, gpu.mem_gb, gpu.tdp_w) for gpu in found] == [
        ("H100 SXM5 80GB", 79.6, 700),
        ("Prototype", 64, None),
    ]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"models": []}, "which model"),
        ({"gpus": []}, "which GPU"),
        ({"models": [MOE, MOE]}, "given twice"),
        ({"models": ["Qwen/Qwen3-14C"]}, "nearest: Qwen/Qwen3-14B"),
        ({"gpus": ["H1000"]}, "unknown GPU 'H1000' (nearest: H100"),
        ({"gpus": ["2xH100"]}, "--gpu H100 --gpus 2"),
        ({"gpus": ["H100 x 8"]}, "--gpu H100 --gpus 8"),
        ({"gpus": ["RTX 6000 Ada"]}, "no source for its mem_bw_gbs"),
        ({"gpus": ["none.toml"]}, "none.toml: cannot be read"),
        ({"counts": "0"}, "--gpus 0"),
        ({"counts": "1,x"}, "--gpus 1,x"),
        ({"counts": "65"}, "from 1 to 64"),
        ({"weights": "fp7"}, "did you mean 'fp8'"),
        ({"metric": "sped"}, "did you mean 'speed'"),
        ({"scenario": "chatt"}, "did you mean 'chat'"),
        ({"overrides": ["measure.repeats=3"]}, "--set measure.repeats: has no effect on a plan"),
        ({"overrides": ["engine.kind=vllm"]}, "--set engine.kind: has no effect"),
        ({"overrides": ["load.concurency=3"]}, "did you mean 'concurrency'"),
        ({"overrides": ["workload.input_tokens=200000"]}, "has a context of 40960 tokens"),
        ({"overrides": ["search.find=knee"]}, "no effect"),
        ({"overrides": ["engine.args.data_parallel_size=2"]}, "replicas are independent"),
        ({"overrides": ["engine.args.max_num_seqs=many"]}, "max_num_seqs = 'many': expected a number"),
        ({"overrides": ["engine.args.max_num_seqs=true"]}, "max_num_seqs = True: expected a number"),
        ({"overrides": ["engine.args.enforce_eager=1"]}, "enforce_eager = 1: expected true or false"),
        ({"overrides": ["engine.args.gpu_memory_utilization=90"]}, "at most 1"),
        ({"slo": {"tppt_p50_s": "5ms"}}, "did you mean 'tpot_p50_s'"),
        ({"slo": {"tpot_p50_s": "fast"}}, "expected a time"),
    ],
)
def test_what_cannot_be_planned_is_one_line(monkeypatch, asked, said):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    words = {"models": [MOE], "gpus": ["H100"]} | asked
    with pytest.raises(InputError) as caught:
        resolve(Request(**words))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_that_lacks_a_key_names_it(tmp_path):
    config = {"model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="num_attention_heads"):
        question(str(tmp_path))
