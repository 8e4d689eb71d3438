"""Ways to a verdict that nobody should have: copies, renamed models, servers that were up, unlike meters."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from profiler import arch, catalog, index, replicas, store
from profiler.claims import (
    cells,
    comparable,
    configs,
    docket,
    evidence,
    judge,
    ledger,
    making,
    reading,
    sides,
)
from profiler.claims.nouns import Cell, Grid, Models, Plan, Side
from profiler.errors import InputError
from profiler.schema import EngineFacts, Estimate, Imported, ImportedPoint, LoadPoint, Model, ProbeStatus
from profiler.settings import EngineSettings, Load, Measure
from tests import make
from tests.claims import cases
from tests.claims.test_evidence import both, claim, engine, only, sealed, trial

# ---------------------------------------------------------------------------------------------- copies


def edited(folder: Path, **changes) -> store.RunResult:
    """The run folder with another manifest, as if somebody had forged it, checksum and all."""
    run = store.load(folder)
    store.write_json(folder / store.MANIFEST, msgspec.structs.replace(run.manifest, **changes))
    make.written_again(folder)
    return store.load(folder)


def values(found):
    return [len(side.values) for each in found.evidence for side in (each.subject, each.baseline)]


def test_a_copy_under_another_name_is_no_further_start(tmp_path):
    runs = both(tmp_path)
    for run in list(runs):
        again = tmp_path / f"{run.folder.name}-again"
        shutil.copytree(run.folder, again)
        runs.append(edited(again, run_id=again.name))
    assert values(only(claim(), runs)) == [2, 2, 2, 2]


def test_a_run_by_a_link_and_by_a_relative_path_is_one(tmp_path, monkeypatch):
    runs = both(tmp_path / "results")
    (tmp_path / "link").symlink_to(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    again = store.find(["link", "results", "./results/../link"])
    assert values(only(claim(), [*runs, *again])) == [2, 2, 2, 2]


def test_two_folders_that_say_they_are_one_run_and_are_not(tmp_path):
    runs = both(tmp_path / "a")
    shutil.copytree(runs[0].folder, tmp_path / "b" / runs[0].folder.name)
    other = edited(tmp_path / "b" / runs[0].folder.name, engine=engine(version="6"))
    with pytest.raises(InputError, match=r"say they are one run and are not alike"):
        evidence.cases(claim(), [*runs, other])


@pytest.mark.parametrize("renamed", [False, True])
def test_a_trial_is_found_by_whatever_path_its_runs_are_named(tmp_path, renamed):
    runs = both(tmp_path / "results", each=3)
    blocks = [(f"sparse-{n}", f"thick-{n}") for n in range(3)]
    ledger.write(tmp_path / "results", trial(claim(), blocks, looks=(2,)))
    (tmp_path / "elsewhere").mkdir()
    for run in runs:
        (tmp_path / "elsewhere" / (f"x-{run.folder.name}" if renamed else run.folder.name)).symlink_to(
            run.folder
        )
    case = only(claim(), store.find([tmp_path / "elsewhere"]))
    assert case.looks == (0.5,)
    assert values(case) == [2, 2, 2, 2]


def test_a_copy_elsewhere_beside_the_trial_hides_no_trial(tmp_path):
    both(tmp_path / "results", each=3)
    shutil.copytree(tmp_path / "results", tmp_path / "copy")
    blocks = [(f"sparse-{n}", f"thick-{n}") for n in range(3)]
    ledger.write(tmp_path / "results", trial(claim(), blocks, looks=(2,)))
    assert only(claim(), store.find([tmp_path / "copy", tmp_path / "results"])).looks == (0.5,)


def test_a_look_counts_starts_that_have_no_place_beside_the_others(tmp_path):
    runs = [run for n in range(2) for run in (sealed(tmp_path, f"s{n}"), sealed(tmp_path, f"t{n}", "thick"))]
    runs += [sealed(tmp_path, "s2", engine=engine(version="6")), sealed(tmp_path, "t2", "thick")]
    ledger.write(tmp_path, trial(claim(), [(f"s{n}", f"t{n}") for n in range(3)], looks=(2, 3)))
    (doubt,) = only(claim(), runs).doubts
    assert doubt.startswith("1 of the 6 runs of trial of-a-test-1 are of another machine")


# ------------------------------------------------------------------------- what is no start, no model


def test_windows_of_one_engine_start_are_no_starts(tmp_path):
    runs = [sealed(tmp_path, name, name, starts=4) for name in ("sparse", "thick")]
    for run in runs:
        windows = tuple(msgspec.structs.replace(each, engine_start=0) for each in run.manifest.windows)
        edited(run.folder, windows=windows)
    case = only(claim(), store.find([tmp_path]))
    assert values(case) == [1, 1, 1, 1]
    assert judge.ruling(case).verdict == "undecided"


def test_runs_that_share_an_engine_start_are_one(tmp_path):
    """Of a sweep whose cells differ in what shapes no request, such as the length of a window."""
    for name in ("sparse", "thick"):
        for n in range(4):
            sealed(tmp_path, f"{name}-{n}", name)
            edited(tmp_path / f"{name}-{n}", engine_from=f"{name}-0" if n % 2 else None, unix_ns=n)
    runs = store.find([tmp_path])
    assert set(values(only(claim(), runs))) == {2}  # 2; and 0 with 1 and 3
    (pair,) = sides.pairs(claim(), sides.starts(runs))
    (found,) = cells.places([Cell()], pair, depends_on_load=False)
    assert (len(found.subject), len(found.baseline)) == (2, 2)


def test_runs_of_a_server_that_was_up_before_may_be_of_one_start(tmp_path):
    here = EngineFacts(kind="endpoint", version="0.9", device="none", weights="remote")
    (doubt,) = only(claim(), both(tmp_path, each=3, engine=here)).doubts
    assert doubt.startswith(
        "sparse, thick: a server that was up before: its runs may all be of one engine start"
    )


def test_a_folder_that_is_called_like_another_model(tmp_path):
    asked = claim(subject=Models(names=("Qwen/Qwen3-30B-A3B",)))
    runs = [sealed(tmp_path, f"s{n}", "sparse") for n in range(2)]
    runs += [sealed(tmp_path, f"t{n}", "thick") for n in range(2)]
    for n in range(2):
        run = store.load(tmp_path / f"s{n}")
        edited(run.folder, model=msgspec.structs.replace(run.manifest.model, name="Qwen3-30B-A3B"))
    (doubt,) = only(asked, store.find([tmp_path])).doubts
    assert doubt.startswith("Qwen3-30B-A3B: its config has 1e-06 (1e-07 active) billion parameters")
    assert not any("thick" in line for line in only(asked, store.find([tmp_path])).doubts)


def test_what_is_computed_is_not_of_a_folder_that_is_called_like_another_model(tmp_path):
    """Its config is at hand, and the catalog's counts all the same."""
    config = catalog.tiny_models()["tiny-moe"]
    fake = Model(name="Qwen3-14B", weights="local", config=config, facts=arch.model_facts(config, "x"))
    run = store.RunResult(tmp_path, make.manifest("r", model=fake))
    assert configs.held("Qwen/Qwen3-14B", None, [run]).shape.total_params > 1e10
    called = msgspec.structs.replace(fake, name="tiny-dense")
    other = store.RunResult(tmp_path, make.manifest("r", model=called))
    dense = arch.model_facts(catalog.tiny_models()["tiny-dense"], "x").total_params
    assert configs.held("tiny-dense", None, [other]).shape.total_params == dense
    unknown = msgspec.structs.replace(fake, name="mine")
    own = store.RunResult(tmp_path, make.manifest("r", model=unknown))
    assert configs.held("mine", None, [own]).shape.total_params < 1e9


