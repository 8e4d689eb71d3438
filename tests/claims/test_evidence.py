"""What bears on a claim: which runs and cells, what forbids comparing, what is missing and how to make it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from profiler import gate, replicas, store
from profiler.claims import cells, comparable, evidence, ledger, making, sides
from profiler.claims.ledger import Block, Held, Leg, Look, Takes, Trial
from profiler.claims.nouns import Cell, Claim, Conditions, Grid, Models, Plan, Quality, Source
from profiler.gate import limits
from profiler.schema import EngineFacts, Gpu, Imported, LoadPoint, Model, Price, ProbeStatus
from profiler.settings import Conversation, EngineSettings, Length, Load, Share, Workload
from tests import make

DENSE = msgspec.structs.replace(make.FACTS, kind="dense", experts=None, routed_expert_params=0)
SOURCE = Source(name="a test", date="2026-01-01")
S = make.S


def claim(**changes):
    base = Claim(
        id="of-a-test",
        text="sparse is faster than thick",
        source=SOURCE,
        subject=Models(names=("sparse",)),
        baseline=Models(names=("thick",)),
        metric="output_tokens_per_s",
        relation="more",
        cells=(Grid(batch=(1, 4), input_tokens=(10,), output_tokens=(5,)),),
    )
    return msgspec.structs.replace(base, **changes)


def held(index, speed=1.0, batch=1, tokens=5, **changes):
    """``batch`` slots of back-to-back requests of ``tokens``, 0.2 s each at speed 1, for forty requests."""
    records = []
    for slot in range(batch):
        for n in range(40):
            due = 60 * index + 10 + n * 0.2 / speed + slot * 1e-4
            arrivals = [round((due + (0.1 + 0.02 * k) / speed) * S) for k in range(tokens)]
            times = {"first_ns": arrivals[0], "last_ns": arrivals[-1], "done_ns": arrivals[-1] + 1000}
            what = {"arrivals_ns": arrivals, "arrival_tokens": [1] * tokens, "output_tokens": tokens}
            told = {"planned_output_tokens": 5, "reported_output_tokens": tokens}
            records.append(make.request(index, len(records), due, **times, **what, **told))
    start = 60 * index + 10
    point = LoadPoint(mode="closed", concurrency=batch)
    return make.window(index, start, start + 40 * 0.2 / speed, point=point, **changes), records


def sealed(out: Path, name: str, model="sparse", speed=1.0, batches=(1, 4), starts=1, **changes):
    """A run of one model; each engine start holds every batch, and is a little slower than the one before."""
    windows = [
        held(start * len(batches) + n, speed * (1 - start / 100), batch, changes.pop("tokens", 5))
        for start in range(starts)
        for n, batch in enumerate(batches)
    ]
    windows = [
        (msgspec.structs.replace(window, engine_start=n // len(batches), repeat=n // len(batches)), records)
        for n, (window, records) in enumerate(windows)
    ]
    facts = make.FACTS if model.startswith("sparse") else DENSE
    weights = changes.pop("weights", "local")
    told = {
        "model": Model(name=model, weights=weights, facts=facts),
        "engine": EngineFacts(kind="transformers", version="5", device="cpu", routing="model"),
        "starts_s": (1.0,) * starts,
        "group": name,
        "exclusive": True,
    }
    seen = changes.pop("seen", [])
    writer = make.writer(out, windows, run_id=name, **{**told, **changes})
    writer.samples_path.write_bytes(make.sample_lines(seen))
    writer.seal()
    return store.load(writer.folder)


def both(out: Path, each=2, **changes):
    """So many starts a side, in runs of their own."""
    return [
        sealed(out, f"{model}-{n}", model, speed * (1 - n / 100), **changes)
        for n in range(each)
        for model, speed in (("sparse", 2.0), ("thick", 1.0))
    ]


def only(asked: Claim, runs):
    found = evidence.cases(asked, runs)
    assert len(found) == 1
    return found[0]


# --------------------------------------------------------------------------------------- what is counted


def test_each_engine_start_is_a_figure_of_its_side(tmp_path):
    case = only(claim(), both(tmp_path, each=3))
    assert (case.setting.subject, case.setting.baseline) == ("sparse", "thick")
    assert case.setting.machine == "cpu, 2 cores"
    assert case.setting.engine == "transformers 5, bfloat16"
    assert [each.cell.batch for each in case.evidence] == [1, 4]
    for each in case.evidence:
        batch = each.cell.batch
        assert each.subject.values == pytest.approx([50 * batch, 49.5 * batch, 49 * batch], rel=0.02)
        assert each.baseline.values == pytest.approx([25 * batch, 24.75 * batch, 24.5 * batch], rel=0.02)
        assert (each.doubts, each.missing, each.systematic_frac) == ((), (), 0.0)
        assert [Path(run).name for run in each.subject.runs] == ["sparse-0", "sparse-1", "sparse-2"]
        assert each.subject.within is None
    assert (case.doubts, case.missing, case.impossible, case.looks) == ((), (), None, None)


def test_the_starts_of_one_run_count_each(tmp_path):
    runs = [sealed(tmp_path, "s", speed=2.0, starts=3), sealed(tmp_path, "t", "thick", starts=2)]
    cell = only(claim(), runs).evidence[0]
    assert cell.subject.values == pytest.approx([50, 49.5, 49], rel=0.02)
    assert len(cell.baseline.values) == 2
    assert len(cell.subject.runs) == 1


def test_a_single_start_says_what_it_knows_and_asks_for_more(tmp_path):
    runs = [*both(tmp_path), sealed(tmp_path, "alone", "sparse", batches=(8,))]
    runs.append(sealed(tmp_path, "alone-2", "thick", batches=(8,)))
    asked = claim(cells=(Grid(batch=(8,), input_tokens=(10,), output_tokens=(5,)),))
    case = only(asked, runs)
    cell = case.evidence[0]
    assert len(cell.subject.values) == 1
    assert cell.subject.within.value == cell.subject.values[0]
    assert cell.missing == (
        "more engine starts of sparse at batch 8, 10 + 5 tokens: 1 of at least 3",
        "more engine starts of thick at batch 8, 10 + 5 tokens: 1 of at least 3",
    )
    assert case.missing == ("profile claims run of-a-test.toml",)


def test_a_run_counts_once_however_often_it_is_named(tmp_path):
    runs = both(tmp_path)
    again = [store.load(run.folder) for run in runs]
    assert len(only(claim(), [*runs, *again]).evidence[0].subject.values) == 2


def test_runs_that_are_not_sealed_do_not_count(tmp_path):
    runs = both(tmp_path)
    writer = make.writer(tmp_path, [held(0)], run_id="cut", model=runs[0].manifest.model)
    cut = store.load(writer.folder)
    assert len(only(claim(), [*runs, cut]).evidence[0].subject.values) == 2


def test_every_preregistered_cell_is_there_measured_or_not(tmp_path):
    grid = Grid(batch=(1, 4, 64), input_tokens=(10,), output_tokens=(5,))
    case = only(claim(cells=(grid,)), both(tmp_path))
    assert [each.cell.batch for each in case.evidence] == [1, 4, 64]
    assert case.evidence[2].missing == (
        "no run of sparse at batch 64, 10 + 5 tokens",
        "no run of thick at batch 64, 10 + 5 tokens",
    )
    assert case.missing == ("profile claims run of-a-test.toml",)


def test_a_length_that_is_left_open_is_any_alike_on_both_sides(tmp_path):
    case = only(claim(cells=(Grid(batch=(4,)),)), both(tmp_path))
    assert [each.cell for each in case.evidence] == [Cell(batch=4, input_tokens=10, output_tokens=5)]
    nothing = only(claim(cells=(Grid(batch=(9,)),)), both(tmp_path / "b"))
    assert [each.cell for each in nothing.evidence] == [Cell(batch=9)]
    assert nothing.evidence[0].missing[0] == "no run of sparse at batch 9"


def test_what_does_not_depend_on_the_load_is_one_figure_a_start(tmp_path):
    asked = claim(metric="memory_weights_bytes", relation="less", cells=())
    case = only(asked, both(tmp_path))
    assert [each.subject.values for each in case.evidence] == [(2000.0, 2000.0)]
    assert case.evidence[0].missing == ()  # what is counted needs no third start


def test_lengths_must_be_those_of_the_cell(tmp_path):
    asked = claim(cells=(Grid(batch=(1,), input_tokens=(10,), output_tokens=(500,)),))
    cell = only(asked, both(tmp_path)).evidence[0]
    assert (cell.subject.values, cell.baseline.values) == ((), ())
    assert "no run of sparse" in cell.missing[0]


def test_answers_that_end_early_are_of_another_length(tmp_path):
    runs = both(tmp_path, batches=(1,), tokens=4)
    cell = only(claim(cells=(Grid(batch=(1,), input_tokens=(10,), output_tokens=(5,)),)), runs).evidence[0]
    assert cell.subject.values == ()


def of_lengths(told, n, **workload):
    kinds = cells._kinds(Workload(**workload), "output_tokens")
    return cells._mean(kinds, cells.Estimate(told, n=n, over="requests"))


def test_lengths_drawn_at_random_are_those_asked_for_within_their_scatter():
    spread = Length(mean=24, spread=0.5)  # standard deviation 6.9
    assert of_lengths(22.5, 30, input_tokens=8, output_tokens=spread) == 24
    assert of_lengths(16.0, 30, input_tokens=8, output_tokens=spread) == 16
    assert of_lengths(22.5, 30, input_tokens=8, output_tokens=24) == 22.5
    mix = tuple(
        Share(name=name, weight=1, input_tokens=8, output_tokens=length)
        for name, length in (("a", 100), ("b", 700))
    )
    assert of_lengths(430.0, 900, mix=mix) == 400  # standard deviation 300
    assert of_lengths(500.0, 900, mix=mix) == 500


def test_requests_of_another_kind_are_not_compared(tmp_path):
    talk = msgspec.structs.replace(make.SCENARIO, load=Load(concurrency=(1, 4)))
    spread = Workload(input_tokens=10, output_tokens=Length(mean=5, spread=0.2))
    other = msgspec.structs.replace(talk, workload=spread)
    runs = [
        *(sealed(tmp_path, f"s{n}", scenario=talk) for n in range(2)),
        *(sealed(tmp_path, f"t{n}", "thick", scenario=other) for n in range(2)),
    ]
    cell = only(claim(), runs).evidence[0]
    assert cell.doubts == ("the sides were asked for requests of other kinds",)
    assert len(cell.subject.values) == 2  # shown all the same


def test_another_seed_is_no_other_kind(tmp_path):
    other = msgspec.structs.replace(
        make.SCENARIO, workload=msgspec.structs.replace(make.SCENARIO.workload, seed=7)
    )
    runs = [*both(tmp_path)[:3], sealed(tmp_path, "u", "thick", scenario=other)]
    assert only(claim(), runs).evidence[0].doubts == ()


@pytest.mark.parametrize(
    "change",
    [
        {"load": Load(concurrency=(1,), think_s=1.0)},
        {"workload": Workload(input_tokens=10, output_tokens=5, shared_prefix_tokens=8)},
        {"workload": Workload(input_tokens=10, output_tokens=5, conversation=Conversation(turns=2))},
    ],
)
def test_only_fresh_prompts_without_pauses_are_in_flight_as_a_cell_says(tmp_path, change):
    runs = both(tmp_path, scenario=msgspec.structs.replace(make.SCENARIO, **change))
    assert only(claim(), runs).evidence[0].subject.values == ()


def test_open_loops_have_no_batch(tmp_path):
    window, records = held(0)
    window = msgspec.structs.replace(window, point=LoadPoint(mode="open", requests_per_s=5.0))
    runs = both(tmp_path)
    writer = make.writer(tmp_path, [(window, records)], run_id="open", model=runs[0].manifest.model,
                         engine=runs[0].manifest.engine)  # fmt: skip
    writer.seal()
    case = only(claim(), [*runs, store.load(writer.folder)])
    assert len(case.evidence[0].subject.values) == 2


# ------------------------------------------------------------------------------------ whom it is about


def test_a_class_of_models_is_judged_pair_by_pair(tmp_path):
    runs = [*both(tmp_path), *(sealed(tmp_path, f"x{n}", "thicker") for n in range(2))]
    asked = claim(subject=Models(kind="moe"), baseline=Models(kind="dense"))
    found = evidence.cases(asked, runs)
    assert {case.setting.pair for case in found} == {"sparse / thick", "sparse / thicker"}
    assert making.command(asked, "sparse", "thick") == (
        "profile claims run of-a-test.toml --model sparse --model thick"
    )


def test_names_of_the_hub_and_of_folders_mean_one_model(tmp_path):
    asked = claim(subject=Models(names=("maker/Sparse",)))
    assert only(asked, both(tmp_path)).setting is not None
    assert only(claim(subject=Models(names=("sparse-2",))), both(tmp_path / "b")).setting is None


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        (Conditions(engine="vllm"), "the claim is of engine vllm, the run of transformers"),
        (Conditions(precision="fp8"), "the claim is of fp8, the run of bfloat16"),
        (Conditions(gpu_count=2), "the claim is of 2 GPUs, the run used none"),
    ],
)
def test_runs_that_do_not_meet_the_conditions_do_not_count(tmp_path, conditions, said):
    case = only(claim(conditions=conditions), both(tmp_path))
    assert (case.setting, case.evidence, case.impossible) == (None, (), None)
    assert case.missing == (
        f"runs of sparse do not count: {said}",
        f"runs of thick do not count: {said}",
        "profile claims run of-a-test.toml",
    )


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "bfloat16"),
        ({"quant_method": "fp8"}, "fp8"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "gptq", "bits": 4}, "int4"),
        ({"quant_method": "compressed-tensors",
          "config_groups": {"a": {"weights": {"type": "float", "num_bits": 8}}}}, "fp8"),
        ({"quant_method": "compressed-tensors",
          "config_groups": {"a": {"weights": {"type": "int", "num_bits": 4}}}}, "int4"),
    ],
)  # fmt: skip
def test_a_checkpoint_is_of_the_precision_it_is_kept_in(config, words):
    model = Model(name="m", weights="hub", config={"quantization_config": config} if config else {})
    asked = Conditions(precision=words)
    assert sides.unmet(asked, make.manifest("r", model=model)) is None
    drawn = make.manifest("r", model=msgspec.structs.replace(model, weights="random"))
    assert (sides.unmet(asked, drawn) is None) == (words == "bfloat16")


def test_an_engine_that_quantizes_by_itself_is_of_that_precision():
    engine = EngineSettings(args={"quantization": "fp8"})
    run = make.manifest("r", scenario=msgspec.structs.replace(make.SCENARIO, engine=engine))
    assert sides.precision(run) == "fp8"


def on_gpu(name="NVIDIA H100 80GB HBM3", uuid="GPU-1", **changes):
    gpu = Gpu(uuid=uuid, name=name, memory_bytes=80 << 30)
    host = msgspec.structs.replace(make.HOST, gpus=(gpu,), driver="570")
    engine = EngineFacts(kind="vllm", version="0.30", device="cuda", gpus=(uuid,), routing="model", **changes)
    return {"host": host, "engine": engine}


def test_where_no_machine_at_hand_has_the_gpu_it_cannot_be_tried_here(tmp_path):
    asked = claim(conditions=Conditions(gpus=("H20 96GB",)))
    case = only(asked, both(tmp_path))
    assert case.impossible.startswith("the claim is of H20 96GB, the run used no GPU")
    assert only(asked, []).impossible is None  # nobody knows of any machine
    h100 = both(tmp_path / "gpu", **on_gpu())
    assert "the run used NVIDIA H100 80GB HBM3" in only(asked, h100).impossible
    ours = claim(conditions=Conditions(gpus=("H100 SXM5 80GB",), gpu_count=1))
    case = only(ours, h100)
    assert case.setting.machine == "1 × NVIDIA H100 80GB HBM3 (driver 570)"
    assert len(case.evidence[0].subject.values) == 2


def test_of_nothing_at_hand_the_command_is_told():
    case = only(claim(), [])
    assert case.missing == ("no run of sparse", "no run of thick", "profile claims run of-a-test.toml")
    asked = claim(subject=Models(kind="moe"), baseline=Models(kind="dense"))
    assert only(asked, []).missing[-1] == (
        "profile claims run of-a-test.toml --model A-MOE-MODEL --model A-DENSE-MODEL"
    )
    half = claim(baseline=Models(kind="dense"))  # who names one names both
    assert making.command(half).endswith("--model sparse --model A-DENSE-MODEL")


def test_a_claim_that_nothing_can_tell_says_why():
    case = only(claim(metric="training_cost", untestable="training is not measured here"), [])
    assert case.impossible == "training is not measured here"


def test_a_shipped_claim_is_named_by_its_id():
    from profiler.claims import reading

    shipped = reading.shipped()[0]
    assert f"profile claims run {shipped.id}" in making.command(shipped)
    assert ".toml" not in making.command(shipped)


# ------------------------------------------------------------------------------ why not to be compared


def engine(**changes):
    return msgspec.structs.replace(
        EngineFacts(kind="transformers", version="5", device="cpu", routing="model"), **changes
    )


def with_host(**changes):
    return msgspec.structs.replace(make.HOST, **changes)


def with_settings(**changes):
    return msgspec.structs.replace(make.SCENARIO, engine=EngineSettings(**changes))


def unlike(out, change, **asked):
    """The doubts of a pair whose baseline was measured with another ``change``."""
    runs = [sealed(out, f"s{n}", speed=2.0) for n in range(2)]
    runs += [sealed(out, f"t{n}", "thick", **change) for n in range(2)]
    return only(claim(**asked), runs).doubts


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": with_host(cpu="other")}, "CPU cpu ≠ other"),
        ({"host": with_host(cores=4)}, "cores 2 ≠ 4"),
        ({"host": with_host(packages={"torch": "2.14.0"})}, "torch 2.13.0 ≠ 2.14.0"),
        ({"engine": engine(version="6")}, "engine version 5 ≠ 6"),
        ({"engine": engine(kind="vllm")}, "engine transformers ≠ vllm"),
        ({"settings": EngineSettings(dtype="float16")}, "precision bfloat16 ≠ float16"),
        ({"scenario": with_settings(args={"max_num_seqs": 64})}, "arguments none ≠ max_num_seqs = 64"),
        ({"scenario": with_settings(env={"A": "1"})}, "environment none ≠ A = 1"),
        ({"weights": "random"}, "weights trained ≠ random"),
        ({"weights": "random"}, "thick: random weights, and the claim is of trained ones"),
        (
            {"imported": Imported(tool="aiperf", file="f", sha256="0")},
            "thick: measured by aiperf, whose machine and settings are not known",
        ),
        ({"engine": engine(device="remote")}, "thick: served elsewhere, by nobody knows what"),
        (
            {"engine": engine(kind="simulated")},
            "thick: the engine is simulated: it follows a law, and no model",
        ),
        (
            {"probes": (ProbeStatus(probe="rapl", usable=True, detail="made up: a trial"),)},
            "thick: the boards are simulated",
        ),
        (
            {"engine": engine(notes=("no tuned MoE kernel config for this GPU and shape: …",))},
            "thick: no tuned MoE kernel config for this GPU, so its speed may be below its best",
        ),
    ],
)
def test_unlike_sides_are_not_compared(tmp_path, change, said):
    assert said in unlike(tmp_path, change)


def test_like_sides_are_without_doubt(tmp_path):
    assert unlike(tmp_path, {}) == ()


def test_the_note_on_kernels_is_the_engines_own():
    """The words that the doubt looks for are those that the vLLM log is put into."""
    from profiler.engines import vllm_account

    log = "WARNING Using default MoE config. Performance might be sub-optimal! Config file not found"
    notes = vllm_account.start_notes(log, {}, Model(name="m", weights="hub"))
    assert any(note.startswith(comparable.UNTUNED) for note in notes)


def test_kernels_untuned_on_both_sides_are_alike(tmp_path):
    change = {"engine": engine(notes=("no tuned MoE kernel config for this GPU and shape: …",))}
    assert only(claim(), both(tmp_path, **change)).doubts == ()


@pytest.mark.parametrize("routing", ["uniform", "skew=1.1"])
def test_made_up_routing_tells_nothing_of_a_trained_model(tmp_path, routing):
    runs = [
        *both(tmp_path)[1::2],
        *(sealed(tmp_path, f"u{n}", engine=engine(routing=routing)) for n in (0, 1)),
    ]
    assert only(claim(), runs).doubts == (f"sparse: experts were chosen by the profiler ({routing})",)
    anything = only(claim(conditions=Conditions(weights="any")), runs)
    assert anything.doubts == ()
    assert anything.setting.engine.endswith(f"routing {routing}")


def test_random_weights_do_where_the_claim_is_of_any(tmp_path):
    runs = both(tmp_path, weights="random")
    assert only(claim(), runs).doubts == ("sparse, thick: random weights, and the claim is of trained ones",)
    assert only(claim(conditions=Conditions(weights="any")), runs).doubts == ()


def test_a_simulated_engine_bears_on_claims_of_it_alone(tmp_path):
    runs = both(tmp_path, engine=engine(kind="simulated"))
    assert only(claim(), runs).doubts == (
        "sparse, thick: the engine is simulated: it follows a law, and no model",
    )
    ours = claim(conditions=Conditions(engine="simulated"))
    assert only(ours, runs).doubts == ()
    laws = [with_settings(kind="simulated", args={"itl_s": s, "seed": n}) for n, s in ((0, 0.1), (1, 0.2))]
    runs += [sealed(tmp_path, f"x{n}", "thick", engine=engine(kind="simulated"), scenario=law)
             for n, law in enumerate(laws)]  # fmt: skip
    found = evidence.cases(ours, runs)
    assert len(found) == 3  # starts under unlike laws are of unlike models
    assert len({case.setting for case in found}) == 3
    assert all(case.doubts == () for case in found)


def test_arguments_that_the_plan_sets_for_one_side_are_no_accident(tmp_path):
    change = {"scenario": with_settings(args={"max_num_seqs": 64})}
    plan = Plan(set={"baseline.engine.args.max_num_seqs": 64})
    assert unlike(tmp_path, change, plan=plan) == ()


def test_formats_of_one_model_may_be_what_is_compared(tmp_path):
    runs = [
        *(sealed(tmp_path, f"s{n}", "thick-fp8", settings=EngineSettings(dtype="float16")) for n in range(2)),
        *(sealed(tmp_path, f"t{n}", "thick") for n in range(2)),
    ]
    asked = claim(subject=Models(names=("thick-fp8",)))
    assert only(asked, runs).doubts == ()


def test_what_can_be_compared_stands_for_what_cannot(tmp_path):
    newer = {"engine": engine(version="6")}
    runs = [*both(tmp_path), *(sealed(tmp_path, f"n{n}", "thick", **newer) for n in range(3))]
    case = only(claim(), runs)
    assert case.doubts == ()
    assert len(case.evidence[0].baseline.values) == 2


def test_trained_weights_stand_for_random_ones(tmp_path):
    runs = [*both(tmp_path), *(renamed(run) for run in both(tmp_path / "random", weights="random"))]
    case = only(claim(), runs)
    assert (case.doubts, len(case.evidence[0].subject.values)) == ((), 2)
    assert len(only(claim(), runs[4:]).doubts) == 1


def test_runs_at_the_cells_stand_for_runs_elsewhere(tmp_path):
    newer = {"engine": engine(version="6"), "batches": (64,)}
    runs = [*both(tmp_path), *(renamed(run) for run in both(tmp_path / "newer", **newer))]
    assert only(claim(), runs).setting.engine == "transformers 5, bfloat16"
    assert len(only(claim(), runs[4:]).evidence) == 2  # alone, they say what is missing


def test_machines_never_pool(tmp_path):
    other = {"host": with_host(cpu="other")}
    runs = [*both(tmp_path), *both(tmp_path / "other", **other)]
    found = evidence.cases(claim(), [*runs[:4], *(renamed(run) for run in runs[4:])])
    assert {case.setting.machine for case in found} == {"cpu, 2 cores", "other, 2 cores"}
    assert all(len(case.evidence[0].subject.values) == 2 for case in found)


def renamed(run):
    changes = {"run_id": f"{run.folder}", "clock_ns": run.manifest.clock_ns + 1}
    return store.RunResult(run.folder, msgspec.structs.replace(run.manifest, **changes))


# ------------------------------------------------------------------------------------------- quality


def quality_of(monkeypatch, **scores):
    from profiler.scores import Score

    known = tuple(
        Score(model=model, benchmark="arena", value=value, unit="elo", low=value - 4, high=value + 4,
              date="2025-01-01", source="a test")
        for model, value in scores.items()
    )  # fmt: skip
    monkeypatch.setattr("profiler.scores.quality", lambda: known)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"sparse": 1300.0, "thick": 1301.0}, None),
        ({"sparse": 1300.0, "thick": 1400.0}, "not of equal quality on arena (not equivalent)"),
        ({"sparse": 1300.0, "thick": 1319.0}, "not of equal quality on arena (undecided)"),
        ({"sparse": 1300.0}, "equal quality cannot be shown: no score of thick on arena"),
        ({}, "equal quality cannot be shown: no scores of benchmark 'arena'"),
    ],
)
def test_equal_quality_must_be_shown(tmp_path, monkeypatch, scores, said):
    quality_of(monkeypatch, **scores)
    asked = claim(conditions=Conditions(quality=Quality(benchmark="arena")))
    doubts = only(asked, both(tmp_path)).doubts
    assert (doubts == ()) if said is None else doubts[0].startswith(said)


# ------------------------------------------------------------------------------------ a cell's own doubts


def doubts_where(out, monkeypatch, metric="output_tokens_per_s", **facts):
    """The doubts of a cell whose subject's first start has these facts."""
    runs = both(out, batches=(1,))
    found = replicas.figures_of_starts(runs[:1])[0][1][0]
    found.facts.update(facts)
    return only(claim(metric=metric), runs).evidence[0].doubts


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"client_bound": "one core"}, "the client was the limit (one core)"),
        ({"shared_gpu": True}, "others used the GPUs"),
        ({"throttled_thermal_frac": 0.3}, "heat held the clocks back for 30% of the time"),
        ({"requests_failed": 5}, "5 of 45 requests failed"),
        ({"requests_failed": None}, "nobody says how many requests failed"),
        ({"notes": "else | not steady: it rose"}, "not steady: it rose"),
    ],
)
def test_what_speaks_against_a_figure_speaks_against_its_cell(tmp_path, monkeypatch, facts, said):
    known = {"requests_ok": 40}
    (doubt,) = doubts_where(tmp_path, monkeypatch, **{**known, **facts})
    assert doubt == f"sparse: {said} (so or alike in 1 of 2 starts)"


