"""The model's limits, which no coefficient may bend."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler import predict
from profiler.arch import work
from profiler.arch.shape import Feed
from profiler.errors import InputError
from profiler.experts import distinct_skewed
from profiler.predict import demand, pace
from profiler.predict.steady import mix, steady
from tests.predict.cases import A100, BIG, H20, H100, MOE, SMALL, deployed, load

FITTED = predict.fitted()
PLAIN = FITTED.coefficients(deployed().shape)


def seconds(what, batch: work.Batch, c=PLAIN):
    return pace.pace(what, demand.demand(what, batch, 0.85), c)


def test_one_sequence_of_a_large_model_takes_its_bytes_over_the_bandwidth():
    what = deployed(BIG)
    step = seconds(what, work.Batch(decode_sequences=1, decode_context=0))
    read = work.weight_bytes(what.shape, what.widths) - 2 * what.shape.input_embedding_params
    floor = read / (3.35e12 * PLAIN.weight_bandwidth_frac)
    assert floor <= step.total_s < 1.2 * floor
    assert step.bandwidth_s / step.total_s > 0.85


def test_a_huge_batch_without_context_takes_its_flops_over_the_rate():
    what = deployed(SMALL)
    ends = [seconds(what, work.Batch(decode_sequences=n, decode_context=0)) for n in (100_000, 200_000)]
    products = 2 * (what.shape.total_params - what.shape.input_embedding_params) * 100_000
    more = ends[1].compute_s - ends[0].compute_s
    assert more == pytest.approx(products / (989e12 * PLAIN.matrix_rate_frac), rel=0.1)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([MOE, BIG]), st.integers(1, 2000), st.integers(1, 2000), st.integers(16, 8000))
def test_more_sequences_never_come_sooner(model, one, other, prompt):
    few, many = sorted((one, other))
    found = predict.figures(deployed(model), load(np.array([few, many]), prompt, 400))
    assert found.tpot_s[0] <= found.tpot_s[1] * (1 + 1e-9)
    assert found.ttft_s[0] <= found.ttft_s[1] * (1 + 1e-9)


def test_longer_contexts_take_longer():
    tpot = predict.tpot_s(deployed(), load(32, np.array([100, 1000, 10_000, 100_000])))
    assert np.all(np.diff(tpot) > 0)


def test_a_window_bounds_what_is_read():
    context = np.array([20_000.0, 40_000.0])
    windowed, full = deployed("google/gemma-3-27b-it"), deployed(BIG)
    growth = [predict.tpot_s(each, load(8, context, 100)) for each in (windowed, full)]
    assert growth[0][1] - growth[0][0] < 0.5 * (growth[1][1] - growth[1][0])


@pytest.mark.parametrize("model", [BIG, MOE])
def test_two_gpus_are_faster_but_not_twice(model):
    one = predict.tpot_s(deployed(model), load(16))
    two = predict.tpot_s(deployed(model, tensor=2), load(16))
    assert 0.5 * one < two < one


def test_a_slow_link_costs():
    fast = deployed(BIG, tensor=4)
    slow = msgspec.structs.replace(fast, gpu=msgspec.structs.replace(fast.gpu, nvlink_gbs=0))
    assert predict.tpot_s(slow, load(256)) > 1.2 * predict.tpot_s(fast, load(256))


def test_the_fullest_rank_makes_expert_parallel_steps():
    even = demand.demand(deployed(MOE, tensor=4, expert=4), work.Batch(decode_sequences=1 << 14), 0.0)
    skewed = demand.demand(deployed(MOE, tensor=4, expert=4), work.Batch(decode_sequences=1 << 14), 1.12)
    rows = [next(part.flops for part in each.parts if part.routed) for each in (even, skewed)]
    assert rows[1] / rows[0] == pytest.approx(1.2, rel=0.05)
    assert demand.imbalance(1) == 1.0
    assert demand.imbalance(64) == demand.imbalance(16)


def test_an_unpopular_expert_is_not_read():
    found = predict.tpot_s(deployed(MOE, cv=0.0), load(32)), predict.tpot_s(deployed(MOE, cv=1.12), load(32))
    assert found[1] < 0.9 * found[0]


def routed_flops(what, tokens: float) -> float:
    found = demand.demand(what, work.Batch(decode_sequences=tokens), 0.0)
    return next(part.flops for part in found.parts if part.routed)


def test_block_filling_counts_at_least_a_block_for_every_expert():
    what = deployed(MOE)
    ops = work.step(what.shape, what.widths, work.Batch(decode_sequences=1))
    plain = next(op.flops for op in ops if op.splits == "expert")
    assert routed_flops(what, 1) == pytest.approx(demand.SMALL_BLOCK * plain)


def test_narrow_tensor_cores_are_kept_busy_by_small_tiles():
    h100, a100, h20, b200 = (
        float(pace.grouped_frac(deployed(MOE, gpu), PLAIN)) for gpu in (H100, A100, H20, "B200 SXM 180GB")
    )
    assert h100 == b200 == PLAIN.expert_rate_frac
    assert h100 < a100 < h20 == 1


def test_kernels_that_unpack_four_bits_fill_smaller_blocks():
    """No cliff where plain kernels go from 16 rows to 64: one sequence more costs next to nothing."""
    plain = deployed(MOE)
    packed = msgspec.structs.replace(plain, widths=work.Widths(routed=0.53, other=2, embedding=2))
    one, more = (routed_flops(packed, tokens) / tokens for tokens in (128, 129))
    assert more == pytest.approx(one, rel=0.02)
    assert routed_flops(packed, 200) < 0.5 * routed_flops(plain, 200)
    assert routed_flops(packed, 1e5) == pytest.approx(routed_flops(plain, 1e5), rel=0.01)


def test_distinct_experts_between_knots_are_those_of_the_closed_form():
    feed = Feed(experts=128, per_token=8)
    tokens = np.geomspace(1, 5000, 1000)
    exact = distinct_skewed(128, 8, tokens, 1.0)
    assert demand.touched(feed, tokens, 1.0) == pytest.approx(exact, rel=2e-3)


def test_kernels_are_counted_from_the_layers():
    def of(name: str) -> int:
        return demand.demand(deployed(name), work.Batch(decode_sequences=1), 0.0).kernels

    assert of("meta-llama/Llama-3.1-8B") == 32 * 12
    assert of(SMALL) == 36 * 14  # queries and keys are normed
    assert of("google/gemma-3-27b-it") == 62 * 16  # and each block before and after
    assert of(MOE) == 48 * 19


def test_a_lone_request_sees_nobody_else():
    what, c = deployed(), PLAIN
    found = predict.figures(what, load(1, 1000, 100))
    plain = seconds(what, work.Batch(decode_sequences=1, decode_context=1000 + 99 / 2))
    prompt = seconds(what, work.Batch(prefill_sequences=1, prefill_tokens=1000))
    assert found.tpot_s == pytest.approx(plain.total_s)
    assert found.ttft_s == pytest.approx(prompt.total_s + c.request_s)


@settings(max_examples=50, deadline=None)
@given(st.floats(2, 3000), st.floats(1, 20_000), st.floats(2, 3000))
def test_everyone_is_somewhere(concurrency, prompt, answer):
    """Little's law: sequences = arrivals · time in the system, however much waits in line."""
    found = predict.figures(deployed(MOE), load(concurrency, prompt, answer))
    arrivals = found.output_tokens_per_s / answer
    inside = found.ttft_s + (answer - 1) * found.tpot_s
    assert arrivals * inside == pytest.approx(concurrency, rel=0.25)


