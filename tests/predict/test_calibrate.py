"""Points in, coefficients out; and the shipped fit, made again."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.prediction import fit as shipped
from benchmarks.prediction import rows, rules
from profiler import predict, store
from profiler.errors import InputError
from profiler.predict import fitting
from profiler.predict.posterior import NAMES
from profiler.predict.steady import mix, steady
from profiler.predict.uncertain import replaced
from profiler.schema import LoadPoint
from tests import make
from tests.predict.cases import A100, BIG, H100, MOE, SMALL, deployed, load

BATCHES = (1, 8, 64)


def point(what: predict.Deployment, concurrency: float, **other: float) -> predict.Point:
    """As a machine of other coefficients than the fitted ones would be measured."""
    c = predict.fitted().coefficients(what.shape)
    for name, factor in other.items():
        c = replaced(c, name, getattr(c, name) * factor)
    at = load(concurrency)
    found = steady(mix(what, at, c.expert_load_cv if what.routes else 0.0), c)
    figures = {
        name: float(getattr(found, name)) for name in ("tpot_s", "output_tokens_per_s", "power_w_mean")
    }
    return predict.Point(what=what, load=at, **figures)


@pytest.mark.parametrize("model", [BIG, MOE])
def test_a_few_points_teach_another_machine(model):
    other = {"weight_bandwidth_frac": 0.7, "kernel_s": 1.5, "idle_power_frac": 1.3}
    what = deployed(model, A100)
    given = predict.calibrate([point(what, batch, **other) for batch in BATCHES])
    truth = point(what, 24, **other)
    before, after = predict.predict(what, truth.load), predict.predict(what, truth.load, given)
    for metric in ("tpot_s", "power_w_mean"):
        seen, old, new = getattr(truth, metric), getattr(before, metric), getattr(after, metric)
        assert abs(new.value / seen - 1) < 0.04 < abs(old.value / seen - 1)
        assert new.high / new.low < old.high / old.low
        assert new.low < seen < new.high
    assert after.calibrated
    assert not before.calibrated
    assert not any("was among those fitted" in reason for reason in after.reasons)


def test_what_is_learnt_of_a_machine_serves_another_model():
    other = {"weight_bandwidth_frac": 0.7}
    given = predict.calibrate([point(deployed(BIG, A100), batch, **other) for batch in BATCHES])
    truth = point(deployed(SMALL, A100), 16, **other)
    error = [
        float(abs(predict.tpot_s(truth.what, truth.load, each) / truth.tpot_s - 1)) for each in (None, given)
    ]
    assert error[1] < error[0] / 2


def test_points_on_one_kind_of_gpu_leave_others_unsure():
    given = predict.calibrate([point(deployed(BIG, A100), batch) for batch in BATCHES])
    assert any("no H100" in each for each in predict.predict(deployed(BIG, H100), load(8), given).reasons)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=4))
def test_no_coefficient_turns_negative_whatever_was_measured(times):
    what = deployed()
    given = predict.calibrate(
        [predict.Point(what=what, load=load(2.0**i), tpot_s=tpot) for i, tpot in enumerate(times)]
    )
    c = given.coefficients(what.shape)
    assert all(getattr(c, name) > 0 for name in NAMES)
    assert np.all(np.linalg.eigvalsh(np.asarray(given.covariance)) > 0)


def test_energy_and_throughput_are_a_power():
    whole = point(deployed(), 8)
    energy = whole.power_w_mean / whole.output_tokens_per_s
    other = msgspec.structs.replace(whole, power_w_mean=None, energy_j_per_output_token=energy)
    assert fitting.rows([other])[0].measured["power_w_mean"][0] == pytest.approx(whole.power_w_mean)


def test_what_was_not_measured_moves_nothing():
    what = deployed()
    only = predict.calibrate([predict.Point(what=what, load=load(8), tpot_s=0.02)])
    before = predict.fitted()
    for name in ("idle_power_frac", "compute_power_frac"):
        at = NAMES.index(name)
        assert only.log_mean[at] == before.log_mean[at]
        assert only.covariance[at][at] == pytest.approx(before.covariance[at][at])


def test_no_point_is_refused():
    with pytest.raises(InputError, match="at least one"):
        predict.calibrate([])


def test_points_of_two_kinds_of_gpu_are_refused():
    with pytest.raises(InputError, match="A100 SXM4 80GB, H100 SXM5 80GB"):
        predict.calibrate([point(deployed(gpu=each), 8) for each in (A100, H100)])


@pytest.mark.parametrize(("figures", "said"), [({"tpot_s": 0.0}, "tpot_s = 0"), ({}, "no figure")])
def test_a_figure_that_cannot_be_is_refused(figures, said):
    with pytest.raises(InputError, match=said):
        predict.calibrate([predict.Point(what=deployed(), load=load(8), **figures)])


# ------------------------------------------------------------------------------------ the shipped fit


@pytest.fixture(scope="module")
def known():
    return shipped.points()


def test_the_shipped_coefficients_are_those_of_the_rows(known):
    again = shipped.rounded(shipped.fitted_to([each for _, each in known]))
    made = shipped.rounded(predict.fitted())
    assert made["log_mean"] == pytest.approx(again["log_mean"], abs=0.02)
    assert np.asarray(made["covariance"]) == pytest.approx(
        np.asarray(again["covariance"]), rel=0.05, abs=1e-3
    )
    assert made["hull"] == again["hull"]


def test_a_moe_is_predicted_from_dense_models_alone(known):
    """Zero-shot, with the experts counted as we do; and the better for it than by any rival rule."""
    base = shipped.fitted_to([each for _, each in known if not each.what.routes])
    error = {}
    for rule in rules.RULES:
        moe = [(row, rules.seen_by(rule, each)) for row, each in known if each.what.routes]
        with rules.in_force(rule):
            missed = [each for each in shipped.misses(moe, base) if each.metric == "itl_s_p50"]
        error[rule] = float(np.mean([abs(math.expm1(each.log_ratio)) for each in missed]))
    assert error[rules.OURS] < 0.15
    assert error[rules.OURS] < 0.5 * min(
        each for rule, each in error.items() if rule not in (rules.OURS, "uniform")
    )


def test_a_dense_model_left_out_is_predicted(known):
    shape = rows.shape("meta-llama/Llama-3.1-8B-Instruct")
    base = shipped.fitted_to([each for _, each in known if each.what.shape != shape])
    missed = shipped.misses([pair for pair in known if pair[1].what.shape == shape], base)
    assert np.mean([abs(each.log_ratio) for each in missed if each.metric == "itl_s_p50"]) < 0.08
    assert {each.metric for each in missed} == set(shipped.CHECKED)


def test_scores_are_the_quantile_of_what_was_missed():
    row = rows.rows("ml-energy")[0]
    shape = rows.shape(row.model)
    missed = [
        shipped.Miss(row=row, metric=metric, log_ratio=(-1) ** n * n / 100, sd=0.05)
        for n in range(1, 20)
        for metric in shipped.CHECKED
    ]
    assert shipped.scores({shape: missed})["itl_s_p50"] == pytest.approx(18 / 100 / 0.05)


def test_every_published_row_is_a_point():
    counts = {source: len(rows.rows(source)) for source in ("ml-energy", "qwen", "tensorrt-llm")}
    assert counts == {"ml-energy": 107, "qwen": 102, "tensorrt-llm": 70}
    for row in rows.rows("ml-energy"):
        assert row.itl_s_p50
        assert rows.point(row).load.backlog


# ------------------------------------------------------------------------------------- sealed runs


def test_a_sealed_run_gives_a_point_a_closed_load(tmp_path):
    closed = make.steady(0, 10.0)
    batch = make.steady(1, 30.0, point=LoadPoint(mode="batch", concurrency=4))
    rate = make.steady(2, 50.0, point=LoadPoint(mode="open", requests_per_s=5.0))
    run = make.writer(tmp_path, [closed, batch, rate])
    run.seal()
    found = predict.points_of(store.load(run.folder), deployed())
    assert [(each.load.concurrency, each.load.backlog) for each in found] == [(4, True), (1, False)]
    (alone,) = [each for each in found if not each.load.backlog]
    assert (alone.load.input_tokens, alone.load.output_tokens) == (10, 5)
    assert (alone.tpot_s, alone.ttft_s) == (pytest.approx(0.02), pytest.approx(0.1))
    assert alone.output_tokens_per_s == pytest.approx(25)
    assert alone.power_w_mean is None
