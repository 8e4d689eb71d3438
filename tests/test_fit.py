"""Will it fit?  Needs by hand, refusals with advice, the tensor-parallel size on machines we do not have."""

from __future__ import annotations

import time

import msgspec
import pytest

from profiler import arch, catalog, fit, models, scenario
from profiler.errors import InputError
from profiler.schema import Gpu, Model
from profiler.settings import Conversation, EngineSettings, Load, Share, Workload
from profiler.weight_sizes import weight_bytes_each

GIB = 1 << 30
QWEN = "Qwen/Qwen2.5-72B"
CHAT = scenario.load("chat")
ONE = Load(concurrency=(1,))


def published(name: str, weights: str = "random") -> Model:
    entry = catalog.models()[name]
    facts = arch.model_facts(entry.config, "catalog")
    return Model(name=name, weights=weights, config=entry.config, facts=facts)


def gpus(name: str, count: int, mib: int) -> tuple[Gpu, ...]:
    return tuple(Gpu(uuid=str(i), name=name, memory_bytes=mib << 20) for i in range(count))


def h100(count: int) -> tuple[Gpu, ...]:
    return gpus("NVIDIA H100 80GB HBM3", count, 81559)


def check(
    model: Model, machine: tuple[Gpu, ...] = (), memory: int = 22 * GIB, load: Load = CHAT.load, **settings
):
    return fit.check_fit(model, EngineSettings(**settings), CHAT.workload, load, machine, memory)


def refused(*args, **kwargs) -> str:
    with pytest.raises(InputError) as caught:
        check(*args, **kwargs)
    return str(caught.value)


# ------------------------------------------------------------------------------------------- needs


def test_need_by_hand():
    """72 706 203 648 weights of 2 bytes are 135.4 GiB; 327 680 bytes of cache a token."""
    facts = published(QWEN).facts
    wanted = fit.need(facts, 2, 128 * 768, sequences=128, devices=4)
    assert wanted.weights_bytes == 145412407296
    assert wanted.weights_bytes / GIB == pytest.approx(135.4, abs=0.05)
    assert wanted.kv_bytes == 128 * 768 * 327680 == 30 * GIB
    assert wanted.overhead_bytes == 4 * 2 * GIB
    assert wanted.total_bytes == 145412407296 + 38 * GIB
    assert fit.need(facts, 2, 0).overhead_bytes == GIB


def test_a_four_byte_model_has_a_four_byte_cache():
    facts = published(QWEN).facts
    assert fit.need(facts, 4, 100).kv_bytes == 2 * fit.need(facts, 2, 100).kv_bytes


def test_windows_bound_the_cache():
    """Mistral 7B caches 131 072 bytes a token, but no more than 4096 tokens of each sequence."""
    facts = published("mistralai/Mistral-7B-v0.1").facts
    assert fit.need(facts, 2, 1000).kv_bytes == 1000 * 131072
    assert fit.need(facts, 2, 20000).kv_bytes == 4096 * 131072
    assert fit.need(facts, 2, 20000, sequences=2).kv_bytes == 2 * 4096 * 131072


def test_recurrent_layers_have_a_state_for_every_sequence():
    facts = published("Qwen/Qwen3.5-35B-A3B").facts
    assert fit.need(facts, 2, 100, sequences=3).kv_bytes == 100 * 20480 + 3 * 64389120


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("openai/gpt-oss-120b", 65.2),  # the published checkpoint's files
        ("openai/gpt-oss-20b", 13.8),
        ("deepseek-ai/DeepSeek-V3", 673),  # 688.6 with the 14.7 of its prediction layer
        (QWEN, 145.4),
    ],
)
def test_published_weights_count_at_their_real_size(name, gigabytes):
    model = published(name, "hub")
    size = weight_bytes_each(model, "bfloat16") * model.facts.total_params
    assert size / 1e9 == pytest.approx(gigabytes, rel=0.005)


def test_random_weights_count_at_the_size_they_are_drawn_in():
    for name in ("openai/gpt-oss-120b", QWEN):
        assert weight_bytes_each(published(name), "bfloat16") == 2.0
        assert weight_bytes_each(published(name), "float32") == 4.0


def test_a_quantization_config_counts_where_the_catalog_is_silent():
    model = published(QWEN, "local")
    config = {**model.config, "quantization_config": {"quant_method": "awq"}}
    model = msgspec.structs.replace(model, name="mine", config=config)
    assert 0.5 < weight_bytes_each(model, "bfloat16") < 0.7


# ------------------------------------------------------------------------------------------ refusal