def test_prompts_that_fill_the_steps_make_requests_wait():
    calm, full = (
        predict.figures(deployed(), load(8, 8000, 10)),
        predict.figures(deployed(), load(512, 8000, 10)),
    )
    assert full.ttft_s > 10 * calm.ttft_s
    assert full.output_tokens_per_s == pytest.approx(calm.output_tokens_per_s, rel=0.3)


def test_more_chunks_of_a_prompt_take_longer_to_the_first_token():
    whole = predict.figures(deployed(), load(1, 8000, 10)).ttft_s
    cut = predict.figures(deployed(step_tokens=512), load(1, 8000, 10)).ttft_s
    assert cut > whole


def test_the_median_step_is_never_slower_than_the_mean_one():
    found = predict.figures(deployed(), load(np.array([1, 8, 64, 512, 2048]), 1000, 300))
    assert np.all(found.itl_s_p50 <= found.tpot_s * (1 + 1e-9))
    assert found.itl_s_p50[1] < 0.99 * found.tpot_s[1]


def test_a_backlog_leaves_no_place_empty():
    waiting = predict.figures(deployed(), load(8, 100, 20, backlog=True))
    called = predict.figures(deployed(), load(8, 100, 20))
    assert waiting.output_tokens_per_s > called.output_tokens_per_s