@pytest.mark.parametrize("facts", [{"throttled_power_frac": 0.9}, {"throttled_thermal_frac": 0.001}, {}])
def test_what_is_usual_is_no_doubt(tmp_path, monkeypatch, facts):
    assert doubts_where(tmp_path, monkeypatch, **facts) == ()


def test_prompts_that_a_cache_knew_were_cheaper_than_they_look(tmp_path):
    runs = both(tmp_path, batches=(1,))
    found = replicas.figures_of_starts(runs[:1])[0][1][0]
    found.estimates["prefix_cache_hit_frac"] = cells.Estimate(0.4, n=9)
    (doubt,) = only(claim(), runs).evidence[0].doubts
    assert doubt.startswith("sparse: 40% of the prompt tokens came from a prefix cache although")
    found.estimates["prefix_cache_hit_frac"] = cells.Estimate(0.001, n=9)
    assert only(claim(), runs).evidence[0].doubts == ()


def test_engines_with_unlike_room_are_not_compared(tmp_path):
    runs = [sealed(tmp_path, f"s{n}") for n in range(2)]
    runs += [sealed(tmp_path, f"t{n}", "thick", scenario=with_settings(max_model_len=4096)) for n in range(2)]
    case = only(claim(), runs)
    assert case.doubts == ()
    assert "room for requests of unlike length" in case.evidence[0].doubts[0]