def test_every_model_of_the_catalog_is_itself():
    for name, entry in catalog.models().items():
        facts = arch.model_facts(entry.config, name)
        run = make.manifest("r", model=Model(name=name, weights="hub", facts=facts))
        assert list(comparable._another_model(run)) == [], name


def test_one_simulated_board_in_a_side_is_enough(tmp_path):
    made_up = ProbeStatus(probe="rapl", usable=True, detail="made up: a trial")
    runs = both(tmp_path)
    edited(runs[2].folder, probes=(made_up,))  # the second start of the subject
    assert "sparse: the boards are simulated" in only(claim(), store.find([tmp_path])).doubts


# ------------------------------------------------------------------------------------ unlike meters


def with_facts(runs, number, **facts):
    for found in replicas.figures_of_starts([runs[number]])[0][1]:
        found.facts.update(facts)


@pytest.mark.parametrize(
    ("metric", "fact", "said"),
    [
        (
            "energy_j_per_output_token",
            "energy_boundary",
            "the energy is of unlike things: cpu package and gpu",
        ),
        ("power_w_mean", "energy_boundary", "the energy is of unlike things: cpu package and gpu"),
        ("energy_net_j_per_output_token", "idle_kind", "the idle power that is taken off is of unlike kinds"),
        ("energy_facility_j_per_output_token", "pue", "the runs were made with a different PUE"),
        ("output_tokens_per_s", "pue", None),
        ("output_tokens_per_s", "energy_boundary", None),
    ],
)
def test_what_was_metered_must_be_the_same_thing(tmp_path, metric, fact, said):
    runs = both(tmp_path, batches=(1,))
    for number in range(4):
        with_facts(runs, number, **{fact: "cpu package" if number == 1 else "gpu"})
    doubts = only(claim(metric=metric), runs).evidence[0].doubts
    assert any(said in line for line in doubts) if said else doubts == ()


