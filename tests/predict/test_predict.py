"""Predictions with intervals: what they say, when they widen, how fast they come."""

from __future__ import annotations

import math
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest

from profiler import predict
from profiler.arch import work
from profiler.predict.posterior import NAMES, noise, priors
from tests.predict.cases import A100, BIG, H20, H100, MOE, SMALL, deployed, load

KNOWN = load(64, 300, 500)  # inside everything that was fitted


def width(found: predict.Interval) -> float:
    return float(np.log(found.high / found.low))


def test_every_figure_has_an_interval_around_it():
    found = predict.predict(deployed(MOE), load(np.array([[1], [64]]), np.array([100, 1000, 9000])))
    for metric in predict.METRICS:
        each = getattr(found, metric)
        assert each.value.shape == (2, 3)
        assert np.all((each.low < each.value) & (each.value < each.high))
    assert found.bound_by.shape == found.extrapolated.shape == (2, 3)


def test_inside_what_was_fitted_nothing_is_extrapolated():
    found = predict.predict(deployed(BIG), KNOWN)
    assert not found.extrapolated
    assert found.reasons == {}
    assert width(found.tpot_s) < 0.4


def test_a_model_and_a_board_that_were_not_measured_may_differ():
    found, scores = predict.predict(deployed(BIG), KNOWN), predict.fitted().scores
    for metric, own in (("tpot_s", noise().model), ("power_w_mean", noise().board)):
        assert width(getattr(found, metric)) > 2 * scores[metric] * own


@pytest.mark.parametrize(
    ("what", "at", "reason"),
    [
        (deployed(BIG, A100), KNOWN, "no A100 SXM4 80GB was among those fitted"),
        (deployed(BIG), load(1, 300, 500), "outside the 8 to 1,019 sequences at once"),
        (deployed(BIG), load(64, 30_000, 500), "tokens of context"),
        (deployed("Qwen/Qwen2.5-0.5B"), KNOWN, "billion parameters"),
        (deployed(BIG, tensor=8, expert=16), KNOWN, "outside the 1 to 8 GPUs"),
        (deployed(BIG, execution="eager"), KNOWN, "no eager execution"),
    ],
)
def test_outside_it_says_so_and_widens(what, at, reason):
    found, inside = predict.predict(what, at), predict.predict(deployed(BIG), KNOWN)
    assert found.extrapolated
    assert any(reason in each for each in found.reasons), found.reasons
    assert width(found.tpot_s) > width(inside.tpot_s)


def test_another_arithmetic_says_so():
    what = msgspec.structs.replace(
        deployed(), widths=work.Widths(routed=4, other=4, embedding=4, compute="fp32")
    )
    what = msgspec.structs.replace(what, gpu=msgspec.structs.replace(what.gpu, dense_fp32_tflops=60.0))
    assert any("fp32" in reason for reason in predict.predict(what, KNOWN).reasons)


def test_only_the_cells_outside_are_marked():
    found = predict.predict(deployed(BIG), load(np.array([1, 64, 9000]), 300, 500))
    assert found.extrapolated.tolist() == [True, False, True]
    (where,) = found.reasons.values()
    assert where.tolist() == [True, False, True]


def test_no_interval_goes_beyond_what_the_boards_may_draw():
    what = deployed(BIG, H20, tensor=2)
    found = predict.predict(what, load(np.array([1, 64, 1024])))
    power, energy = found.power_w_mean, found.energy_j_per_output_token
    assert power.high.max() == pytest.approx(2 * what.gpu.tdp_w), "it matters"
    assert np.all(energy.high <= power.high.max() / found.output_tokens_per_s.low * (1 + 1e-9))


def test_beyond_one_machine_the_link_is_said_to_be_assumed():
    def said(gpus, gpu=H100):
        return [
            each for each in predict.predict(deployed(BIG, gpu, tensor=gpus), KNOWN).reasons if "span" in each
        ]

    assert said(16)
    assert not said(8)
    assert not said(16, "GB200 NVL72 (per GPU)")


def test_unmeasured_routing_widens_a_moe():
    unknown, uniform = (predict.predict(deployed(MOE, cv=cv), KNOWN) for cv in (None, 0.0))
    assert any("experts" in reason for reason in unknown.reasons)
    assert not any("experts" in reason for reason in uniform.reasons)
    assert width(unknown.tpot_s) > width(uniform.tpot_s)


def test_what_could_not_be_counted_is_a_reason():
    what = deployed()
    partial = msgspec.structs.replace(what, shape=msgspec.structs.replace(what.shape, missing=("a tower",)))
    assert "not counted: a tower" in predict.predict(partial, KNOWN).reasons


def test_the_first_token_is_the_least_sure_of():
    found = predict.predict(deployed(BIG), KNOWN)
    assert width(found.ttft_s) > width(found.tpot_s)