def held_at(out, subject, baseline, metric="output_tokens_per_s", **of_thick):
    """The evidence of starts that were begun at these seconds."""
    runs = [sealed(out, f"s{t}", unix_ns=t) for t in subject]
    runs += [sealed(out, f"t{t}", "thick", unix_ns=t, **of_thick) for t in baseline]
    return only(claim(metric=metric), runs).evidence[0]


@pytest.mark.parametrize(
    ("subject", "baseline", "is_doubted"),
    [
        ((1, 2, 3), (4, 5, 6), True),
        ((4, 5, 6), (1, 2, 3), True),
        ((1, 2, 3, 4, 6), (5, 7, 8, 9, 10), True),  # as good as one after the other
        ((1, 4, 5), (2, 3, 6), False),
        ((1, 2, 4), (3, 5, 6), True),  # in 8 of 9 pairs the subject came first
        ((1, 3, 5), (2, 4, 6), False),
        ((1, 2), (4, 5), False),  # too few for a verdict anyway
    ],
)
def test_one_side_after_the_other_is_not_compared(tmp_path, subject, baseline, is_doubted):
    doubts = held_at(tmp_path, subject, baseline).doubts
    assert doubts == ((comparable.APART,) if is_doubted else ())


def test_runs_of_one_group_were_held_in_turns(tmp_path):
    runs = [sealed(tmp_path, "s", starts=3, unix_ns=1, group="one")]
    runs += [sealed(tmp_path, "t", "thick", starts=3, unix_ns=2, group="one")]
    assert only(claim(), runs).evidence[0].doubts == ()


