"""What a token of each kind takes: synthetic points whose truth is a formula, and sealed runs of an engine
whose law is known."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import figures, split
from profiler.cost import kinds
from profiler.figures import Figures
from profiler.schema import Estimate, LoadPoint
from tests.cost.load import figures as load
from tests.split import steps

CHAT_POINT = LoadPoint(mode="closed", concurrency=8)


def chat(**more) -> Figures:
    return replace(load(**{"total_tokens_per_s": 300.0} | more), run="chat", point=CHAT_POINT)


def prefill_run(rate=1000.0, hits=None, run="prefill", prompt=100.0) -> Figures:
    """Answers of one token: prompts alone, so many tokens of them a second."""
    found = load(
        input_tokens_per_s=Estimate(rate, rate * 0.9, rate * 1.1, 3, "repeats"),
        output_tokens_per_s=rate / prompt,
        input_tokens_mean=prompt,
        output_tokens_mean=1.0,
        prefix_cache_hit_frac=hits,
    )
    return replace(found, run=run, point=CHAT_POINT)


def shares(found: kinds.Kinds) -> dict[str, float]:
    return {kind.name: kind.share for kind in found.kinds}


# ------------------------------------------------------------------------------------- synthetic


@given(
    st.floats(1, 1e5),
    st.floats(1, 1e5),
    st.floats(0.01, 1),
    st.floats(0, 1),
    st.floats(0, 0.9),
    st.floats(0.01, 1),
)
def test_kinds_times_counts_and_the_idle_time_are_the_whole(output, inputs, busy, part, hits, cached_part):
    found = chat(
        output_tokens_per_s=output,
        input_tokens_per_s=inputs,
        engine_busy_frac=busy,
        prefix_cache_hit_frac=hits,
    )
    source = kinds.Source(Estimate(part * busy / inputs), "a test")
    parts = kinds.of_point(found, source, Estimate(source.input_s.value * cached_part))
    assert sum(shares(parts).values()) + parts.idle_frac == pytest.approx(1.0, rel=1e-9)
    assert all(kind.engine_s.value >= 0 for kind in parts.kinds)


def test_output_is_what_prompts_and_idling_leave():
    found = chat(engine_busy_frac=0.9)
    (alone, parts) = kinds.of_points([prefill_run(), found])
    # 200 prompt tokens/s at 1 ms are 0.2 s of a second; 0.9 − 0.2 = 0.7 s for 100 output tokens.
    assert shares(parts) == pytest.approx({"input": 0.2, "output": 0.7})
    assert parts.idle_frac == pytest.approx(0.1)
    assert parts.of(kinds.OUTPUT).engine_s.value == pytest.approx(0.007)
    assert parts.way == "answers of one token of a run alike"
    assert shares(alone) == pytest.approx({"input": 1.0})
    assert alone.of(kinds.OUTPUT) is None


def test_runs_of_another_engine_say_nothing():
    other = replace(prefill_run(), alike="other")
    (_, parts) = kinds.of_points([other, chat()])
    assert [kind.name for kind in parts.kinds] == [kinds.ALL]
    assert "scenario prefill" in parts.missing


def test_prompts_that_would_take_more_than_all_are_not_told_apart_but_by_regression():
    slow = prefill_run(rate=150.0)
    found = chat(engine_busy_frac=1.0)
    (_, parts) = kinds.of_points([slow, found])
    assert shares(parts) == pytest.approx({kinds.ALL: 1.0})
    assert "133% of the engine's time" in parts.missing
    (_, fitted) = kinds.of_points([slow, found], lambda each: (Estimate(0.001), None))
    assert shares(fitted) == pytest.approx({"input": 0.2, "output": 0.8})
    (_, undecided) = kinds.of_points([slow, found], lambda each: (None, "too few slices"))
    assert undecided.missing.endswith("regression: too few slices")


def test_prompts_may_not_take_the_time_in_which_nothing_was_asked():
    # 200 prompt tokens/s at 1 ms are 0.2 s of a second, of which 0.1 s were busy.
    (_, parts) = kinds.of_points([prefill_run(), chat(engine_busy_frac=0.1)])
    assert "200% of the engine's time" in parts.missing
    assert shares(parts) == pytest.approx({kinds.ALL: 0.1})


def test_unknown_prompt_lengths_leave_one_kind_and_nothing_measured_none():
    blind = chat(input_tokens_per_s=None, total_tokens_per_s=None)
    (_, parts) = kinds.of_points([prefill_run(), blind])
    assert "how long the prompts were" in parts.missing
    assert shares(parts) == pytest.approx({kinds.ALL_ON_OUTPUT: 1.0})
    (nothing,) = kinds.of_points([chat(output_tokens_per_s=None, total_tokens_per_s=None)])
    assert nothing.kinds == ()
    assert "no token" in nothing.missing


def test_intervals_of_output_hold_those_of_rate_and_prompts():
    (_, parts) = kinds.of_points([prefill_run(), chat()])
    answers = parts.of(kinds.OUTPUT).engine_s
    # 1/100 s a token is known to −0.000909/+0.00111, 0.002 s of prompt a token to −0.000182/+0.000222.
    assert answers.value == pytest.approx(0.008)
    assert answers.low == pytest.approx(0.008 - (0.000909**2 + 0.000222**2) ** 0.5, abs=1e-6)
    assert answers.high == pytest.approx(0.008 + (0.001111**2 + 0.000182**2) ** 0.5, abs=1e-6)
    assert answers.over == "repeats"


@given(st.floats(0, 1), st.floats(0.5, 1))
def test_blended_is_linear_and_carries_the_idle_time_on_output(share, busy):
    (_, parts) = kinds.of_points([prefill_run(), chat(engine_busy_frac=busy)])
    found = kinds.blended(parts, (share, 1 - share))
    assert found.value == pytest.approx(share * 0.001 + (1 - share) * (1 - 0.2) / 100)
    assert kinds.blended(parts, (0.5, 0.25, 0.25)) is None  # what a cached token takes is not known


# ------------------------------------------------------------------------------------- cached input


@given(st.floats(0.05, 0.95), st.floats(0.01, 0.999))
def test_a_cached_token_is_what_the_same_load_takes_less_with_hits(hits, part):
    truth = 0.001 * part
    mean = (1 - hits) * 0.001 + hits * truth
    shared = prefill_run(rate=1 / mean, hits=hits, run="shared")
    found = kinds.cached_s([prefill_run(hits=0.0), shared])
    assert found.value == pytest.approx(truth, rel=1e-6, abs=1e-9)


def test_cached_input_is_a_kind_of_its_own_where_it_was_measured():
    mean = 0.6 * 0.001 + 0.4 * 0.0001
    measured = [
        prefill_run(hits=0.0),
        prefill_run(rate=1 / mean, hits=0.4, run="shared"),
        chat(prefix_cache_hit_frac=0.5, engine_busy_frac=1.0),
    ]
    *_, parts = kinds.of_points(measured)
    assert shares(parts) == pytest.approx({"input": 0.1, "cached input": 0.01, "output": 0.89})
    assert parts.cached_missing is None
    third = kinds.blended(parts, (0.5, 0.25, 0.25))
    assert third.value == pytest.approx(0.5 * 0.001 + 0.25 * 0.0089 + 0.25 * 0.0001)


@pytest.mark.parametrize(
    ("measured", "telling"),
    [
        ([], "not measured: give this load without shared prefixes"),
        ([prefill_run(hits=0.0)], "not measured"),
        ([prefill_run(hits=None), prefill_run(hits=0.4, run="shared")], "not measured"),
        ([prefill_run(hits=0.0), prefill_run(rate=5000, hits=0.4, run="s", prompt=500)], "not measured"),
        ([prefill_run(hits=0.0), prefill_run(rate=9000, hits=0.4, run="s")], "seems to take nothing"),
        ([prefill_run(hits=0.0), prefill_run(rate=900, hits=0.4, run="s")], "more than a computed one"),
    ],
)
def test_what_a_cached_token_takes_is_never_zero_but_not_known(measured, telling):
    assert telling in kinds.cached_s(measured)
    *_, parts = kinds.of_points([*measured, prefill_run(), chat(prefix_cache_hit_frac=0.5)])
    assert parts.of(kinds.CACHED) is None
    assert "50% of the input was cached" in parts.cached_missing


def test_without_a_run_free_of_hits_input_is_the_mean_over_both():
    own = replace(load(prefix_cache_hit_frac=0.5), run="chat")  # TTFT at concurrency 1: 2 ms a token
    (parts, at_8) = kinds.of_points([own, chat(prefix_cache_hit_frac=0.5)])
    for each in (parts, at_8):
        assert each.of(kinds.INPUT).tokens_per_s == pytest.approx(200)
        assert "mean over computed and cached input" in each.cached_missing


# ------------------------------------------------------------------------------------- runs of a known law

# Without a cost of the step itself, an input token takes prefill_s and a decode token decode_s, at any mix.
LAW = steps.Engine(step_s=0.0)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    out = tmp_path_factory.mktemp("kinds")

    def run(name, lengths, **more):
        return steps.run(out, name, lengths, LAW, window_s=30, repeats=2, energy=False, **more)

    return {
        "prefill": run("prefill", steps.prefill),
        "mixed": run("mixed", steps.mixed),
        "decode": run("decode", steps.decode),
        "waiting": run("waiting", steps.mixed, think_s=6.0),
    }


def truth(name):
    """Every answer's first token comes out of prefill: per output token, decoding takes a bit less."""
    decoded = {"mixed": (511, 514), "decode": (511, 512), "waiting": (511, 514)}[name]
    return {kinds.INPUT: LAW.prefill_s, kinds.OUTPUT: LAW.decode_s * decoded[0] / decoded[1]}