def test_72b_on_a_machine_without_gpu_says_what_it_needs_and_what_to_try():
    began = time.perf_counter()
    said = refused(published(QWEN))
    assert time.perf_counter() - began < 1.0
    lines = said.splitlines()
    assert len(lines) <= 5
    assert all(len(line) < 420 for line in lines)
    assert "Qwen/Qwen2.5-72B does not fit" in lines[0]
    assert "no GPU, 22.0 GiB" in lines[0]
    assert "needs 166.4 GiB: weights 135.4 GiB" in said
    assert "KV cache 30.0 GiB for 128 requests of 768 tokens" in said
    assert "2 × H200 SXM 141GB" in said
    assert "4 × H100 SXM5 80GB" in said
    assert "1 × B300 SXM" in said
    assert "USD/h" in said
    assert "--model Qwen/Qwen2.5-1.5B or --model tiny-dense" in said


def test_gpu_sets_by_hand():
    """Weights and one request of 72B: 135.7 GiB and 2 a GPU; 90 % of 2 × 80 is 144 GiB, of 141 is 127."""
    said = refused(published(QWEN), load=ONE)
    assert "2 × H100 SXM5 80GB" in said
    assert "2 × H200 SXM 141GB" in said
    assert "1 × H200" not in said
    assert "1 × B200 SXM 180GB" in said
    assert "4 × L40S 48GB" in said
    assert "2 × L40S" not in said