def test_several_versions_of_the_tool_are_told(tmp_path):
    cell = held_at(tmp_path, (1, 3), (2, 4), tool_version="1")
    assert (cell.doubts, cell.notes) == ((), ("measured by several versions of this tool",))


def test_engines_that_stayed_up_together_are_told(tmp_path):
    runs = both(tmp_path, group="one", exclusive=False)
    assert only(claim(), runs).evidence[0].notes == ("the engines of both sides stayed up beside each other",)


def test_doubtful_energy_touches_claims_of_energy_alone(tmp_path, monkeypatch):
    trouble = {"energy_trouble": "counter and integral differ by 4 %"}
    assert doubts_where(tmp_path, monkeypatch, **trouble) == ()
    found = doubts_where(tmp_path / "e", monkeypatch, metric="energy_j_per_output_token", **trouble)
    assert found[0].startswith("sparse: energy is doubtful: counter and integral differ by 4 %")


def test_one_unsteady_start_of_many_is_scatter(tmp_path):
    runs = [sealed(tmp_path, f"s{n}") for n in range(3)] + [sealed(tmp_path, "t", "thick")]
    replicas.figures_of_starts(runs)[0][1][0].facts["notes"] = "not steady: it rose"
    cell = only(claim(), runs).evidence[0]
    assert cell.doubts == ()
    assert cell.notes == ("sparse: not steady: it rose (so or alike in 1 of 3 starts)",)


