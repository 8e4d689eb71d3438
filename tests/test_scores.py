"""Quality scores: the catalog's, a user's, names, and pairs that match by equivalence test."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import scores
from profiler.errors import InputError
from profiler.scores import Score
from tools import build_quality

ARENA = "lmarena_text_elo"
# As lm_eval 0.4 writes it with --output_path, shortened.
HARNESS = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.7468,
            "exact_match_stderr,strict-match": 0.01197,
            "exact_match,flexible-extract": 0.7589,
            "exact_match_stderr,flexible-extract": 0.01178,
        },
        "arc_easy": {"alias": "arc_easy", "acc,none": 0.8, "acc_stderr,none": "N/A"},
        "wikitext": {"word_perplexity,none": 11.2, "word_perplexity_stderr,none": "N/A"},
        "toxic": {"rate,none": 0.1, "rate_stderr,none": 0.01},
    },
    "higher_is_better": {"toxic": {"rate": False}, "gsm8k": {"exact_match": True}},
    "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}, "arc_easy": {"effective": 100}},
    "config": {"model": "hf", "model_args": "pretrained=Qwen/Qwen3-30B-A3B,dtype=bfloat16"},
    "date": 1763800000.5,
}


def elo(value, half, model="m", benchmark=ARENA):
    low, high = (None, None) if half is None else (value - half, value + half)
    return Score(model=model, benchmark=benchmark, value=value, low=low, high=high, source="test", unit="elo")


def arena(model, benchmark=ARENA):
    found, _ = scores.of_model(model, benchmark, scores.quality())
    return found


# ------------------------------------------------------------------------------------------ catalog


def test_every_published_score_has_source_date_and_unit():
    known = scores.quality()
    assert len(known) == 350
    assert all(score.source and score.date for score in known)
    assert {score.unit for score in known if score.benchmark.startswith("lmarena")} == {"elo"}
    for score in known:
        if score.low is not None:
            assert score.low <= score.value <= score.high
        if score.unit == "percent":
            assert 0 <= score.value <= 100


def test_only_shares_are_shares():
    assert arena("Qwen1.5-MoE-A2.7B", "MMLU").share == 0.625
    assert arena("qwen3-32b").share is None


def test_style_control_is_another_column():
    """Claude 3.5 Sonnet moves by 74 points: the two are never the same benchmark."""
    plain = arena("claude-3-5-sonnet-20241022")
    styled = arena("claude-3-5-sonnet-20241022", f"{ARENA}_style_control")
    assert styled.value - plain.value == pytest.approx(74.2, abs=0.05)
    with pytest.raises(ValueError, match="two benchmarks"):
        scores.matched(plain, styled)


def test_the_newest_score_of_a_model_counts():
    found = arena("Qwen/Qwen3-32B")
    assert (found.value, found.date) == (1339.8, "2025-12-11")  # not 1341 of 2025-08


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Qwen/Qwen3-30B-A3B", 1317.9),
        ("models/somewhere/Qwen3-30B-A3B/", 1317.9),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", 1383.7),
        ("meta-llama/Meta-Llama-3-70B-Instruct", 1221.7),
    ],
)
def test_hub_and_leaderboard_ids_are_the_same_model(name, value):
    assert arena(name).value == value


@pytest.mark.parametrize(
    "name",
    [
        "Qwen/Qwen3-30B-A3B-Thinking-2507",
        "Qwen/Qwen3-30B-A3B-Base",
        "Qwen/Qwen3-14B",
        "meta-llama/Meta-Llama-3-70B",
    ],
)
def test_another_training_stage_is_another_model(name):
    assert arena(name) is None


def test_makers_are_told_apart_where_both_are_named():
    assert scores.same_model("Qwen/Qwen3-32B", "qwen3-32b")
    assert not scores.same_model("Qwen/Qwen3-32B", "someone/Qwen3-32B")


def test_a_number_format_takes_the_score_of_the_released_weights_and_says_so():
    found, note = scores.of_model("Qwen/Qwen3-32B-FP8", ARENA, scores.quality())
    assert found.model == "qwen3-32b"
    assert "as released" in note
    own = Score(model="Qwen3-32B-FP8", benchmark=ARENA, value=1.0, source="own", unit="elo")
    assert scores.of_model("Qwen/Qwen3-32B-FP8", ARENA, [own, found]) == (own, None)


def test_a_benchmark_must_be_told():
    known = scores.quality()
    assert scores.benchmark_named("LMARENA_text_elo", known) == ARENA
    with pytest.raises(InputError, match=r"did you mean 'lmarena_text_elo'"):
        scores.benchmark_named("lmarena_elo", known)


def test_the_interval_is_taken_out_of_the_source():
    fact = {"model": "m", "benchmark": ARENA, "score": "1300", "date": "2025-12-11"}
    row = build_quality.row(fact | {"source": "board (2025-12-11) 95%CI [1290.5,1310.5]"})
    assert (row["low"], row["high"], row["source"]) == ("1290.5", "1310.5", "board (2025-12-11)")
    with pytest.raises(ValueError, match="outside"):
        build_quality.row(fact | {"source": "board 95%CI [1301,1310]"})
    with pytest.raises(ValueError, match="no percentage"):
        build_quality.row(fact | {"benchmark": "MMLU", "source": "board"})


# ------------------------------------------------------------------------------------------ reading


def test_harness_json(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(HARNESS))
    found = {score.benchmark: score for score in scores.read(path)}
    assert list(found) == [
        "gsm8k/exact_match,strict-match",
        "gsm8k/exact_match,flexible-extract",
        "arc_easy/acc",
    ]
    strict = found["gsm8k/exact_match,strict-match"]
    assert (strict.model, strict.n, strict.date, strict.unit) == (
        "Qwen/Qwen3-30B-A3B",
        1319,
        "2025-11-22",
        "frac",
    )
    assert strict.high - strict.low == pytest.approx(2 * 1.96 * 0.01197, rel=1e-4)
    assert scores.stderr(strict) == pytest.approx(0.01197)
    assert strict.share == 0.7468
    without_stderr = found["arc_easy/acc"]  # 80 of 100: Clopper–Pearson
    assert (without_stderr.low, without_stderr.high) == pytest.approx((0.7082, 0.8733), abs=1e-4)
    assert scores.benchmark_named("arc_easy", found.values()) == "arc_easy/acc"
    with pytest.raises(InputError, match="several scores; name one"):
        scores.benchmark_named("gsm8k", found.values())


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model_name": "a/b"}, "a/b"),
        ({"config": {"model_args": {"model": "c/d"}}}, "c/d"),
        ({"config": {"model_args": "model=e/f,base_url=http://h/v1"}}, "e/f"),
    ],
)
def test_harness_says_its_model_in_several_ways(tmp_path, changes, name):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(HARNESS | changes))
    assert scores.read(path)[0].model == name


def test_all_solved_is_not_certainty(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text("model,benchmark,score,n,date,source\nm,b,1.0,10,2026-01-01,own\n")
    (found,) = scores.read(path)
    assert found.low == pytest.approx(0.025 ** (1 / 10))
    assert scores.stderr(found) > 0.05


def test_csv_units_are_the_catalogs_or_told_by_size(tmp_path):
    path = tmp_path / "s.csv"
    lines = ["model,benchmark,score,stderr,date,source,unit"]
    for benchmark, value, unit in (
        *(
            ("lmarena_text_elo", 1300, ""),
            ("my_elo", 12, ""),
            ("MT-Bench (chat)", 7.2, ""),
            ("mine", 0.5, ""),
        ),
        *(("yours", 71, ""), ("development", 0.9, ""), ("count", 812, ""), ("x", 0.9, "percent")),
    ):
        lines.append(f"m,{benchmark},{value},0.1,2026-01-01,own,{unit}")
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    found = {score.benchmark: score.unit for score in scores.read(path)}
    assert list(found.values()) == ["elo", "elo", "points", "frac", "percent", "frac", "points", "percent"]


HEADER = "model,benchmark,score,low,high,date,source,unit\n"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no column model"),
        ("model,benchmark,score\nm,b,1\n", "no column date, source"),
        (HEADER.replace("unit", "colour"), "unknown column colour"),
        (HEADER, "no scores in it"),
        (HEADER + "m,b,x,,,2026,own,\n", "line 2: score 'x' is no number"),
        (HEADER + "m,b,inf,,,2026,own,\n", "line 2: score 'inf' is no number"),
        (HEADER + "m,b,1,,,,own,\n", "line 2: no date"),
        (HEADER + "m,b,1,0,,2026,own,\n", "both ends"),
        (HEADER + "m,b,1,2,3,2026,own,\n", "outside its interval"),
        (HEADER + "m,b,1.5,,,2026,own,frac\n", "more than a frac can be"),
        (HEADER + "m,b,1,,,2026,own,stars\n", "unit 'stars' is none of"),
        (HEADER + "m,b,1,,,2026,own,,,\n", "line 2: more cells"),
        (HEADER + "m,b,45,,,2026,own,\nn,b,0.45,,,2026,own,\n", "shares of 1 or of 100"),
        (HEADER + "m,b,45,,,2026,own,\nM,b,46,,,2026,own,\n", "line 3: a second score of M"),
        (HEADER + "m,b," + "9" * 400 + ",,,2026,own,\n", "is no number"),
        (HEADER + "m,b,1\r,,,2026,own,\n", "line 2"),
        ('{"results": ' * 200_000, "s.csv"),
        (HEADER + "m\n", "line 2: no benchmark"),
        ("{", "s.csv"),
        ("{}", "no 'results'"),
        ('{"results": {"t": {"acc,none": 0.5}}}', "which model"),
    ],
)
def test_files_that_are_no_scores(tmp_path, text, complaint):
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=complaint):
        scores.read(path)


@pytest.mark.parametrize(
    "odd",
    [
        {"n-samples": {"t": 5}},
        {"n-samples": [1]},
        {"n-samples": {"t": {"effective": "many"}}},
        {"higher_is_better": 7},
        {"config": {"model_args": [1]}},
        {"config": "x"},
        {"date": 1e300},
    ],
)
def test_what_is_odd_beside_the_results_is_not_known(tmp_path, odd):
    path = tmp_path / "r.json"
    told = {"results": {"t": {"acc,none": 0.5, "acc_stderr,none": "N/A"}}, "model_name": "m"}
    path.write_text(json.dumps(told | odd))
    (found,) = scores.read(path)
    assert (found.value, found.low, found.n) == (0.5, None, None)


def test_no_such_file_and_no_text(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        scores.read(tmp_path / "none.json")
    (tmp_path / "b.csv").write_bytes(b"model\xff")
    with pytest.raises(InputError, match=r"not UTF-8 text .* at byte 5"):
        scores.read(tmp_path / "b.csv")


# ----------------------------------------------------------------------------------------- matching


def test_qwen3_32b_over_30b_a3b_is_undecided_within_20_elo():
    """By hand: SE = sqrt(9.4² + 4.7²)/1.96 = 5.362, so 95 % [11.39, 32.41] and 90 % [13.08, 30.72], which
    holds 20: better for sure, by more than 20 or not is open."""
    found = scores.matched(arena("qwen3-32b"), arena("qwen3-30b-a3b"))
    assert found.difference == pytest.approx(21.9)
    assert (found.low, found.high) == pytest.approx((11.39, 32.41), abs=0.01)
    assert found.p == pytest.approx(0.638, abs=1e-3)  # Φ((21.9 − 20)/5.362)
    assert found.p_win == pytest.approx(0.5315, abs=1e-4)
    assert found.verdict == "undecided"


def test_twenty_elo_are_a_win_rate_of_528_percent():
    assert scores.matched(elo(1020, 1), elo(1000, 1)).p_win == pytest.approx(0.5288, abs=1e-4)


@pytest.mark.parametrize(
    ("apart", "half", "verdict"),
    [
        (0, 5, "equivalent"),
        (14, 5, "equivalent"),  # 90 % up to 19.93
        (14.2, 5, "undecided"),
        (25.8, 5, "undecided"),  # from 19.87
        (26, 5, "not equivalent"),
        (-26, 5, "not equivalent"),
        (0, 30, "undecided"),  # no difference seen is not equal
        (1, None, "undecided"),
        (500, None, "undecided"),
    ],
)
def test_verdicts_at_the_edges(apart, half, verdict):
    assert scores.matched(elo(1000 + apart, half), elo(1000, half, "other")).verdict == verdict


@given(st.floats(-80, 80), st.floats(0.1, 40), st.floats(0.1, 40), st.floats(1, 60))
def test_the_verdict_does_not_depend_on_the_order(apart, half, other_half, margin):
    one, other = elo(1000 + apart, half), elo(1000, other_half, "other")
    forth, back = scores.matched(one, other, margin), scores.matched(other, one, margin)
    assert forth.verdict == back.verdict
    assert forth.difference == -back.difference
    assert (forth.verdict == "equivalent") == (forth.p < 0.05) or math.isclose(forth.p, 0.05, rel_tol=1e-6)
    assert forth.p_win + back.p_win == pytest.approx(1)


def test_a_score_equals_itself_without_an_interval_too():
    found = scores.matched(elo(1000, None), elo(1000, None, "m"))
    assert (found.verdict, found.difference, found.reason) == ("equivalent", 0, "one and the same score")


def test_a_margin_is_needed_where_none_is_usual():
    points = Score(model="m", benchmark="MT-Bench (chat)", value=7.2, source="s", unit="points")
    with pytest.raises(ValueError, match="positive number of points"):
        scores.matched(points, points)
    with pytest.raises(ValueError, match="positive"):
        scores.matched(elo(1, 1), elo(1, 1), -1)


def test_published_accuracies_without_interval_are_never_called_equal():
    one, other = (arena(name, "MMLU") for name in ("Qwen1.5-MoE-A2.7B", "Qwen1.5-7B"))
    found = scores.matched(one, other)
    assert (found.margin, found.verdict) == (2.0, "undecided")
    assert "no interval was published" in found.reason
