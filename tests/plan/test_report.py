"""What is printed: complete, within its width, and the same in every form."""

from __future__ import annotations

import csv
import io
import json

import pytest
from rich.console import Console

from profiler import plan as planner
from profiler import predict
from profiler.plan import answer_all
from profiler.plan.answers import all_met, answer
from profiler.plan.crossover import BATCHES
from profiler.plan.document import document
from profiler.plan.rows import COLUMNS
from profiler.report import plan as report
from tests.plan.ask import DENSE_14B, DENSE_32B, MOE

ASKED = planner.Request(
    models=[MOE, DENSE_32B, DENSE_14B], gpus=["H100", "H20"], slo={"tpot_p50_s": "15ms", "ttft_p99_s": "1s"}
)


@pytest.fixture(scope="module")
def found():
    return answer_all(ASKED)


def printed(found, width: int, colour: bool = False) -> str:
    system = "truecolor" if colour else None
    console = Console(width=width, file=io.StringIO(), color_system=system, highlight=False)
    report.show(found, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 110, 200])
def test_no_line_is_wider_than_the_terminal_and_no_figure_is_cut(found, width):
    text = printed(found, width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    assert "…" not in text


def test_all_that_was_asked_for_is_there(found):
    text = printed(found, 120)
    for part in (
        "Fit",
        "Predicted on 1 × H100 SXM5 80GB",
        "Predicted on 1 × H20 96GB",
        "Each at its own best",
        "a token costs the same where a H20 96GB is rented for",
        "Limits",
        "Qwen3-30B-A3B (M) against Qwen3-14B (D) on 1 × H20 96GB: time per output token",
        "is faster below batch",
        "energy: M ",
        "cost: M ",
        "elsewhere: time per output token",
        "4 × RTX 4090 24GB:",
        "1 × A100 SXM4 80GB:",
        "no price is known: no on-demand offer of H20 96GB in USD; UCloud Compshare",
        "taken as H100 SXM5 80GB; it may also mean H100 NVL 94GB",
    ):
        assert part in text, part
    assert text.count("±") > 50, "intervals are shown"


def test_colour_only_repeats_what_letters_say(found):
    import re

    plain = printed(found, 100)
    assert re.sub(r"\x1b\[[0-9;]*m", "", printed(found, 100, colour=True)) == plain


def test_csv_is_the_rows(found):
    table = list(csv.DictReader(io.StringIO(report.TEXTS["csv"](found))))
    assert tuple(table[0]) == COLUMNS
    assert len(table) == 3 * 2 * 4
    assert {(row["gpu"], row["gpus"]) for row in table} == {("H100 SXM5 80GB", "1"), ("H20 96GB", "1")}


def test_json_holds_everything_unrounded(found):
    held = json.loads(report.TEXTS["json"](found))
    assert set(held) == {"rows", "fit", "best", "worth", "slo", "crossovers", "lines", "beside", "notes"}
    assert list(held["rows"][0]) == list(COLUMNS)
    one = held["crossovers"][0]
    shape = (len(one["input_tokens"]), len(one["batches"]))
    for name in ("ratio", "ratio_low", "ratio_high", "winner", "held"):
        assert (len(one[name]), len(one[name][0])) == shape, name
    assert 512 in one["input_tokens"], "the scenario's own"
    assert held["fit"][0]["possible_tensor_parallel"] == [1, 2, 4, 8, 16, 32]
    assert held["fit"][2]["kv_tokens"].keys() == {"1", "2", "4", "8"}
    assert {(each["gpu"], each["dense"]) for each in held["beside"]} == {
        (gpu, dense)
        for gpu in ("A100 SXM4 80GB", "L40S 48GB", "L4 24GB", "RTX 4090 24GB")
        for dense in (DENSE_32B, DENSE_14B)
    }


def test_markdown_has_the_same_tables(found):
    text = report.TEXTS["md"](found)
    assert "### Fit" in text
    assert "| Qwen3-30B-A3B | H100 SXM5 80GB |" in text
    assert "```\n prompt" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("| ") and "TTFT" in line}
    assert len(widths) == 1


def test_limits_out_of_reach_say_by_how_much(found):
    (line,) = [line for line in report.reach_lines(found) if line.startswith("Qwen3-32B on 1 × H100")]
    assert "out of reach, even one request alone misses TPOT p50 by 1." in line
    (kept,) = [line for line in report.reach_lines(found) if line.startswith("Qwen3-30B-A3B on 1 × H100")]
    assert "kept surely up to" in kept