@pytest.mark.parametrize(("running", "told"), [(3, True), (4, False)])
def test_a_batch_that_the_engine_lets_wait_is_told(tmp_path, running, told):
    seen = [(11.0 + n / 10, "engine:sparse", "requests_running", running) for n in range(20)]
    runs = both(tmp_path, batches=(4,), seen=seen)
    cell = next(each for each in only(claim(), runs).evidence if each.cell.batch == 4)
    assert cell.doubts == ()
    assert ("sparse: the engine ran at most 3 of 4 requests at once" in cell.notes) == told


def test_a_figure_that_some_starts_lack_is_doubtful(tmp_path):
    runs = both(tmp_path)
    del replicas.figures_of_starts(runs[:1])[0][1][0].estimates["output_tokens_per_s"]
    cell = only(claim(), runs).evidence[0]
    assert cell.doubts == ("sparse: n/a in 1 of 2 starts",)


def test_a_figure_that_was_not_measured_is_missed_with_the_runs_own_reason(tmp_path):
    cell = only(claim(metric="usd_per_m_output_tokens"), both(tmp_path)).evidence[0]
    assert "sparse at batch 1, 10 + 5 tokens: usd_per_m_output_tokens n/a (cost n/a: " in cell.missing[0]


def test_unlike_prices_make_no_claim_of_cost(tmp_path):
    dear, cheap = (Price(usd_per_hour=usd, per="machine", source="--price") for usd in (2.0, 1.0))
    runs = [sealed(tmp_path, f"s{n}", price=dear) for n in range(2)]
    runs += [sealed(tmp_path, f"t{n}", "thick", price=cheap) for n in range(2)]
    asked = claim(metric="usd_per_m_output_tokens", relation="less")
    assert only(asked, runs).evidence[0].doubts == (
        "the runs were made with different prices (USD/h): 1.0 and 2.0",
    )
    assert only(claim(), runs).evidence[0].doubts == ()


