"""Traces: every public layout, every way a file can be wrong."""

from __future__ import annotations

import contextlib
import hashlib
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import scenario
from profiler.errors import InputError
from profiler.schema import LoadPoint
from profiler.settings import Load, Measure, Workload
from profiler.workload import Plan, extent, load_trace, mean_rate, schedule

OURS = "time_s,input_tokens,output_tokens\n0.5,10,1\n1.5,20,2\n1.5,30,3\n3.5,40,4\n"
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:16:46.2224400,879,55
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00+01:00,1,1
"""
BURST = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
45,GPT-4,417,276,693,API log
118,ChatGPT,1360,647,2007,API log
"""
BURST_SESSIONS = """Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens
0.0,,2.5,ChatGPT,10,5,15
12.5,77,3,ChatGPT,20,6,26
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1100, "output_length": 52, "hash_ids": [46, 47, 48]}
{"timestamp": 2500, "input_length": 1300, "output_length": 26, "hash_ids": [46, 47, 2353]}
{"timestamp": 3000, "input_length": 700, "output_length": 3, "hash_ids": [9]}
"""


@pytest.fixture
def read(tmp_path):
    def parse(text, **load):
        path = tmp_path / "trace"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_trace(str(path), Load(mode="replay", trace=str(path), **load))

    return parse


# ----------------------------------------------------------------------------------------- layouts


def test_our_own_csv(read):
    trace = read(OURS)
    assert trace.layout == "ours"
    assert list(trace.times_s) == [0, 1, 1, 3]
    assert list(trace.input_tokens) == [10, 20, 30, 40]
    assert list(trace.output_tokens) == [1, 2, 3, 4]
    assert (trace.whole_s, trace.skipped, trace.blocks) == (4.0, 0, None)
    assert trace.digest == hashlib.sha256(OURS.encode()).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + OURS,
        OURS.replace("\n", "\r\n"),
        "# a remark\n" + OURS.replace("20,2\n", "20,2\n\n# another\n"),
        OURS.replace(",", " , "),
        "output_tokens,x,time_s,input_tokens\n1,a,0.5,10\n2,b,1.5,20\n3,c,1.5,30\n4,d,3.5,40",
        "".join(
            json.dumps({"time_s": t, "input_tokens": i, "output_tokens": i // 10, "more": None}) + "\n"
            for t, i in ((0.5, 10), (1.5, 20), (1.5, 30), (3.5, 40))
        ),
    ],
)
def test_our_own_in_other_spellings(read, text):
    wanted, trace = read(OURS), read(text)
    for name in ("times_s", "input_tokens", "output_tokens"):
        assert list(getattr(trace, name)) == list(getattr(wanted, name))


def test_azure(read):
    trace = read(AZURE)
    assert trace.layout == "Azure LLM inference"
    assert list(trace.times_s) == pytest.approx([0, 4.314579, 59.54185], abs=2e-6)
    assert list(trace.input_tokens) == [374, 396, 879]
    with pytest.raises(InputError, match=r"line 3: out of order, 3600.01 s before"):
        read(AZURE_2024)


def test_burst_gpt_skips_and_counts_failures(read):
    trace = read(BURST)
    assert trace.layout == "BurstGPT"
    assert list(trace.times_s) == [0, 40, 113]
    assert list(trace.output_tokens) == [18, 276, 647]
    assert list(trace.lines) == [2, 4, 5]
    assert trace.skipped == 1
    later = read(BURST_SESSIONS)
    assert (list(later.times_s), list(later.input_tokens)) == ([0, 12.5], [10, 20])


def test_mooncake_prompts_share_the_blocks_they_shared(read):
    trace = read(MOONCAKE)
    assert trace.layout == "Mooncake"
    assert list(trace.times_s) == [0, 2.5, 3]
    work = Workload()
    plan = Plan(work, 32_000, 0, trace=trace)
    first, second, third = (plan.prompt(plan.request(i)) for i in range(3))
    assert [len(first), len(second), len(third)] == [1100, 1300, 700]
    assert first[:1024] == second[:1024]
    assert first[1024:1040] != second[1024:1040]
    assert third[:16] != first[:16]
    other = Plan(work, 32_000, 1, trace=trace)
    assert other.prompt(other.request(0))[:16] != first[:16], "a replay finds nothing of the last in a cache"
    short = plan.prompt(plan.request(2))[512:]
    assert short != first[512:700]
    assert len(plan.text(plan.request(2)).split()) == 700


def test_a_plan_of_a_trace_is_as_long_as_its_rows(read):
    trace = read(OURS)
    plan = Plan(Workload(seed=3), 1000, 0, trace=trace)
    rows = [plan.request(i) for i in range(4)]
    assert [(r.input_tokens, r.output_tokens) for r in rows] == [(10, 1), (20, 2), (30, 3), (40, 4)]
    assert [len(plan.prompt(r)) for r in rows] == [10, 20, 30, 40]


# ------------------------------------------------------------------------------------------ replay