def test_what_binds_follows_the_batch():
    small = deployed("Qwen/Qwen2.5-0.5B", H20)
    found = predict.predict(small, load(np.array([1, 4096]), 1, 2)).bound_by
    assert found[0] == "launch"
    assert predict.predict(deployed(BIG, H20), load(2048, 1, 2000)).bound_by == "compute"
    assert predict.predict(deployed(BIG), load(1)).bound_by == "bandwidth"


def test_a_ratio_is_that_of_the_two_and_narrower_than_both():
    moe, dense = deployed(MOE), deployed(BIG)
    found = predict.ratio(moe, dense, KNOWN)
    sides = [predict.predict(each, KNOWN).tpot_s for each in (moe, dense)]
    assert found.value == pytest.approx(sides[1].value / sides[0].value)
    assert width(found) < width(sides[0]) + width(sides[1])


def test_a_deployment_against_itself_is_one():
    """Its coefficients cancel; what is left is how two models differ that nothing tells apart."""
    found = predict.ratio(deployed(BIG), deployed(BIG), KNOWN)
    own = noise().model ** 2 + noise().time ** 2
    assert found.value == 1
    assert width(found) == pytest.approx(2 * predict.fitted().scores["tpot_s"] * math.sqrt(2 * own))


def test_a_map_has_the_intervals_of_its_cells():
    batch, context = np.geomspace(1, 512, 20)[:, None], np.geomspace(128, 32768, 20)[None, :]
    whole = predict.ratio(deployed(MOE), deployed(BIG), load(batch, context, 256))
    for row, column in ((0, 0), (3, 17), (11, 5), (19, 19)):
        cell = predict.ratio(deployed(MOE), deployed(BIG), load(batch[row, 0], context[0, column], 256))
        assert whole.value[row, column] == pytest.approx(cell.value, rel=1e-3)
        assert np.log(whole.high[row, column]) == pytest.approx(np.log(cell.high), abs=0.06)


def test_an_arrival_rate_settles_where_it_is_served():
    what, at = deployed(BIG), load(1, 500, 200)
    rates = np.array([0.1, 1.0, 3.0])
    under_way = predict.at_rate(what, rates, at)
    served = predict.figures(what, load(under_way, 500, 200)).output_tokens_per_s / 200
    assert served[1:] == pytest.approx(rates[1:], rel=0.01)
    assert under_way[0] == pytest.approx(1, rel=0.01)
    assert np.isnan(predict.at_rate(what, 1e5, at))


@pytest.mark.timing
def test_a_crossover_map_comes_at_once():
    """40 × 40 cells, 5 GPUs, 4 models, within a second."""
    batch, context = np.geomspace(1, 512, 40)[:, None], np.geomspace(128, 32768, 40)[None, :]
    gpus = (H100, H20, A100, "L40S 48GB", "RTX 4090 24GB")
    cases = [deployed(model, gpu) for gpu in gpus for model in (MOE, BIG, SMALL, "Qwen/Qwen3-14B")]
    started = time.perf_counter()
    for moe, *rivals in (cases[i : i + 4] for i in range(0, 20, 4)):
        for dense in rivals:
            predict.ratio(moe, dense, load(batch, context, 256))
    assert time.perf_counter() - started < 1


def test_prediction_needs_neither_torch_nor_scipy():
    code = (
        "import sys; from tests.predict.cases import deployed, load; from profiler import predict;"
        "predict.predict(deployed(), load(8)); print(*{'torch', 'scipy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_every_coefficient_has_meaning_unit_and_source():
    assert set(priors()) == set(NAMES)
    for prior in priors().values():
        assert prior.unit
        assert prior.meaning
        assert prior.source
        assert prior.value > 0


def test_fitted_coefficients_are_physical():
    c = predict.fitted().coefficients(deployed().shape)
    for name in NAMES:
        assert getattr(c, name) > 0
    for name in ("weight_bandwidth_frac", "cache_bandwidth_frac", "matrix_rate_frac", "link_frac"):
        assert getattr(c, name) <= 1
    assert c.overlap_power >= 0.9
    assert c.idle_power_frac + c.bandwidth_power_frac < 1
    assert c.model_factor == c.board_factor == 1


def test_experts_on_narrower_tensor_cores_widen_the_interval_and_say_why():
    narrow, wide = (predict.predict(deployed(MOE, board), KNOWN) for board in (H20, H100))
    assert any("narrower" in reason for reason in narrow.reasons)
    assert not any("narrower" in reason for reason in wide.reasons)
    dense = predict.predict(deployed(BIG, H20), KNOWN)
    assert not any("narrower" in reason for reason in dense.reasons)
    assert width(narrow.tpot_s) > width(dense.tpot_s)