def test_gpu_sets_hold_the_whole_load_and_come_cheapest_first():
    job = fit._Job(published(QWEN), published(QWEN).facts, CHAT.engine, CHAT.workload, CHAT.load)
    specs = {gpu.gpu: gpu for gpu in catalog.gpus()}
    usd = []
    for text in fit.gpu_sets(lambda size: fit._count(job, size)):
        count, name = text.split(" (")[0].split(" × ")
        usd.append(float(text.split("about ")[1].split()[0]))
        capacity = int(count) * specs[name].memory_bytes * 0.9
        assert job.full(int(count)).total_bytes <= capacity
        assert int(count) & (int(count) - 1) == 0
        assert job.full(int(count) // 2 or 1).total_bytes > capacity / 2 or count == "1"
    assert usd == sorted(usd)


def test_sets_across_machines_only_when_nothing_smaller_does():
    assert "32 × B300 SXM" in refused(published("Qwen/Qwen3.8-2.4T-A95B"))
    assert "16 ×" not in refused(published("meta-llama/Meta-Llama-3.1-405B"))


def test_splits_must_divide_the_heads():
    """Qwen2.5-0.5B has 14 heads: 2 GPUs at most, however many there are."""
    assert check(published("Qwen/Qwen2.5-0.5B"), h100(8)).tensor_parallel == 1
    assert check(published("Qwen/Qwen2.5-0.5B"), gpus("small", 8, 4300)).tensor_parallel == 2
    said = refused(published("Qwen/Qwen2.5-0.5B"), h100(8), tensor_parallel=4)
    assert "tensor_parallel = 4 does not divide" in said
    assert "14 attention heads" in said


def test_a_quantized_checkpoint_is_mentioned_when_weights_are_random():
    said = refused(published("openai/gpt-oss-120b"))
    assert "217.6 GiB (random, 2 bytes each; the published checkpoint is quantized: 60.7 GiB)" in said


@pytest.mark.parametrize(
    ("name", "machine", "instead"),
    [
        (QWEN, (), "Qwen/Qwen2.5-1.5B"),
        (QWEN, gpus("NVIDIA H200", 1, 143771), "Qwen/Qwen2.5-32B"),
        ("Qwen/Qwen3-235B-A22B", h100(1), "Qwen/Qwen3-30B-A3B"),
        ("openai/gpt-oss-120b", gpus("NVIDIA H200", 1, 143771), "openai/gpt-oss-20b"),
        ("google/gemma-2-27b", (), "tiny-dense"),
        ("deepseek-ai/DeepSeek-V3", (), "ibm-granite/granite-3.0-1b-a400m-instruct"),
        ("deepseek-ai/DeepSeek-V3", (), "tiny-moe"),
    ],
)
def test_the_nearest_model_that_fits_is_offered(name, machine, instead):
    said = refused(published(name), machine)
    assert f"--model {instead}" in said.splitlines()[-1]


def test_what_is_offered_does_fit():
    for name in (QWEN, "Qwen/Qwen3-235B-A22B", "deepseek-ai/DeepSeek-V3", "meta-llama/Meta-Llama-3.1-70B"):
        last = refused(published(name)).splitlines()[-1]
        for word in last.replace(".", " .").split("--model ")[1:]:
            offered = models.resolve(word.split(" or")[0].replace(" .", ".").strip(" ."), "random")
            assert check(offered)


def test_a_context_too_short_for_the_scenario():
    reasoning = scenario.load("reasoning")
    with pytest.raises(InputError, match=r"context of 4096 tokens.*needs 5376"):
        fit.check_fit(
            published("meta-llama/Llama-2-7b-hf"),
            EngineSettings(),
            reasoning.workload,
            reasoning.load,
            h100(1),
            0,
        )
    with pytest.raises(InputError, match=r"max_model_len = 9000 is beyond"):
        check(published("meta-llama/Llama-2-7b-hf"), h100(1), max_model_len=9000)


# ---------------------------------------------------------------------------------- what does fit


def test_tiny_models_fit_on_small_machines():
    for name in catalog.tiny_models():
        settings = check(models.resolve(name), memory=3 * GIB)
        assert settings.tensor_parallel is None
        assert settings.max_model_len == 768 + 384


def test_the_users_own_length_stays():
    assert check(models.resolve("tiny-moe"), max_model_len=4096).max_model_len == 4096


@pytest.mark.parametrize(
    ("name", "machine", "size"),
    [
        ("Qwen/Qwen2.5-7B", h100(8), 1),
        (QWEN, h100(8), 4),
        (QWEN, h100(4), 4),
        (QWEN, h100(3), 2),  # not the whole load, but the weights and one request
        (QWEN, gpus("NVIDIA H200", 8, 143771), 2),
        (QWEN, gpus("NVIDIA GeForce RTX 4090", 8, 24564), 8),
        ("Qwen/Qwen3-235B-A22B", h100(8), 8),
        ("Qwen/Qwen2.5-14B", gpus("NVIDIA A100-SXM4-40GB", 8, 40960), 2),
    ],
)
def test_the_tensor_parallel_size_is_chosen(name, machine, size):
    assert check(published(name), machine).tensor_parallel == size


def test_quantized_weights_need_fewer_gpus():
    assert check(published("openai/gpt-oss-120b", "hub"), h100(8)).tensor_parallel == 1
    assert check(published("openai/gpt-oss-120b"), h100(8)).tensor_parallel == 4


def test_one_latent_cache_is_not_split():
    """MLA's latent lies whole on every GPU; grouped heads split no finer than one a GPU."""
    facts = published("deepseek-ai/DeepSeek-V2-Lite").facts
    job = fit._Job(
        published("deepseek-ai/DeepSeek-V2-Lite"), facts, EngineSettings(), CHAT.workload, CHAT.load
    )
    wanted = fit.Need(0, 60 * GIB, 0)
    assert not job.fits(wanted, 8, 60 * GIB)
    assert job.fits(wanted, 1, 70 * GIB)
    grouped = msgspec.structs.replace(job, facts=msgspec.structs.replace(facts, kv_heads=4))
    assert grouped.fits(wanted, 8, 17 * GIB)
    assert not grouped.fits(wanted, 8, 16 * GIB)


def test_the_smallest_gpu_counts():
    mixed = (*h100(1), *gpus("NVIDIA L4", 1, 23034))
    assert check(published("Qwen/Qwen2.5-7B"), mixed).tensor_parallel == 2
    assert "does not fit" in refused(published("Qwen/Qwen2.5-32B"), mixed)


def test_the_users_own_size_is_checked():
    assert check(published(QWEN), h100(8), tensor_parallel=8).tensor_parallel == 8
    assert "machine has 4 GPU" in refused(published(QWEN), h100(4), tensor_parallel=8)
    assert "does not fit" in refused(published(QWEN), h100(8), tensor_parallel=1)


def test_transformers_uses_one_gpu():
    assert check(published("Qwen/Qwen2.5-7B"), h100(8), kind="transformers").tensor_parallel == 1
    assert "does not fit" in refused(published(QWEN), h100(8), kind="transformers")


def test_the_memory_share_given_to_the_engine_counts():
    machine = gpus("NVIDIA L4", 1, 23034)
    assert check(published("Qwen/Qwen2.5-7B"), machine, load=ONE)
    assert refused(published("Qwen/Qwen2.5-7B"), machine, load=ONE, args={"gpu_memory_utilization": 0.5})


def test_what_cannot_be_known_passes():
    settings = EngineSettings()
    for model in (models.remote("my-own"), Model(name="x", weights="hub"), models.remote(QWEN)):
        assert fit.check_fit(model, settings, CHAT.workload, CHAT.load, (), GIB) is settings
    simulated = EngineSettings(kind="simulated")
    assert fit.check_fit(published(QWEN), simulated, CHAT.workload, CHAT.load, (), GIB) is simulated


def test_a_gpu_that_does_not_tell_its_memory_passes():
    unknown = (Gpu(uuid="x", name="?", memory_bytes=None),)
    assert check(published(QWEN), unknown).tensor_parallel == 1


def test_batches_count_all_their_requests():
    batch = Load(mode="batch", requests=256)
    assert "for 256 requests" in refused(published(QWEN), load=batch)


def note(model: Model, machine: tuple[Gpu, ...], memory: int, load: Load = CHAT.load, **settings):
    decided = check(model, machine, memory, load, **settings)
    return fit.queue_note(model, decided, CHAT.workload, load, machine, memory)


def test_less_cache_than_load_is_noted_not_refused():
    """2 × 79.6 GiB · 0.9 less 135.4 of weights and 4 of overhead; the caller puts the name before it."""
    said = note(published(QWEN), h100(2), 8 * GIB)
    assert said == "3.9 GiB for KV cache, 128 requests can fill 30.0 GiB: the engine will queue some"
    assert note(published(QWEN), h100(4), 8 * GIB) is None
    assert fit.queue_note(models.remote("x"), EngineSettings(), CHAT.workload, CHAT.load, (), 1) is None
    simulated = EngineSettings(kind="simulated")
    assert fit.queue_note(published(QWEN), simulated, CHAT.workload, CHAT.load, (), 1) is None


def test_on_gpus_main_memory_does_not_count_and_unused_gpus_neither():
    assert note(published(QWEN), gpus("NVIDIA H200", 8, 143771), 1) is None
    one = note(published("Qwen/Qwen2.5-32B"), h100(8), 1 << 50, kind="transformers")
    assert one is not None
    assert "GiB for KV cache, 128 requests" in one
    unknown = (Gpu(uuid="x", name="?", memory_bytes=None),)
    assert note(published(QWEN), unknown, 1) is None


def test_without_gpus_main_memory_counts():
    small = published("Qwen/Qwen2.5-1.5B")
    assert note(small, (), 5 * GIB, kind="transformers") is not None
    assert note(small, (), 22 * GIB, kind="transformers") is None


def test_the_least_a_model_runs_in():
    least = fit.least_bytes(published(QWEN), EngineSettings(), CHAT.workload, CHAT.load)
    assert least == 145412407296 + (768 + 384) * 327680 + GIB
    assert fit.least_bytes(models.remote("x"), EngineSettings(), CHAT.workload, CHAT.load) is None


def test_available_memory_is_what_the_machine_has():
    import psutil

    assert GIB // 4 < fit.available_memory_bytes() <= psutil.virtual_memory().total


def test_a_cgroup_limit_is_obeyed(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("3000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(fit, "CGROUP", tmp_path)
    assert fit.available_memory_bytes() == 2000
    (tmp_path / "memory.max").write_text("max\n")
    assert fit.available_memory_bytes() > GIB // 4


def test_lengths_are_those_of_the_workload():
    work = Workload(input_tokens=1000, output_tokens=24)
    with pytest.raises(InputError, match=r"for 128 requests of 1024 tokens"):
        fit.check_fit(published(QWEN), EngineSettings(), work, CHAT.load, (), GIB)


# ------------------------------------------------------------------------------ other shapes of load


def test_a_conversation_needs_room_for_all_its_turns():
    work = Workload(input_tokens=500, output_tokens=100, conversation=Conversation(turns=6))
    settings = EngineSettings()
    fitted = fit.check_fit(models.resolve("tiny-moe"), settings, work, ONE, (), 3 * GIB)
    assert fitted.max_model_len == 3600
    long = Workload(input_tokens=500, output_tokens=100, conversation=Conversation(turns=7))
    with pytest.raises(InputError, match=r"4096 tokens.*needs 4200; shorten the last turn of a conversation"):
        fit.check_fit(published("meta-llama/Llama-2-7b-hf"), settings, long, ONE, h100(1), 0)


def test_a_trace_too_long_for_the_model_names_its_row(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,input_tokens,output_tokens\n0,10,10\n1,4000,97\n2,10,10\n")
    load = Load(mode="replay", trace=str(trace))
    with pytest.raises(InputError, match=r"needs 4097; shorten .*trace.csv, line 3"):
        fit.check_fit(published("meta-llama/Llama-2-7b-hf"), EngineSettings(), Workload(), load, h100(1), 0)


def test_an_open_loop_may_fill_the_engine_and_nobody_knows_whether_it_will():
    """The cache is for as many requests as vLLM takes at once; that it may be too small is no news."""
    load = Load(mode="open", requests_per_s=(2.0,))
    assert "for 256 requests of 768 tokens" in refused(published(QWEN), load=load)
    assert note(published(QWEN), h100(2), 8 * GIB, load) is None
    assert note(published(QWEN), h100(2), 8 * GIB) is not None


def test_a_mix_is_as_long_as_its_kinds_on_average():
    mix = (
        Share(name="a", weight=3, input_tokens=100, output_tokens=20),
        Share(name="b", weight=1, input_tokens=500, output_tokens=60),
    )
    with pytest.raises(InputError, match=r"for 128 requests of 230 tokens"):
        fit.check_fit(published(QWEN), EngineSettings(), Workload(mix=mix), CHAT.load, (), GIB)