def test_unequal_answers_make_longer_contexts():
    assert predict.tpot_s(deployed(), load(64, output_cv=1.0)) > predict.tpot_s(deployed(), load(64))


@pytest.mark.parametrize("gpu", [H100, H20, A100])
def test_power_stays_below_what_the_board_may_draw(gpu):
    what = deployed(BIG, gpu, tensor=2)
    found = predict.figures(what, load(np.array([1, 8, 64, 512])))
    assert np.all(found.power_w_mean < 2 * what.gpu.tdp_w)
    assert np.all(found.power_w_mean > 2 * 0.15 * what.gpu.tdp_w)
    expected = found.power_w_mean / found.output_tokens_per_s
    assert found.energy_j_per_output_token == pytest.approx(expected)


def test_a_sheet_without_power_predicts_no_power():
    what = deployed()
    bare = msgspec.structs.replace(what, gpu=msgspec.structs.replace(what.gpu, tdp_w=None))
    found = predict.predict(bare, load(8))
    assert found.power_w_mean is None
    assert found.energy_j_per_output_token is None
    assert found.tpot_s.value > 0


def test_python_holds_up_a_small_model_and_not_a_large_prompt():
    small = [predict.tpot_s(deployed(SMALL, execution=how), load(1)) for how in ("eager", "graph")]
    assert small[0] == pytest.approx(36 * 14 * PLAIN.eager_kernel_s, rel=1e-6)
    assert small[1] < small[0] / 2
    long = load(1, 8000, 2)
    first = [predict.figures(deployed(SMALL, execution=how), long).ttft_s for how in ("eager", "graph")]
    assert first[0] == pytest.approx(first[1], rel=1e-6)


@pytest.mark.parametrize("field", ["concurrency", "input_tokens", "output_tokens"])
def test_nothing_below_one_is_predicted(field):
    with pytest.raises(InputError, match=rf"{field.replace('_', ' ')} of 0"):
        predict.tpot_s(deployed(), msgspec.structs.replace(load(8), **{field: 0}))


@pytest.mark.parametrize(("tensor", "expert"), [(3, 2), (0, 1), (2, -2)])
def test_degrees_that_do_not_divide_are_refused(tensor, expert):
    with pytest.raises(InputError, match="one must divide the other"):
        deployed(MOE, tensor=tensor, expert=expert)


def test_data_parallel_attention_shares_the_batch():
    group = demand.demand(deployed(MOE, tensor=1, expert=4), work.Batch(decode_sequences=64), 0.0)
    alone = demand.demand(deployed(MOE), work.Batch(decode_sequences=16), 0.0)
    assert group.sequences == alone.sequences == 16
    assert group.sums > 0


def test_the_figures_of_a_mix_do_not_depend_on_who_asked_first():
    what, c = deployed(MOE), PLAIN
    steps = mix(what, load(64), 0.85)
    assert steady(steps, c).tpot_s == steady(steps, c).tpot_s == steady(mix(what, load(64), 0.85), c).tpot_s