# ------------------------------------------------------------------------------- beyond the statistics


def on_boards(out, **of_baseline):
    """Two starts a side, the baseline's on a board of its own."""
    runs = [sealed(out, f"o{n}", **on_gpu()) for n in range(2)]
    return runs + [sealed(out, f"p{n}", "thick", **on_gpu(**of_baseline)) for n in range(2)]


def test_what_boards_differ_by_cancels_on_the_same_boards(tmp_path):
    assert only(claim(), both(tmp_path, **on_gpu())).evidence[0].systematic_frac == 0
    other = on_boards(tmp_path, uuid="GPU-2")
    case = only(claim(), other)
    assert case.doubts == ()
    assert case.evidence[0].systematic_frac == comparable.BOARD_SPREAD_FRAC
    assert "not on the same boards" in case.evidence[0].notes
    energy = only(claim(metric="energy_j_per_output_token"), other).evidence[0]
    assert energy.systematic_frac == pytest.approx(1.08 * 1.05**2 - 1)
    memory = only(claim(metric="memory_weights_bytes", cells=()), other).evidence[0]
    assert memory.systematic_frac == 0


def test_a_machine_without_gpus_is_known_by_its_name(tmp_path):
    runs = [sealed(tmp_path, f"s{n}") for n in range(2)]
    runs += [sealed(tmp_path, f"t{n}", "thick", host=with_host(hostname_hash="other")) for n in range(2)]
    case = only(claim(), runs)
    assert (case.doubts, case.evidence[0].systematic_frac) == ((), comparable.BOARD_SPREAD_FRAC)


