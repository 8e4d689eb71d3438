"""The memory account on runs of known truth: it adds up, says how it knows, and never makes up a figure."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import arch, catalog, comparison, experts, memory, store
from profiler.errors import InputError
from profiler.memory import MemoryAccount
from profiler.report import memory as report
from profiler.schema import EngineFacts, Gpu, LoadPoint, Memory, Model
from profiler.weight_sizes import unused_expert_bytes
from tests import make
from tests.routing import recorded as recording

GIB = 1 << 30
QWEN = "Qwen/Qwen3-30B-A3B"
WINDOW = make.window(0, 10, 40)
BOARD = {
    "memory_used_bytes": 74 * GIB,
    "memory_reserved_bytes": GIB // 2,
    "memory_free_bytes": 80 * GIB - 74 * GIB - GIB // 2,
}
# What a worker of vLLM counts on one 80 GiB board, and its log says.
COUNTED = Memory(
    weights_bytes=57 * GIB,
    dense_bytes=2 * GIB,
    routed_expert_bytes=54 * GIB,
    shared_expert_bytes=0,
    embedding_bytes=GIB,
    kv_bytes=12 * GIB,
    kv_tokens=131_072,
    activation_peak_bytes=2 * GIB,
    graphs_bytes=GIB,
    runtime_bytes=GIB,
    torch_reserved_bytes=73 * GIB,
)
# The same board as an old version's log has it.
LOGGED = Memory(weights_bytes=57 * GIB, kv_bytes=12 * GIB, kv_tokens=131_072)


def model(name: str = QWEN, weights: str = "hub", **changes: Any) -> Model:
    entry = catalog.models()[name]
    facts = arch.model_facts(entry.config, "catalog")
    base = Model(name="m", weights=weights, config=entry.config, facts=facts)  # type: ignore[arg-type]
    return msgspec.structs.replace(base, **changes)


def sampled(source: str, values: dict[str, float], t_s: float = 20.0) -> list[tuple[float, str, str, float]]:
    return [(t_s, source, name, value) for name, value in values.items()]


def throughout(source: str, values: dict[str, float]) -> list[tuple[float, str, str, float]]:
    """The same every two seconds: a peak is only known where the sampler never looked away for long."""
    return [each for t_s in range(10, 92, 2) for each in sampled(source, values, t_s)]


def run_of(
    tmp_path: Any,
    account: Memory,
    samples: list[tuple[float, str, str, float]],
    *,
    gpus: tuple[str, ...] = ("GPU-1",),
    windows: tuple[Any, ...] = (WINDOW,),
    **changes: Any,
) -> store.RunResult:
    device = "cuda" if gpus else "cpu"
    manifest = {
        "model": model(),
        "memory": account,
        "engine": EngineFacts(kind="vllm", version="0.32", device=device, gpus=gpus),
        "host": msgspec.structs.replace(
            make.HOST, gpus=tuple(Gpu(uuid=u, name="H100", memory_bytes=80 * GIB) for u in gpus)
        ),
    } | changes
    writer = make.writer(tmp_path, [(each, []) for each in windows], **manifest)
    writer.samples_path.write_bytes(make.sample_lines(samples))
    writer.close()
    return store.load(writer.folder)


def adds_up(found: MemoryAccount) -> bool:
    return sum(row.bytes or 0 for row in found.rows if row.part_of is None) == found.total_bytes


# ------------------------------------------------------------------------------------------- GPUs


def test_an_account_counted_by_the_workers_adds_up_to_the_board(tmp_path):
    found = memory.account(run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", BOARD)))
    assert found.total_bytes == 80 * GIB
    assert adds_up(found)
    assert [(row.name, (row.bytes or 0) / GIB) for row in found.rows if row.part_of is None] == [
        ("weights", 57),
        ("KV cache", 12),
        ("activation peak", 2),
        ("CUDA graphs", 1),
        ("torch's allocator beside these", 1),
        ("CUDA context and other", 1),
        ("other programs", 0),
        ("reserved by the driver", 0.5),
        ("free", 5.5),
        ("unexplained", 0),
    ]
    parts = {row.name: row.bytes for row in found.rows if row.part_of == "weights"}
    assert parts == {"dense part": 2 * GIB, "routed experts": 54 * GIB, "embeddings": GIB}
    assert all(row.known == "engine" for row in found.rows if row.part_of == "weights")
    assert found.kv_bytes_per_token == 12 * GIB / 131_072


def test_what_nobody_accounts_for_is_shown_and_not_spread(tmp_path):
    board = BOARD | {"memory_free_bytes": BOARD["memory_free_bytes"] - 3 * GIB}
    found = memory.account(run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", board)))
    assert found.bytes_of("unexplained") == 3 * GIB
    assert found.bytes_of("CUDA context and other") == GIB


def test_a_sum_beyond_the_board_shows_as_a_remainder_below_zero(tmp_path):
    board = BOARD | {"memory_free_bytes": BOARD["memory_free_bytes"] + 2 * GIB}
    found = memory.account(run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", board)))
    assert found.bytes_of("unexplained") == -2 * GIB
    assert adds_up(found)
    assert "twice" in (found.rows[-1].note or "")


@pytest.mark.parametrize("inside", [0, GIB // 2])
def test_drivers_that_count_their_reserve_as_used_give_the_same_account(tmp_path, inside):
    board = BOARD | {"memory_used_bytes": BOARD["memory_used_bytes"] + inside}
    found = memory.account(run_of(tmp_path, LOGGED, sampled("gpu:GPU-1", board)))
    assert found.bytes_of("CUDA context and other") == (74 - 57 - 12) * GIB
    assert found.bytes_of("unexplained") == 0


def test_a_log_alone_leaves_the_context_as_what_is_left_and_says_so(tmp_path):
    others = {"foreign_bytes": GIB, "unexplained_bytes": GIB // 4}
    found = memory.account(run_of(tmp_path, LOGGED, sampled("gpu:GPU-1", BOARD | others)))
    context = next(row for row in found.rows if row.name == "CUDA context and other")
    assert (context.bytes, context.known) == (74 * GIB - 57 * GIB - 12 * GIB - GIB - GIB // 4, "sampled")
    assert found.bytes_of("other programs") == GIB
    assert found.bytes_of("unexplained") == GIB // 4
    assert "activation peak" in (found.rows[-1].note or "")
    assert adds_up(found)


def test_the_weights_of_an_engine_that_says_nothing_are_not_taken_for_its_context(tmp_path):
    silent = model(weights="remote", config=None, facts=None)
    found = memory.account(run_of(tmp_path, Memory(), sampled("gpu:GPU-1", BOARD), model=silent))
    assert found.bytes_of("CUDA context and other") is None
    assert found.bytes_of("unexplained") == 74 * GIB
    assert "weights, KV cache" in (found.rows[-1].note or "")
    assert adds_up(found)


def test_other_programs_are_not_taken_for_the_engines_context(tmp_path):
    """A worker sees all that lies outside its allocator; the driver's list says what of it is another's."""
    taken = BOARD | {"memory_free_bytes": BOARD["memory_free_bytes"] - 4 * GIB, "foreign_bytes": 4 * GIB}
    seen = msgspec.structs.replace(COUNTED, runtime_bytes=5 * GIB)
    found = memory.account(run_of(tmp_path, seen, sampled("gpu:GPU-1", taken)))
    assert found.bytes_of("CUDA context and other") == GIB
    assert found.bytes_of("other programs") == 4 * GIB
    assert found.bytes_of("unexplained") == 0


def test_the_moment_of_the_highest_use_counts_and_only_while_load_was_held(tmp_path):
    low = BOARD | {"memory_used_bytes": 10 * GIB, "memory_free_bytes": 69 * GIB}
    after = BOARD | {"memory_used_bytes": 79 * GIB, "memory_free_bytes": 0}
    samples = [
        *sampled("gpu:GPU-1", low, 12),
        *sampled("gpu:GPU-1", BOARD, 20),
        *sampled("gpu:GPU-1", low, 30),
        *sampled("gpu:GPU-1", after, 90),
    ]
    found = memory.account(run_of(tmp_path, COUNTED, samples))
    assert found.bytes_of("free") == BOARD["memory_free_bytes"]


def test_several_boards_are_summed_and_one_that_is_missing_is_not_made_up(tmp_path):
    pair = ("GPU-1", "GPU-2")
    one, two = sampled("gpu:GPU-1", BOARD), sampled("gpu:GPU-2", BOARD)
    found = memory.account(run_of(tmp_path / "a", LOGGED, one + two, gpus=pair))
    assert (found.device, found.total_bytes) == ("2 GPUs", 160 * GIB)
    assert adds_up(found)
    found = memory.account(run_of(tmp_path / "b", LOGGED, one, gpus=pair))
    assert found.total_bytes is None
    assert found.bytes_of("unexplained") is None
    assert found.bytes_of("weights") == 57 * GIB


def test_a_board_that_keeps_its_size_secret_is_accounted_as_far_as_it_is_used(tmp_path):
    host = msgspec.structs.replace(make.HOST, gpus=(Gpu(uuid="GPU-1", name="GB10", memory_bytes=None),))
    used = {"memory_used_bytes": 74 * GIB}
    found = memory.account(run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", used), host=host))
    assert found.total_bytes == 74 * GIB
    assert found.bytes_of("free") is None
    assert adds_up(found)


# ------------------------------------------------------------------------------------------- a host's


def on_host(tmp_path: Any, account: Memory, pss: float | None = 3.0 * GIB, **changes: Any) -> MemoryAccount:
    rows = [] if pss is None else throughout("process:m", {"rss_bytes": 2 * pss, "pss_bytes": pss})
    return memory.account(run_of(tmp_path, account, rows, gpus=(), **changes))


def test_on_a_cpu_the_device_is_the_engines_processes(tmp_path):
    held = Memory(
        weights_bytes=GIB, kv_bytes=4 * GIB, kv_tokens=1 << 20, kv_resident_bytes=GIB // 2, runtime_bytes=GIB
    )
    found = on_host(tmp_path, held)
    assert found.total_bytes == 3 * GIB
    cache = next(row for row in found.rows if row.name == "KV cache")
    assert cache.bytes == GIB // 2
    assert "4,294,967,296" in (cache.note or ""), "the pool is more than what was touched of it"
    assert found.bytes_of("unexplained") == GIB // 2
    assert adds_up(found)
    assert found.kv_bytes_per_token == 4096
    assert found.bytes_of("CUDA graphs") is None
    assert [row for row in found.rows if "CUDA" in row.name] == []


def test_without_samples_there_is_no_total_and_no_remainder(tmp_path):
    found = on_host(tmp_path, Memory(weights_bytes=GIB), pss=None)
    assert found.total_bytes is None
    assert found.bytes_of("unexplained") is None
    found = on_host(tmp_path / "none", Memory(weights_bytes=GIB), windows=())
    assert (found.total_bytes, found.uses) == (None, ())


def test_an_endpoint_tells_nothing(tmp_path):
    remote = model(weights="remote")
    engine = EngineFacts(kind="endpoint", version=None, device="remote")
    found = on_host(tmp_path, Memory(), pss=None, model=remote, engine=engine)
    assert all(row.bytes is None for row in found.rows)
    assert found.uses[0].required_bytes is None


# ------------------------------------------------------------------------------------------- weights


def parts_of(found: MemoryAccount) -> dict[str, int | None]:
    return {row.name: row.bytes for row in found.rows if row.part_of == "weights"}


def test_weights_that_the_engine_sums_up_are_split_by_the_config_and_that_is_said(tmp_path):
    found = on_host(tmp_path, Memory(weights_bytes=57 * GIB))
    facts = model().facts
    assert facts is not None
    parts = parts_of(found)
    assert sum(size or 0 for size in parts.values()) == 57 * GIB
    share = facts.routed_expert_params / facts.total_params
    assert (parts["routed experts"] or 0) / (57 * GIB) == pytest.approx(share, rel=1e-6)
    (weights, dense, *_) = found.rows
    assert (weights.known, dense.known) == ("engine", "computed")
    assert "not counted" in (dense.note or "")


def test_weights_that_the_engine_keeps_to_itself_are_computed(tmp_path):
    facts = model().facts
    assert facts is not None
    found = on_host(tmp_path, Memory())
    weights = found.rows[0]
    assert (weights.bytes, weights.known) == (2 * facts.total_params, "computed")
    assert parts_of(found)["routed experts"] == 2 * facts.routed_expert_params


def test_quantized_experts_weigh_what_their_format_takes(tmp_path):
    entry = catalog.models()["openai/gpt-oss-20b"]
    quantized = msgspec.structs.replace(model(entry.id), name=entry.id)
    facts = quantized.facts
    assert facts is not None
    parts = parts_of(on_host(tmp_path, Memory(), model=quantized))
    assert parts["routed experts"] == round(facts.routed_expert_params * 4.25 / 8)
    assert parts["embeddings"] == 2 * (facts.embedding_params or 0)
    others = facts.total_params - facts.routed_expert_params - (facts.embedding_params or 0)
    assert parts["dense part"] == pytest.approx(2 * others, abs=2)


def test_a_published_vision_tower_is_in_the_dense_part(tmp_path):
    entry = next(entry for entry in catalog.models().values() if entry.computed_vision_params)
    published = msgspec.structs.replace(model(entry.id), name=entry.id)
    with_tower = parts_of(on_host(tmp_path / "a", Memory(), model=published))
    drawn = msgspec.structs.replace(published, weights="random")
    text_only = parts_of(on_host(tmp_path / "b", Memory(), model=drawn))
    tower = (with_tower["dense part"] or 0) - (text_only["dense part"] or 0)
    assert tower == pytest.approx(2 * entry.computed_vision_params, abs=2)


def test_folders_older_than_the_parts_are_split_all_the_same(tmp_path):
    facts = model().facts
    assert facts is not None
    old = msgspec.structs.replace(facts, embedding_params=None, shared_expert_params=None)
    assert parts_of(on_host(tmp_path, Memory(), model=model(facts=old))) == parts_of(
        on_host(tmp_path / "new", Memory())
    )
    bare = model(facts=old, config=None)
    found = on_host(tmp_path / "bare", Memory(weights_bytes=GIB), model=bare)
    assert (found.bytes_of("weights"), parts_of(found)) == (GIB, {})


def test_shared_experts_have_a_row_where_there_are_any(tmp_path):
    shared = model("Qwen/Qwen1.5-MoE-A2.7B", weights="random")
    facts = shared.facts
    assert facts is not None
    parts = parts_of(on_host(tmp_path, Memory(), model=shared))
    assert parts["shared experts"] == 2 * (facts.shared_expert_params or 0) > 0
    assert "shared experts" not in parts_of(on_host(tmp_path / "none", Memory()))


def test_what_lies_beside_the_parameters_is_a_row(tmp_path):
    held = msgspec.structs.replace(COUNTED, weights_bytes=58 * GIB)
    parts = parts_of(memory.account(run_of(tmp_path, held, sampled("gpu:GPU-1", BOARD))))
    assert parts["beside parameters"] == GIB


SIZES = st.one_of(st.none(), st.integers(0, 1 << 42))


@settings(max_examples=60, deadline=None)
@given(
    data=st.fixed_dictionaries(dict.fromkeys(Memory.__struct_fields__, SIZES)),
    board=st.dictionaries(
        st.sampled_from([*BOARD, "foreign_bytes", "unexplained_bytes"]), st.integers(0, 80 * GIB)
    ),
    gpu=st.booleans(),
)
def test_whatever_is_known_the_rows_add_up_exactly(tmp_path_factory, data, board, gpu):
    rows = sampled("gpu:GPU-1", board) if gpu else throughout("process:m", {"rss_bytes": 9e9})
    run = run_of(tmp_path_factory.mktemp("run"), Memory(**data), rows, gpus=("GPU-1",) if gpu else ())
    found = memory.account(run)
    assert (found.total_bytes is None) == (gpu and "memory_used_bytes" not in board)
    assert found.total_bytes is None or adds_up(found)
    parts = [size or 0 for size in parts_of(found).values()]
    assert not parts or sum(parts) == found.bytes_of("weights")


# ------------------------------------------------------------------------------------------- experts


def test_experts_without_a_token_hold_their_share():
    assert unused_expert_bytes(1000, 0.75) == 250
    assert unused_expert_bytes(1000, 1) == 0
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            unused_expert_bytes(1000, wrong)


def test_the_row_of_unused_experts_needs_the_routing(tmp_path):
    run = run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", BOARD))
    row = next(row for row in memory.account(run).rows if row.part_of == "routed experts")
    assert (row.bytes, row.known) == (None, None)
    assert "not recorded" in (row.note or "")


def recorded(tmp_path: Any, used: int) -> store.RunResult:
    """A run whose 160 requests of one token each went in turn to ``used`` of the 128 experts, 8 each."""
    chosen = (np.arange(160)[:, None] * 8 + np.arange(8)) % used
    written = run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", BOARD) + usage(20, 0.5, 2))
    return recording.add(written, chosen.reshape(160, 1, 1, 8), 128)


def test_the_recorded_routing_says_what_experts_no_token_used_hold(tmp_path):
    found = memory.account(recorded(tmp_path, used=96))
    row = next(row for row in found.rows if row.part_of == "routed experts")
    assert (row.bytes, row.known) == (round(54 * GIB / 4), "engine")
    assert row.note == "in 160 recorded requests"
    assert adds_up(found), "a part of a part is not added again"


def test_a_step_leaves_unread_what_the_recording_says(tmp_path):
    found = memory.account(recorded(tmp_path, used=96))
    alike = (4 * 14 * 13 + 8 * 13 * 12) / (160 * 159)  # two requests of one of the twelve sets of experts
    touched = 8 * (2 - alike)
    assert found.uses[0].idle_recorded_bytes == pytest.approx(54 * GIB * (1 - touched / 128), rel=1e-9)
    assert any("by the recorded routing" in line for line in report.lines(found))


def test_a_dense_model_has_no_row_of_experts(tmp_path):
    dense = model("Qwen/Qwen3-8B")
    found = on_host(tmp_path, Memory(), model=dense)
    assert [row.name for row in found.rows if row.part_of] == ["dense part", "embeddings"]
    assert found.uses[0].idle_uniform_bytes is None


# ------------------------------------------------------------------------------------------- use


def usage(t_s: float, frac: float, running: float = 8) -> list[tuple[float, str, str, float]]:
    return sampled("engine:m", {"kv_cache_usage_frac": frac, "requests_running": running}, t_s)


def test_the_cache_is_averaged_and_peaks_inside_the_steady_window_only(tmp_path):
    samples = [
        *sampled("gpu:GPU-1", BOARD),
        *usage(9.5, 1.0),  # before the steady window
        *usage(15, 0.25, 4),
        *usage(25, 0.5, 12),
        *usage(30, 0.0, 0),  # between two requests: no step
        *usage(40.5, 0.9),
    ]
    (use,) = memory.account(run_of(tmp_path, COUNTED, samples)).uses
    assert use.kv_mean_bytes == 3 * GIB
    assert use.kv_max_bytes == 6 * GIB
    assert use.batch == 8
    assert use.required_bytes == (57 + 2 + 1 + 1 + 6) * GIB, "not the 72 GiB that vLLM holds"
    assert use.idle_uniform_bytes == unused_expert_bytes(54 * GIB, experts.distinct_uniform(128, 8, 8) / 128)


def test_each_load_has_its_own_use(tmp_path):
    eight = LoadPoint(mode="closed", concurrency=8)
    samples = [*usage(15, 0.1, 1), *usage(65, 0.4, 8)]
    run = run_of(tmp_path, COUNTED, samples, windows=(WINDOW, make.window(1, 60, 90, point=eight)))
    found = memory.account(run)
    assert [use.kv_max_bytes for use in found.uses] == [round(1.2 * GIB), round(4.8 * GIB)]
    figures = memory.figures(found, eight)
    assert tuple(figures) == memory.FIGURES
    assert figures["memory_kv_used_bytes_max"] == round(4.8 * GIB)
    assert figures["memory_routed_expert_bytes"] == 54 * GIB
    assert set(memory.figures(found, LoadPoint(mode="closed", concurrency=9)).values()) == {54 * GIB, None}


def test_samples_that_all_fell_between_requests_measured_no_use(tmp_path):
    """A cache that served requests was not empty: a 0 would be a figure that nobody measured."""
    samples = [*sampled("gpu:GPU-1", BOARD), *usage(15, 0.0, 0), *usage(25, 0.0, 0)]
    (use,) = memory.account(run_of(tmp_path, COUNTED, samples)).uses
    assert use.kv_mean_bytes is use.kv_max_bytes is use.required_bytes is None


def test_an_engine_that_does_not_say_its_use_has_none(tmp_path):
    (use,) = memory.account(run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", BOARD))).uses
    assert use.kv_mean_bytes is use.kv_max_bytes is use.required_bytes is None
    assert use.batch == 1, "a closed loop's own concurrency"


def test_on_a_cpu_the_remainder_is_required_because_activations_are_in_it(tmp_path):
    held = Memory(weights_bytes=GIB, kv_bytes=GIB, kv_tokens=1 << 20, runtime_bytes=GIB // 2)
    rows = throughout("process:m", {"rss_bytes": 3 * GIB}) + usage(15, 0.5)
    (use,) = memory.account(run_of(tmp_path, held, rows, gpus=())).uses
    assert use.required_bytes == GIB + GIB // 2 + GIB // 2 + GIB // 2


# ------------------------------------------------------------------------------------------- as text


def test_the_table_indents_parts_and_shows_what_is_not_known(tmp_path):
    from rich.console import Console

    found = memory.account(run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", BOARD) + usage(15, 0.25)))
    console = Console(width=120)
    with console.capture() as captured:
        console.print(report.rich_table(found, "[run]"))
    lines = captured.get().splitlines()
    assert any("[run]" in line for line in lines)
    cells = {re.split(r"\s{2,}", line.strip())[0]: line.split() for line in lines if line.strip()}
    assert cells["weights"] == ["weights", "57.000", "71.2%", "by", "the", "engine"]
    assert cells["routed experts"][2:4] == ["54.000", "67.5%"]
    assert next(line for line in lines if "routed experts" in line).startswith("   routed")
    unused = next(line for line in lines if "of experts no token used" in line)
    assert unused.startswith("     of experts")
    assert "n/a" in unused
    assert any(line.startswith(" 1 GPU") and "80.000  100.0%" in line for line in lines)
    said = " | ".join(report.lines(found))
    assert "room for 131,072 tokens, 98,304 bytes each" in said
    assert "KV cache in use 3.00 GiB on average, 3.00 at most" in said
    assert "computed for uniform routing" in said


def test_memory_of_boards_that_are_not_there_is_marked(tmp_path):
    card = Gpu(uuid="GPU-1", name="H100 (simulated)", memory_bytes=80 * GIB)
    host = msgspec.structs.replace(make.HOST, gpus=(card,))
    run = run_of(tmp_path / "trial", COUNTED, sampled("gpu:GPU-1", BOARD), host=host)
    note = "H100 (simulated): no such board is here, its memory is made up"
    assert note in report.lines(memory.account(run))
    assert note in msgspec.json.decode(report.as_json([run]))[0]["notes"]
    real = run_of(tmp_path / "real", COUNTED, sampled("gpu:GPU-1", BOARD))
    assert not any("made up" in line for line in report.lines(memory.account(real)))


def test_a_part_that_is_not_known_is_not_taken_for_nothing(tmp_path):
    held = msgspec.structs.replace(COUNTED, routed_expert_bytes=None)
    found = memory.account(run_of(tmp_path, held, sampled("gpu:GPU-1", BOARD)))
    experts = next(row for row in found.rows if row.name == "routed experts")
    assert (experts.known, experts.bytes is None or experts.bytes > 0) == ("computed", True)


def test_the_peak_is_without_what_others_hold(tmp_path):
    """They come and go: the peak is of the engine, not of the moment when most was in use."""
    crowded = BOARD | {"memory_used_bytes": 78 * GIB}
    samples = [
        *sampled("gpu:GPU-1", {"memory_used_bytes": 74 * GIB}, 15),
        *sampled("gpu:GPU-1", {"foreign_bytes": 0}, 15.01),
        *sampled("gpu:GPU-1", {"foreign_bytes": 5 * GIB}, 19.99),
        *sampled("gpu:GPU-1", crowded, 20),
    ]
    (row,) = comparison.rows([run_of(tmp_path / "a", COUNTED, samples)])
    assert row["memory_peak_bytes"] == 74 * GIB
    (row,) = comparison.rows([run_of(tmp_path / "b", COUNTED, sampled("gpu:GPU-1", crowded))])
    assert row["memory_peak_bytes"] == 78 * GIB


def test_json_holds_every_account(tmp_path):
    run = run_of(tmp_path, COUNTED, sampled("gpu:GPU-1", BOARD))
    (found,) = msgspec.json.decode(report.as_json([run]))
    assert found["run"] == str(run.folder)
    assert found["total_bytes"] == 80 * GIB
    assert found["rows"][-1] == {
        "name": "unexplained",
        "bytes": 0,
        "known": "sampled",
        "part_of": None,
        "note": "holds what is not known: other programs",
    }


def test_facts_of_a_model_without_weights_split_nothing(tmp_path):
    none = dict.fromkeys(("total_params", "active_params", "routed_expert_params", "embedding_params"), 0)
    nothing = Model(name="m", weights="random", facts=msgspec.structs.replace(make.FACTS, **none))
    found = on_host(tmp_path, Memory(weights_bytes=GIB), model=nothing)
    assert found.bytes_of("weights") == GIB
    assert found.bytes_of("dense part") is None