def test_the_first_rows_and_another_speed(read, tmp_path):
    trace = read(OURS, requests=3, time_scale=2)
    assert list(trace.times_s) == [0, 2, 2]
    assert trace.whole_s == 3.0
    load = Load(mode="replay", trace=str(tmp_path / "trace"), requests=3, time_scale=2)
    made = schedule(load, LoadPoint(mode="replay"), Measure(), 0, 0)
    assert (made.start_s, made.end_s, made.finite) == (0, 3, True)
    assert np.concatenate(list(made.blocks())).tolist() == [0, 2, 2]
    assert mean_rate(load) == 1.0
    size = extent(Workload(), load)
    assert (size.shortest_input, size.mean_input, size.longest_input) == (10, 20, 30)
    assert (size.mean_output, size.longest_output, size.longest_total) == (2, 3, 33)


def test_a_changed_file_is_another_trace(read):
    assert len(read(OURS)) == 4
    assert len(read(OURS + "9,1,1\n")) == 5


def test_the_shipped_example():
    loaded = scenario.load("replay")
    trace = load_trace(loaded.load.trace, loaded.load)
    assert len(trace) == 60
    assert 30 < trace.whole_s < 90
    text = (scenario.names()["replay"].parent / "traces/example.csv").read_text()
    assert text.startswith("# Synthetic")


# ----------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("\n\n", ["is empty"]),
        ("# only a remark\n", ["no known layout"]),
        (
            "a,b\n1,2\n",
            ["line 1", "no known layout", "Azure", "BurstGPT", "Mooncake", "time_s, input_tokens"],
        ),
        ('{"a": 1}\n', ["no known layout"]),
        (OURS.splitlines()[0], ["no rows"]),
        (OURS.replace("3.5", "1.25"), ["line 5", "out of order", "0.25 s before"]),
        (OURS.replace("1.5,20", "soon,20"), ["line 3", "time_s is 'soon'", "expected a time"]),
        (OURS.replace("1.5,20", "nan,20"), ["line 3", "time_s is 'nan'"]),
        (OURS.replace("1.5,20,2", "1.5"), ["line 3", "input_tokens is missing"]),
        (OURS.replace(",20,", ",-20,"), ["line 3", "input_tokens is -20", "at least 1"]),
        (OURS.replace(",20,", ",0,"), ["line 3", "input_tokens is 0"]),
        (OURS.replace("20,2", "20,0"), ["line 3", "output_tokens is 0"]),
        (OURS.replace(",20,", ",2.5,"), ["line 3", "input_tokens is 2.5", "whole number"]),
        (OURS.replace(",20,", ",many,"), ["line 3", "input_tokens is 'many'", "number of tokens"]),
        (OURS.replace(",20,", ",inf,"), ["line 3", "input_tokens is 'inf'"]),
        (OURS.replace(",20,", ",1e30,"), ["line 3", "input_tokens is 1e+30"]),
        (OURS.replace("20,2", "20\r2,2"), ["line 3", "not CSV"]),
        ('{"a":' + "[" * 100_000, ["line 1", "not a JSON object"]),
        ("time_s,input_tokens,output_tokens\n1,1,1\n1,2,2\n", ["2 rows", "one instant"]),
        ("time_s,input_tokens,output_tokens\n1,1,1\n", ["1 row", "one instant"]),
        ("time_s,input_tokens,output_tokens\n0,1,1\n1e-9,2,2\n", ["2 rows in 2e-09 s"]),
        ("time_s,input_tokens,output_tokens\n0,1,1\n4e9,2,2\n", ["2 rows in 8e+09 s"]),
        ("time_s,input_tokens,output_tokens\n0,1,1\n1e308,2,2\n", ["2 rows in inf s"]),
        (AZURE.replace("2023-11-16 18:15:50", "yesterday"), ["line 3", "TIMESTAMP is 'yesterday"]),
        (BURST.replace("417", "0"), ["line 4", "Request tokens is 0"]),
        (MOONCAKE.replace('"output_length": 26', '"output_length": "x"'), ["line 2", "output_length is 'x'"]),
        (MOONCAKE.replace("[9]", '"9"'), ["line 3", "hash_ids is '9'"]),
        (MOONCAKE.replace("[9]", "[-9]"), ["line 3", "hash_ids is [-9]"]),
        (MOONCAKE + "{oops\n", ["line 4", "not a JSON object", "oops"]),
        (b"\xff\xfe", ["not UTF-8"]),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_its_line(read, tmp_path, text, words):
    with pytest.raises(InputError) as caught:
        read(text)
    said = str(caught.value)
    assert "\n" not in said
    assert not [word for word in (str(tmp_path / "trace"), *words) if word not in said], said


def test_fewer_rows_than_asked_for(read):
    with pytest.raises(InputError, match=r"load.requests = 5, but .* only 4 rows"):
        read(OURS, requests=5)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        load_trace(str(tmp_path / "none.csv"), Load(mode="replay"))


@given(
    st.binary(max_size=200), st.sampled_from(["", "time_s,input_tokens,output_tokens\n", '{"timestamp": 1'])
)
def test_no_file_escapes_as_another_error(tmp_path_factory, junk, start):
    path = tmp_path_factory.getbasetemp() / "junk"
    path.write_bytes(start.encode() + junk)
    with contextlib.suppress(InputError):
        load_trace(str(path), Load(mode="replay", trace=str(path)))
