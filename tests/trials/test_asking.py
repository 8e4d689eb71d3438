"""From words to a planned trial: what is refused before it starts, what it will take, which trial goes on."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from profiler import pace, scenario, spending, trials
from profiler.claims import ledger, reading
from profiler.claims.nouns import Conditions, Grid, Models
from profiler.claims.nouns import Plan as TrialPlan
from profiler.errors import InputError
from profiler.progress import Quiet
from profiler.schema import Gpu
from profiler.trials import holding
from tests import make
from tests.trials import fake


def outline(out, **changes):
    return trials.outline(fake.asked(out, **changes))


def scenario_of(found, side):
    (plan,) = (plan for leg, plan in found.plans.items() if leg.side == side)
    return plan.scenario


# ------------------------------------------------------------------------------------------ what is planned


def test_a_plan_writes_nothing_and_says_what_it_takes(tmp_path):
    found = outline(tmp_path / "results", price="3.6")
    takes = found.trial.takes
    assert not list((tmp_path / "results").rglob("*.json"))
    assert takes.starts == 12
    assert takes.usd == pytest.approx(takes.seconds * 3.6 / 3600)
    assert found.trial.looks_at == (3, 6)
    assert 0 < takes.power < 1


def test_both_sides_are_asked_the_same_of_the_claim_and_of_the_plan(tmp_path):
    found = outline(tmp_path, claim=fake.claim(cells=(Grid(batch=(8, 1), input_tokens=(10,)),)))
    ours, theirs = (scenario_of(found, side) for side in ledger.SIDES)
    assert ours == theirs
    assert ours.load.concurrency == (1, 8)
    assert ours.workload.input_tokens == 10
    assert ours.measure.repeats == 1
    assert ours.measure.residency == "exclusive"
    assert ours.measure.window_s == 1
    assert ours.name == "trial-of-a-test"


def test_a_field_of_one_side_reaches_that_side_alone(tmp_path):
    planned = {**fake.SETS, "subject.engine.args.itl_s": 0.001}
    found = outline(
        tmp_path, claim=fake.claim(plan=TrialPlan(set=planned)), overrides=["baseline.engine.args.itl_s=0.5"]
    )
    assert [scenario_of(found, side).engine.args for side in ledger.SIDES] == [
        {"itl_s": 0.001},
        {"itl_s": 0.5},
    ]


def test_what_the_user_sets_comes_after_the_claim_s_own_plan(tmp_path):
    found = outline(tmp_path, overrides=["measure.window_s=7"])
    assert scenario_of(found, "subject").measure.window_s == 7


def test_idle_baselines_are_held_where_the_metric_needs_them_only(tmp_path):
    gross, net = (
        scenario_of(outline(tmp_path, claim=fake.claim(metric=metric, relation="less")), "subject")
        for metric in ("energy_j_per_output_token", "energy_net_j_per_output_token")
    )
    assert gross.telemetry.idle_s == 0
    assert net.telemetry.idle_s > 0


def test_the_digest_is_of_what_shapes_a_verdict_and_of_nothing_else():
    claim = fake.claim()
    same = msgspec.structs.replace(claim, text="in other words", tags=("fast",))
    assert ledger.digest(claim) == ledger.digest(same)
    for change in ({"factor": 2.0}, {"plan": TrialPlan(starts=9)}, {"cells": ()}, {"margin_frac": 0.1}):
        assert ledger.digest(msgspec.structs.replace(claim, **change)) != ledger.digest(claim)


# ------------------------------------------------------------------------------------------ what is refused


def quick_is(**models):
    return fake.claim(subject=Models(**models))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"claim": fake.claim(untestable="training is over")}, "cannot be tried: training is over"),
        ({"claim": fake.claim(plan=TrialPlan(starts=2))}, "3 a side are the least that a verdict rests on"),
        ({"claim": fake.claim(metric="active_params", cells=())}, "takes no measurement"),
        ({"claim": quick_is(api="closed/model")}, "trial: profile run the other side with a price, then"),
        (
            {"claim": fake.claim(subject=Models(api="a/a"), baseline=Models(api="b/b"))},
            "needs no trial: profile claims --claim",
        ),
        ({"claim": quick_is(kind="moe")}, "any moe model; say which: --model"),
        ({"claim": quick_is(names=("a/a", "b/b"))}, "a/a or b/b; say which"),
        ({"models": ["test/quick"]}, "name both"),
        ({"models": ["other/quicker", "test/slow"]}, "the subject of claim of-a-test is test/quick"),
        ({"engine": "vllm"}, "claim of-a-test is of simulated"),
        (
            {"claim": fake.claim(conditions=Conditions(engine="endpoint"))},
            "is of engine endpoint, and a trial starts its engines itself: profile run --url",
        ),
        ({"engine": "endpoint", "claim": fake.claim(conditions=Conditions())}, "starts its engines itself"),
        ({"overrides": ["load.concurrency=9"]}, "what claim of-a-test itself says"),
        ({"overrides": ["subject.load.mode=open"]}, "what claim of-a-test itself says"),
        ({"overrides": ["workload.input_tokens=9"]}, "the lengths of claim of-a-test are in its cells"),
        ({"overrides": ["measure.residency=resident"]}, "itself says"),
        ({"overrides": ["measure.nothing=1"]}, "unknown key"),
        ({"claim": fake.claim(metric="usd_per_m_output_tokens")}, "needs a price"),
        ({"claim": fake.claim(conditions=Conditions(weights="any"))}, "the engine is simulated"),
        ({"budget": "soon"}, "--budget"),
        ({"budget": "10"}, "expected a time or a sum"),
        ({"budget": ""}, "expected a time or a sum"),
        ({"budget": "3min,4min"}, "expected a time or a sum"),
        ({"budget": "5usd,6usd", "price": "1"}, "expected a time or a sum"),
        ({"budget": "5usd"}, "needs a price"),
        ({"budget": "0s"}, "nothing"),
        ({"budget": "1s"}, "take about 1 min (engine starts as usual; windows at their shortest"),
        ({"budget": "0.0001usd", "price": "1"}, "3 engine starts a side are the least"),
    ],
)
def test_what_cannot_bear_on_the_claim_is_refused_before_the_start(tmp_path, changes, says):
    if changes.get("claim") is not None and "simulated" in says:
        changes = {**changes, "engine": "simulated"}
    with pytest.raises(InputError) as refused:
        outline(tmp_path, **changes)
    assert says in str(refused.value)
    assert not list(tmp_path.rglob("*.json"))


def test_random_weights_are_refused_where_the_claim_is_of_trained_ones(tmp_path):
    pytest.importorskip("torch")
    claim = fake.claim(
        subject=Models(names=("tiny-moe",)), baseline=Models(names=("tiny-dense",)), conditions=Conditions()
    )
    with pytest.raises(InputError, match="random weights, and the claim is of trained ones"):
        outline(tmp_path, claim=claim, engine="transformers")


def test_random_weights_are_refused_of_one_model_that_answers_in_two_ways_too(tmp_path):
    pytest.importorskip("torch")
    (thinks,) = reading.named(["thinking-costs-8x-per-answer"])
    words = {"engine": "transformers", "models": ["tiny-moe"], "price": "1"}
    with pytest.raises(InputError, match="tiny-moe: random weights, and the claim is of trained ones"):
        outline(tmp_path, claim=thinks, **words)


def test_a_machine_that_the_claim_is_not_of_is_named_before_whether_the_model_fits(tmp_path):
    claim = fake.claim(
        subject=Models(names=("deepseek-ai/DeepSeek-V3",)), conditions=Conditions(gpus=("H20 96GB",))
    )
    with pytest.raises(InputError, match="of H20 96GB, and this machine has none"):
        outline(tmp_path, claim=claim)


# ------------------------------------------------------------------------------------------ the budget


def test_without_a_budget_a_trial_ends_at_twice_what_was_announced_and_goes_on_by_the_same_words(tmp_path):
    trial = kept(tmp_path)
    assert trial.budget == spending.Budget(seconds=2 * trial.takes.seconds, given=False)
    ledger.write(tmp_path, msgspec.structs.replace(trial, spent_s=1000.0))
    again = outline(tmp_path).trial
    assert again.budget == spending.Budget(seconds=1000 + 2 * trial.takes.seconds, given=False)
    assert outline(tmp_path, budget="1h").trial.budget == spending.Budget(seconds=3600)


def test_a_budget_plans_as_many_starts_as_it_pays_for_and_looks_at_those(tmp_path):
    each = outline(tmp_path).trial.takes.seconds / 6
    trial = outline(tmp_path, budget=f"{4.5 * each:.0f}s").trial
    assert trial.looks_at == (3, 4)
    assert trial.takes.seconds <= trial.budget.seconds


# ------------------------------------------------------------------------------------------ which goes on


def kept(out, **changes):
    """As if this trial had been begun."""
    found = outline(out, **changes).trial
    ledger.write(out, found)
    return found


def test_the_same_words_mean_the_open_trial_and_others_another(tmp_path):
    trial = kept(tmp_path)
    assert outline(tmp_path, seed=None).trial.id == trial.id
    assert outline(tmp_path, seed=1).trial.id == trial.id
    assert outline(tmp_path, seed=5).is_new
    assert outline(tmp_path, overrides=["measure.window_s=2"]).is_new
    assert outline(tmp_path, claim=fake.claim(factor=2.0)).is_new
    assert outline(tmp_path, claim=fake.claim(text="another wording"), seed=None).trial.id == trial.id


def test_a_trial_goes_on_where_it_began_and_nowhere_else(tmp_path):
    trial = kept(tmp_path)
    moved = msgspec.structs.replace(trial, machine={**trial.machine, "CPU": "another"})
    ledger.write(tmp_path, moved)
    with pytest.raises(InputError, match=r"begun on another machine or software: CPU another ≠ "):
        outline(tmp_path)


def test_a_trial_whose_runs_are_gone_is_not_gone_on_with(tmp_path, monkeypatch):
    """Else the next look, hours later, would find that out."""
    monkeypatch.setattr(holding, "execute", fake.Engine(1.5))
    trial = trials.hold(outline(tmp_path), Quiet(), lambda *_: None)
    shutil.rmtree(tmp_path / trial.runs()[1])
    for status in ("open", "ended"):
        ledger.write(tmp_path, msgspec.structs.replace(trial, status=status))
        with pytest.raises(InputError, match=rf"{trial.runs()[1]}\); bring them back, or begin another"):
            outline(tmp_path)
    assert outline(tmp_path, seed=9).is_new


def test_a_claim_that_was_changed_after_a_trial_of_it_says_so(tmp_path):
    trial = kept(tmp_path)
    same = outline(tmp_path, claim=fake.claim(text="another wording"), seed=None)
    other = outline(tmp_path, claim=fake.claim(factor=2.0))
    assert same.notes == ()
    assert other.notes == (
        f"claim of-a-test said something else in {trial.id}: runs of those do not count here",
    )


def test_an_open_trial_goes_before_one_that_has_ended(tmp_path):
    ended = msgspec.structs.replace(kept(tmp_path), status="ended")
    ledger.write(tmp_path, ended)
    assert outline(tmp_path, seed=None).trial.id == ended.id
    begun = kept(tmp_path, seed=2)
    assert begun.before == (ended.id,)
    assert outline(tmp_path, seed=None).trial.id == begun.id


# ------------------------------------------------------------------------------------------ the pace


def test_earlier_runs_of_the_model_say_how_long_starts_and_windows_take(tmp_path, monkeypatch):
    before = outline(tmp_path)
    assert before.trial.takes.grounds[0] == "engine starts as usual"
    for leg, plan in before.plans.items():
        name = plan.models[0].name
        window, records = make.steady(0, 10.0, point=scenario.points(plan.scenario)[0])
        run = make.writer(
            tmp_path,
            [(window, records)],
            run_id=f"{name.rpartition('/')[2]}-x-20260101T000000Z-{leg.side}",
            scenario=plan.scenario,
            model=plan.models[0],
            settings=plan.settings[0],
            host=plan.host,
            starts_s=(33.0,),
        )
        run.seal()
    takes = outline(tmp_path).trial.takes
    assert takes.start_s == pytest.approx(33 * 12)
    assert takes.windows_s == pytest.approx(12 * 12)  # 10 s and a second on each side
    assert takes.grounds == ("engine starts as in earlier runs", "windows as in earlier runs")


def test_on_a_known_gpu_windows_are_as_long_as_the_predictor_says(tmp_path):
    """A model that is not at hand on a board that is not here: what a plan of it would take."""
    claim = fake.claim(
        subject=Models(names=("Qwen/Qwen3-8B",)),
        baseline=Models(names=("Qwen/Qwen3-14B",)),
        cells=(Grid(batch=(1, 64), input_tokens=(1000,), output_tokens=(1000,)),),
    )
    found = outline(tmp_path, claim=claim)
    gpu = Gpu(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", memory_bytes=80 << 30)
    took = []
    for plan in found.plans.values():
        host = msgspec.structs.replace(plan.host, gpus=(gpu,))
        settings = msgspec.structs.replace(plan.settings[0], kind="vllm", tensor_parallel=1)
        model = msgspec.structs.replace(plan.models[0], config={})
        here = msgspec.structs.replace(plan, host=host, settings=(settings,), models=(model,))
        took.append(pace.leg_takes(here, []))
    assert all("windows as predicted" in each.grounds for each in took)
    ours, theirs = took
    assert 0 < ours.windows_s < theirs.windows_s
    assert ours.start_s > pace.START_S["vllm"]


def test_what_no_plan_may_set_names_where_it_stands(tmp_path):
    claim = fake.claim(plan=TrialPlan(set={"load.mode": "open"}))
    with pytest.raises(InputError, match=r'^plan\.set load\.mode="open"'):
        outline(tmp_path, claim=claim)