def test_a_board_of_another_kind_is_no_board_of_the_kind(tmp_path):
    doubts = only(claim(), on_boards(tmp_path, name="NVIDIA H200", uuid="GPU-2")).doubts
    assert any(line.startswith("GPUs used NVIDIA H100") for line in doubts)


# ------------------------------------------------------------------------------------------- trials


def trial(asked, blocks, looks=(), **changes):
    legs = (Leg(side="subject"), Leg(side="baseline"))
    pairs = [
        [Held(leg=leg, run=run, took_s=1.0) for leg, run in zip(legs, runs, strict=True)] for runs in blocks
    ]
    base = Trial(
        id="of-a-test-1",
        claim=asked,
        digest=ledger.digest(asked),
        subject="sparse",
        baseline="thick",
        engine="transformers",
        overrides=(),
        weights="auto",
        seed=1,
        looks_at=(2, 4),
        takes=Takes(starts=8, seconds=1.0),
        machine={},
        blocks=tuple(Block(order=legs, held=tuple(pair)) for pair in pairs),
        looks=tuple(Look(starts=n, frac=n / 4, verdict="undecided", why="", decision="go on") for n in looks),
    )
    return msgspec.structs.replace(base, **changes)


def test_a_trial_is_judged_by_what_its_last_look_saw(tmp_path):
    asked = claim()
    runs = [run for n in range(4) for run in (sealed(tmp_path, f"s{n}"), sealed(tmp_path, f"t{n}", "thick"))]
    blocks = [(f"s{n}", f"t{n}") for n in range(3)]
    ledger.write(tmp_path, trial(asked, blocks, looks=(2,)))
    case = only(asked, runs)
    assert case.looks == (0.5,)
    assert case.doubts == ()
    # neither the third block, which no look has seen, nor the fourth pair, which is none of the trial's
    assert [Path(run).name for run in case.evidence[0].subject.runs] == ["s0", "s1"]