def test_the_highest_load_is_the_last_that_keeps_the_limits(found):
    for reach in found.reaches:
        verdicts = dict(
            zip(BATCHES, all_met(answer(reach.placement, BATCHES, None), found.question.limits), strict=True)
        )
        beyond = next(each for each in BATCHES if each > reach.possibly)
        assert verdicts[beyond] is False
        assert reach.possibly == 0 or verdicts[reach.possibly] is not False
        assert reach.surely == 0 or verdicts[reach.surely] is True
        assert reach.surely <= reach.possibly


def test_best_keeps_the_limits_and_may_take_more_gpus(found):
    best = {(row["model"], row["gpu"]): row for row in found.best}
    row = best[DENSE_32B, "H100 SXM5 80GB"]
    assert row["gpus"] > 1, "one is out of reach"
    assert row["tpot_s"] <= 0.015
    free = answer_all(planner.Request(models=[DENSE_32B], gpus=["H100"])).best[0]
    assert free["usd_per_m_output_tokens"] < row["usd_per_m_output_tokens"], "limits cost"


def test_what_another_gpu_is_worth(found):
    """At that share of the price, the cheapest tokens cost the same."""
    best = {(row["model"], row["gpu"]): row for row in found.best}
    (each,) = [each for each in found.worth if each.candidate.name == MOE]
    h100, h20 = best[MOE, "H100 SXM5 80GB"], best[MOE, "H20 96GB"]
    assert each.low < each.times < each.high
    half = max(row["output_tokens_per_s_high"] / row["output_tokens_per_s"] for row in (h100, h20))
    assert half < each.high / each.times < half**2, (
        "wider than either, narrower than the worst of both at once"
    )
    usd = each.times * h100["price_usd_per_hour"]
    assert usd * h20["gpus"] / h20["output_tokens_per_s"] / 3600 * 1e6 == pytest.approx(
        h100["usd_per_m_output_tokens"]
    )
    assert any(
        "a token costs the same where a H20 96GB is rented for" in line for line in report.worth_lines(found)
    )


def test_what_was_not_asked_for_is_said():
    asked = [
        "engine.args.max_num_batched_tokens=2048",
        "engine.args.enforce_eager=true",
        "engine.routing=uniform",
    ]
    one = planner.Request(models=[MOE], gpus=["H100"], weights="int4", overrides=asked)
    text = " ".join(printed(answer_all(one), 80).split())
    assert "scenario chat, on average 512 tokens in and 256 out" in text
    assert "without CUDA graphs, up to 2,048 tokens a step; bytes a weight: Qwen3-30B-A3B 0.59" in text
    assert "routing is uniform, as asked" in text
    assert predict.UNMEASURED_ROUTING in " ".join(printed(answer_all(ASKED), 80).split())


def test_a_map_says_what_it_holds_fixed(found):
    assert "the same in all cells: answers of 256 tokens" in printed(found, 120)


def test_an_answer_of_one_token_has_no_time_between_tokens():
    asked = planner.Request(models=[DENSE_14B], gpus=["H100"], overrides=["workload.output_tokens=1"])
    assert not any("TPOT" in line for line in report.best_lines(answer_all(asked)))


def test_two_dense_models_have_no_map_and_that_is_said():
    found = answer_all(planner.Request(models=[DENSE_14B, DENSE_32B], gpus=["H100"]))
    assert found.maps == ()
    assert "no crossover map: none of these models has experts" in document(found)["notes"]
    assert "none of these models has experts" in printed(found, 80)


def test_a_moe_alone_asks_for_a_rival():
    assert "dense rival" in document(answer_all(planner.Request(models=[MOE], gpus=["H100"])))["notes"][0]


def test_what_does_not_fit_is_said_beside_what_does():
    found = answer_all(planner.Request(models=[DENSE_32B, DENSE_14B], gpus=["4090"], counts="2"))
    text = printed(found, 80)
    assert "Qwen3-32B does not fit on 2 × RTX 4090 24GB" in text
    assert "Predicted on 2 × RTX 4090 24GB" in text
    assert [row["fits"] for row in found.rows[:1]] == [False]


def test_each_has_its_own_smallest_and_all_an_equal_number():
    found = answer_all(planner.Request(models=[MOE, DENSE_14B], gpus=["L40S"]))
    assert {(row["model"], row["gpus"]) for row in found.rows} == {(MOE, 2), (DENSE_14B, 1), (DENSE_14B, 2)}