def under(**changes):
    return msgspec.structs.replace(make.SCENARIO, **changes)


def of_unlike_plans(out, metric="output_tokens_per_s", **changes):
    runs = [sealed(out, f"s{n}") for n in range(2)]
    runs += [sealed(out, f"t{n}", "thick", scenario=under(**changes)) for n in range(2)]
    return only(claim(metric=metric), runs).evidence[0].doubts


@pytest.mark.parametrize(
    ("measure", "doubts"),
    [
        (Measure(repeats=1, warmup_s=0), ("warm-ups of 0 s and of 5 s",)),
        (Measure(repeats=1, window_s=3), ("windows of 3 s and of 30 s",)),
        (Measure(repeats=1, window_s=20), ()),
        (Measure(repeats=4), ()),
        (Measure(), ()),  # adaptive: as many windows as it takes
    ],
)
def test_windows_see_the_same_stretch_on_both_sides(tmp_path, measure, doubts):
    assert of_unlike_plans(tmp_path, measure=measure) == doubts


def test_goodput_under_other_limits_is_another_figure(tmp_path):
    lax = {"slo": {"ttft_p99_s": 10.0}}
    (doubt,) = of_unlike_plans(tmp_path, "goodput_requests_per_s", **lax)
    assert doubt == "what was good enough is unlike: no limit and ttft_p99_s 10 s"
    assert of_unlike_plans(tmp_path / "speed", **lax) == ()


def test_arguments_that_a_claim_asks_of_one_side_are_told(tmp_path):
    """They differ on purpose, and whoever reads the verdict sees which."""
    slow = under(engine=EngineSettings(args={"max_num_seqs": 1, "seed": 3}))
    runs = [sealed(tmp_path, f"s{n}") for n in range(2)]
    runs += [sealed(tmp_path, f"t{n}", "thick", scenario=slow) for n in range(2)]
    case = only(claim(plan=Plan(set={"baseline.engine.args.max_num_seqs": 1})), runs)
    assert case.doubts == ()
    assert case.setting.engine.endswith("bfloat16, subject: none, baseline: max_num_seqs = 1")