@pytest.mark.parametrize("name", ["mixed", "decode", "waiting"])
def test_engine_seconds_of_each_kind_are_recovered_from_runs(sealed, name):
    measured = figures.of_runs([sealed["prefill"], sealed[name]])
    *_, parts = kinds.of_points(measured)
    for kind, seconds in truth(name).items():
        assert parts.of(kind).engine_s.value == pytest.approx(seconds, rel=0.04), kind
    assert sum(shares(parts).values()) + parts.idle_frac == pytest.approx(1, rel=1e-9)
    assert (parts.idle_frac > 0.05) == (name == "waiting")


def test_without_a_prefill_run_the_regression_tells_them_apart(sealed):
    fitted = split.regressions([sealed["mixed"]])
    (found,) = figures.of_runs([sealed["mixed"]])
    (parts,) = kinds.of_points([found], lambda each: fitted[each.run, each.point])
    assert parts.way == "regression over slices of this load"
    for kind, seconds in truth("mixed").items():
        assert parts.of(kind).engine_s.value == pytest.approx(seconds, rel=0.06), kind


def test_a_load_of_like_requests_alone_is_one_kind_and_says_which_runs_would_mend_it(sealed):
    fitted = split.regressions([sealed["decode"]])
    (found,) = figures.of_runs([sealed["decode"]])
    (parts,) = kinds.of_points([found], lambda each: fitted[each.run, each.point])
    assert [kind.name for kind in parts.kinds] == [kinds.ALL]
    assert "scenario prefill" in parts.missing
    assert "the mix does not vary enough" in parts.missing


def test_times_of_one_machine_are_taken_for_the_worst_correlation():
    a, b = Estimate(4.0, 3.0, 6.0, 3, "repeats"), Estimate(2.0, 1.5, 2.25, 3, "repeats")
    together = kinds.combined([(1.0, a), (2.0, b)])
    assert (together.low, together.value, together.high) == (pytest.approx(6.0), 8.0, pytest.approx(10.5))
    apart = kinds.combined([(1.0, a), (-1.0, b)])
    assert apart.low == pytest.approx(2 - (1 + 0.25**2) ** 0.5)
    assert apart.high == pytest.approx(2 + (4 + 0.5**2) ** 0.5)
    assert kinds.combined([(1.0, a), (1.0, Estimate(1.0))]).low is None