def test_a_trial_that_nobody_looked_at_yet_has_no_verdict(tmp_path):
    runs = both(tmp_path)
    ledger.write(tmp_path, trial(claim(), [("sparse-0", "thick-0"), ("sparse-1", "thick-1")]))
    case = only(claim(), runs)
    assert case.evidence == ()
    assert case.setting is not None
    assert case.missing == (
        "trial of-a-test-1 is under way and looks first at 2 starts a side",
        f"profile claims run of-a-test.toml --engine transformers --out {tmp_path}",
    )


def test_a_trial_goes_on_by_the_words_it_was_begun_with():
    asked = claim(subject=Models(kind="moe"), conditions=Conditions(engine="vllm"))
    begun = trial(asked, [], weights="random", overrides=("load.think_s=0",))
    assert making.resumed(begun, Path("results")) == (
        "profile claims run of-a-test.toml --model sparse --model thick --weights random --set load.think_s=0"
    )


def test_a_trial_of_which_runs_are_gone_is_doubtful(tmp_path):
    runs = both(tmp_path)
    ledger.write(tmp_path, trial(claim(), [("sparse-0", "thick-0"), ("sparse-1", "gone")], looks=(2,)))
    assert only(claim(), runs).doubts == ("1 of the 4 runs of trial of-a-test-1 are not at hand",)


def test_a_trial_of_another_wording_is_no_trial_of_this_claim(tmp_path):
    runs = both(tmp_path)
    ledger.write(
        tmp_path, trial(claim(factor=1.5), [("sparse-0", "thick-0"), ("sparse-1", "thick-1")], looks=(2,))
    )
    assert only(claim(), runs).looks is None
    assert len(only(claim(), runs).evidence[0].subject.values) == 2


# ----------------------------------------------------------------------------------------- replicas


def test_starts_of_a_run_are_runs_of_their_own(tmp_path):
    run = sealed(tmp_path, "s", starts=3)
    parts = replicas.starts([run])
    assert [len(part.manifest.windows) for part in parts] == [2, 2, 2]
    assert parts[0].requests is run.requests
    assert len(replicas.repeats([run])) == 3
    one = sealed(tmp_path, "one")
    assert replicas.starts([one])[0] is one
    figures = replicas.figures_of_starts([run, one])
    assert [len(found) for _, found in figures] == [2, 2, 2, 2]
    assert replicas.figures_of_starts([one])[0][1] is figures[3][1]
    assert gate.compare([run], [sealed(tmp_path, "b", starts=2)], limits.read()).cells[0].replica == "starts"