def test_who_tolerates_failures_has_measured_the_rest(tmp_path):
    """A recipe may; a claim does not."""
    runs = both(tmp_path, scenario=under(max_failed_frac=1.0))
    with_facts(runs, 0, requests_failed=20, requests_ok=20)
    (doubt,) = only(claim(), runs).evidence[0].doubts
    assert doubt.startswith("sparse: 20 of 40 requests failed")


# --------------------------------------------------------------------------------------- open lengths


def told(out, name, model, lengths):
    """A run whose answers another tool summed up, of such a mean length."""
    run = sealed(out, name, model)
    point = LoadPoint(mode="closed", concurrency=1)
    figures = {"output_tokens_mean": Estimate(lengths), "output_tokens_per_s": Estimate(100.0)}
    imported = Imported(
        tool="a tool", file="f", sha256="0", points=(ImportedPoint(point=point, figures=figures),)
    )
    scenario = msgspec.structs.replace(
        make.SCENARIO,
        load=Load(concurrency=(1,)),
        workload=msgspec.structs.replace(make.SCENARIO.workload, input_tokens=None, output_tokens=None),
    )
    return edited(run.folder, imported=imported, windows=(), scenario=scenario)


@pytest.mark.parametrize(("theirs", "is_doubted"), [(617.0, False), (700.0, True)])
def test_lengths_that_nobody_asked_for_are_alike_within_five_percent(tmp_path, theirs, is_doubted):
    """614 and 617 are one place, whatever two digits they round to; and what is shown is why not."""
    runs = [told(tmp_path, "s", "sparse", 614.0), told(tmp_path, "t", "thick", theirs)]
    case = only(claim(cells=(Grid(batch=(1,)),)), runs)
    (cell,) = case.evidence
    assert (cell.subject.values, cell.baseline.values) == ((100.0,), (100.0,))
    assert any("tokens against 700" in line for line in cell.doubts) == is_doubted
    assert cell.cell.output_tokens == (None if is_doubted else 620)  # no length is that of both
    assert not any("other kinds" in line for line in cell.doubts)
    assert case.doubts == ("sparse, thick: measured by a tool, whose machine and settings are not known",)


# ------------------------------------------------------------------------------------------ crossovers


@pytest.mark.parametrize("values", [(2.0, 2.001), (2.0, 2.0, 2.0)])
def test_what_may_give_no_verdict_shows_no_crossover(values):
    """Two starts, or starts without any scatter, have an interval that means nothing."""
    above = cases.evidence(Side(values=values), batch=1)
    below = cases.evidence(0.5, batch=8)
    found = judge.ruling(cases.case(above, below))
    assert [each.verdict for each in found.findings] == ["undecided", "refuted"]
    assert found.crossovers == ()
    sure = judge.ruling(cases.case(cases.evidence(2.0, batch=1), below))
    assert [at for at, _ in sure.crossovers] == [Cell()]


# ----------------------------------------------------------------------------------------- percentiles


def test_a_percentile_has_a_bootstrap_beside_it(tmp_path):
    asked = claim(metric="ttft_s_p90", relation="less", cells=(Grid(batch=(1,)),))
    (cell,) = only(asked, both(tmp_path, each=5, batches=(1,))).evidence
    (line,) = [note for note in cell.notes if note.startswith("hierarchical bootstrap")]
    assert line.startswith("hierarchical bootstrap over starts and blocks: ratio 0.5 [0.4")
    assert line.endswith("at 95 %")
    ratio = judge.ruling(only(asked, both(tmp_path / "few", each=4, batches=(1,)))).findings[0]
    assert not any("bootstrap" in note for note in ratio.evidence.notes)


