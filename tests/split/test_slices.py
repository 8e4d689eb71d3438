"""What was worked off in each slice of a window, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import store
from profiler.split import slices as module
from profiler.split.slices import of_window
from profiler.windows import WindowView
from tests import make
from tests.split import steps

S = make.S


def view(tmp_path, records, start_s=0.0, end_s=20.0):
    window = make.window(0, start_s, end_s, opened_ns=0, closed_ns=round((end_s + 1) * S))
    run = make.writer(tmp_path, [(window, records)])
    run.samples_path.write_bytes(b"")
    run.seal()
    found = store.load(tmp_path / "run")
    return WindowView(found.manifest.windows[0], found.requests), found.samples


def asked(index, sent_s, arrivals_s, input_tokens=100, tokens=None, **changes):
    arrivals = [round(t * S) for t in arrivals_s]
    tokens = tokens or [1] * len(arrivals)
    return replace(
        make.request(0, index, sent_s),
        sent_ns=round(sent_s * S),
        first_ns=arrivals[0] if arrivals else None,
        last_ns=arrivals[-1] if arrivals else None,
        done_ns=arrivals[-1] if arrivals else None,
        input_tokens=input_tokens,
        output_tokens=sum(tokens) if arrivals else 0,
        arrivals_ns=arrivals,
        arrival_tokens=tokens[: len(arrivals)],
        **changes,
    )


def test_a_prompt_is_spread_up_to_its_first_token(tmp_path):
    seen, samples = view(tmp_path, [asked(0, 1.0, [5.0])])
    found = of_window(seen, samples, ())
    assert found.span_s == pytest.approx([2.0] * 10)
    assert found.input_tokens == pytest.approx([25, 50, 25, 0, 0, 0, 0, 0, 0, 0], abs=1e-3)
    assert found.decode_tokens.sum() == 0
    assert found.energy_j is None


def test_waiting_in_the_queue_is_no_work(tmp_path):
    """Both were sent at once; the second was prefilled when the first had its token."""
    seen, samples = view(tmp_path, [asked(0, 0.0, [4.0]), asked(1, 0.0, [8.0])])
    assert of_window(seen, samples, ()).input_tokens[:5] == pytest.approx([50, 50, 50, 50, 0], abs=1e-3)


def test_what_a_cache_had_was_not_computed(tmp_path):
    seen, samples = view(tmp_path, [asked(0, 0.0, [4.0], cached_tokens=60)])
    assert of_window(seen, samples, ()).total("input_tokens") == pytest.approx(40)


def test_decode_tokens_are_those_after_the_first_with_their_context(tmp_path):
    seen, samples = view(tmp_path, [asked(0, 0.0, [1.0, 3.0, 5.0])])
    found = of_window(seen, samples, ())
    assert found.decode_tokens[:3] == pytest.approx([0.5, 1.0, 0.5], abs=1e-6)
    # Token 2 is computed from the prompt and one token, token 3 from the prompt and two.
    assert found.total("context_tokens") == pytest.approx(101 + 102)


def test_a_piece_of_several_tokens(tmp_path):
    seen, samples = view(tmp_path, [asked(0, 0.0, [2.0, 6.0], tokens=[3, 4])])
    found = of_window(seen, samples, ())
    assert found.total("decode_tokens") == pytest.approx(6)
    assert found.decode_tokens[:3] == pytest.approx([2, 2, 2], abs=1e-3)
    assert found.total("context_tokens") == pytest.approx(sum(100 + k for k in range(1, 7)))


def test_busy_is_time_with_a_request_in_flight(tmp_path):
    records = [asked(0, 1.0, [2.0, 4.0]), asked(1, 3.0, [3.5, 5.0]), asked(2, 9.0, [10.0, 11.0])]
    seen, samples = view(tmp_path, records)
    found = of_window(seen, samples, ())
    assert found.busy_s == pytest.approx([1, 2, 1, 0, 1, 1, 0, 0, 0, 0], abs=1e-5)


def test_slices_with_work_in_vain_are_not_used(tmp_path):
    lost = asked(1, 6.5, [], outcome="first_token_timeout")
    lost = replace(lost, done_ns=round(9.5 * S))
    seen, samples = view(tmp_path, [asked(0, 0.0, [1.0, 2.0]), lost])
    assert of_window(seen, samples, ()).known.tolist() == [True] * 3 + [False] * 2 + [True] * 5


def test_slices_end_on_ticks_and_sum_up(tmp_path):
    run = steps.run(tmp_path, "mixed", steps.mixed, window_s=30, repeats=1)
    seen = WindowView(run.manifest.windows[0], run.requests)
    found = of_window(seen, run.samples, [steps.GPU])
    whole = of_window(seen, run.samples, [steps.GPU], whole=True)
    assert len(found.span_s) == pytest.approx(15, abs=1)
    assert found.energy_j.sum() / found.span_s.sum() == pytest.approx(
        whole.energy_j[0] / whole.span_s[0], rel=0.01
    )
    lost_s = whole.span_s[0] - found.span_s.sum()  # from the window's edges to the nearest ticks
    assert 0 <= lost_s <= 0.25
    assert found.total("decode_tokens") == pytest.approx(whole.total("decode_tokens"), rel=0.02)
    assert whole.total("decode_tokens") == pytest.approx(
        sum(
            a > seen.start and a <= seen.end for r in seen._columns["arrivals_ns"].to_pylist() for a in r[1:]
        ),
        abs=16,
    )


def test_a_slow_counter_makes_longer_slices():
    edges = module._edges(np.array([0, 60 * S]), (np.arange(0, 60, 0.5) * S).astype(np.int64))
    assert np.diff(edges) / 1e9 == pytest.approx([5.0] * len(np.diff(edges)), rel=0.11)


def test_no_energy_says_why(tmp_path):
    seen, samples = view(tmp_path, [asked(0, 0.0, [1.0])])
    assert of_window(seen, samples, ()).reason == "no energy was sampled; the run's probes say why"
    assert (
        "no sample" in of_window(seen, samples, ["GPU-1"]).reason
        or of_window(seen, samples, ["GPU-1"]).reason
    )


spans = st.lists(
    st.tuples(st.integers(-50, 150), st.integers(0, 60), st.floats(0, 1000)), min_size=0, max_size=20
)


@given(spans, st.lists(st.integers(0, 100), min_size=2, max_size=8, unique=True))
def test_spreading_loses_nothing_and_makes_nothing(found, at):
    edges = np.array(sorted(at)) * S
    start = np.array([each[0] for each in found], dtype=np.int64) * S
    end = start + np.array([each[1] for each in found], dtype=np.int64) * S
    amount = np.array([each[2] for each in found])
    reached = module._spread(start, end, amount, edges)
    for edge, value in zip(edges, reached, strict=True):
        wanted = 0.0
        for s, e, a in zip(start, end, amount, strict=True):
            wanted += a * (float(edge >= e) if e == s else min(1.0, max(0.0, (edge - s) / (e - s))))
        assert value == pytest.approx(wanted, abs=1e-3)