def test_other_metrics_and_percentiles_of_nothing_have_none(tmp_path):
    runs = both(tmp_path, each=5, batches=(1,))
    assert not any("bootstrap" in note for note in only(claim(), runs).evidence[0].notes)


# ------------------------------------------------------------------------------------- edited records


def looked(n, frac):
    return ledger.Look(starts=n, frac=frac, verdict="undecided", why="x", decision="go on")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"looks": (looked(2, 1.0),)}, "the share of its starts that a look saw is not what it says"),
        ({"looks": (looked(2, 0.5), looked(2, 0.5))}, "its looks at 2, 2 starts are not of the 2 it holds"),
        ({"looks": (looked(3, 0.75),)}, "its looks at 3 starts are not of the 2 it holds"),
        ({"looks_at": (4, 2)}, "its planned looks do not rise"),
        ({"looks_at": ()}, "its planned looks do not rise"),
    ],
)
def test_a_ledger_that_somebody_edited_is_refused(tmp_path, changes, said):
    good = trial(claim(), [("s0", "t0"), ("s1", "t1")], looks=(2,))
    ledger.write(tmp_path, good)
    assert ledger.read_all(tmp_path) == [good]
    ledger.write(tmp_path, msgspec.structs.replace(good, **changes))
    with pytest.raises(InputError, match=f"{said}: this record of a trial was changed by hand"):
        ledger.read_all(tmp_path)


def test_a_run_that_a_ledger_holds_twice_is_refused(tmp_path):
    ledger.write(tmp_path, trial(claim(), [("s0", "t0"), ("s0", "t1")], looks=(2,)))
    with pytest.raises(InputError, match="a run is held twice"):
        ledger.read_all(tmp_path)


def test_figures_of_a_trial_of_another_wording_say_so(tmp_path):
    runs = both(tmp_path)
    blocks = [("sparse-0", "thick-0"), ("sparse-1", "thick-1")]
    ledger.write(tmp_path, trial(claim(factor=1.5), blocks, looks=(2,)))
    note = only(claim(), runs).evidence[0].notes[-1]
    assert note.startswith("figures held for another wording of this claim")
    assert note.endswith("trial of-a-test-1")
    other = only(claim(id="another"), runs)
    assert not any("wording" in note for note in other.evidence[0].notes)


def test_a_trial_after_others_says_so(tmp_path):
    runs = both(tmp_path)
    held = trial(claim(), [("sparse-0", "thick-0"), ("sparse-1", "thick-1")], looks=(2,))
    ledger.write(tmp_path, held)
    assert not any("before" in note for note in only(claim(), runs).evidence[0].notes)
    ledger.write(tmp_path, msgspec.structs.replace(held, before=("of-a-test-0",)))
    assert "trials of this claim here before (of-a-test-0)" in only(claim(), runs).evidence[0].notes[-1]


# ---------------------------------------------------------------------------------------- whose claim


def test_a_file_with_the_id_of_a_shipped_claim_is_not_that_claim():
    """The command would hold a trial of the other."""
    shipped = next(each for each in reading.shipped() if each.id == "qwen1.5-moe-1.74x")
    assert making.command(shipped) == "profile claims run qwen1.5-moe-1.74x"
    mine = msgspec.structs.replace(shipped, factor=1.2)
    assert making.command(mine) == "profile claims run qwen1.5-moe-1.74x.toml"


# -------------------------------------------------------------------------------------- many runs


def test_the_figures_of_many_runs_are_made_at_once(tmp_path, monkeypatch):
    runs, asked = both(tmp_path), []
    made = index.groups

    def seen(paths, kind, progress=None, processes=1):
        asked.append((len(paths), processes))
        return made(paths, kind, progress, processes)

    monkeypatch.setattr(index, "groups", seen)
    found = docket.docket([claim(), claim(id="another")], runs, processes=7)
    assert [each for each in asked if each[0]] == [(4, 7)]
    assert found[0].findings[0].ratio is not None
