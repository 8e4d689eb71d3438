"""What answers take and what tokens cost elsewhere: one model at two lengths, runs against price lists."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from profiler import catalog, consumption
from profiler.claims import answers, computed, evidence, judge, ledger
from profiler.claims.ledger import Block, Held, Leg, Look, Takes, Trial
from profiler.claims.nouns import Case, Claim, Conditions, Grid, Models, Quality
from profiler.errors import InputError
from profiler.schema import Estimate, Price
from profiler.settings import Workload
from tests import make
from tests.claims.cases import claim as base_claim
from tests.claims.test_evidence import sealed

ONE_USD = Price(usd_per_hour=1.0, per="machine", source="a test")
ANSWERS = base_claim(
    subject=Models(names=("sparse",), output_tokens=10),
    baseline=Models(names=("sparse",), output_tokens=5),
    metric="usd_per_answer",
    relation="more",
    factor=1.5,
    cells=(Grid(batch=(1,), input_tokens=(10,)),),
)


def asked(output_tokens: int, **changes: object):
    workload = Workload(input_tokens=10, output_tokens=output_tokens, **changes)
    return replace(make.SCENARIO, workload=workload)


def run(out: Path, name: str, tokens: int = 5, usd: float = 1.0, **changes: object):
    """One start at one load: a request every 0.2 s (at speed 1) with so many tokens."""
    changes = {"scenario": asked(tokens)} | changes
    price = replace(ONE_USD, usd_per_hour=usd)
    return sealed(out, name, batches=(1,), tokens=tokens, price=price, **changes)


def only(claim: Claim, runs) -> Case:
    (found,) = evidence.cases(claim, runs)
    return found


# ----------------------------------------------------------------------------------------- answers


@pytest.fixture
def thinking(tmp_path):
    """Four starts of each length; five requests a second whatever their length."""
    return [run(tmp_path, f"{n}-{tokens}", tokens, speed=1 - n / 100) for n in range(4) for tokens in (5, 10)]


def test_an_answer_costs_its_tokens(thinking):
    case = only(ANSWERS, thinking)
    (each,) = case.evidence
    assert each.baseline.values == pytest.approx([0.2 / 3600 / (1 - n / 100) for n in range(4)], rel=0.02)
    assert each.subject.values == pytest.approx(each.baseline.values, rel=0.05)  # as many requests a second
    assert [Path(folder).name for folder in each.subject.runs] == [f"{n}-10" for n in range(4)]
    assert case.setting.subject == "sparse, answers of 10 tokens"
    assert judge.ruling(case).verdict == "refuted"
    assert not each.doubts


def test_longer_answers_of_a_slower_engine_cost_more(tmp_path):
    runs = [run(tmp_path, f"{n}-5", 5, speed=1 - n / 100) for n in range(4)]
    runs += [run(tmp_path, f"{n}-10", 10, speed=0.5 - n / 200) for n in range(4)]
    case = only(ANSWERS, runs)
    assert math.exp(sum(map(math.log, case.evidence[0].subject.values)) / 4) == pytest.approx(
        2 * math.exp(sum(map(math.log, case.evidence[0].baseline.values)) / 4), rel=0.05
    )
    assert judge.ruling(case).verdict == "supported"
    assert judge.ruling(only(replace(ANSWERS, factor=3.0), runs)).verdict == "direction only"


def test_one_length_alone_says_nothing(thinking):
    case = only(ANSWERS, [each for each in thinking if each.folder.name.endswith("-5")])
    assert case.evidence[0].missing == (
        "no figure of sparse with answers of 10 tokens at batch 1, 10 + any tokens",
    )
    assert judge.ruling(case).verdict == "undecided"
    assert case.missing == ("profile claims run test.toml",)
    one = only(ANSWERS, thinking[:2])
    assert "more engine starts of sparse" in one.evidence[0].missing[0]
    assert judge.ruling(one).verdict == "undecided"
    nothing = only(ANSWERS, [])
    assert nothing.setting is None
    assert nothing.missing[-1] == "profile claims run test.toml"
    anybody = replace(ANSWERS, subject=Models(output_tokens=10), baseline=Models(output_tokens=5))
    assert only(anybody, []).missing[-1] == "profile claims run test.toml --model A-MODEL"
    assert judge.ruling(only(anybody, thinking)).verdict == "refuted"


def test_requests_differ_in_their_answers_alone(tmp_path):
    """A shared prefix on one side is other work."""
    runs = [run(tmp_path, f"{n}-5", 5) for n in range(2)]
    runs += [run(tmp_path, f"{n}-10", 10, scenario=asked(10, shared_prefix_tokens=5)) for n in range(2)]
    case = only(replace(ANSWERS, cells=(Grid(batch=(1,)),)), runs)
    assert len(case.evidence[0].baseline.values) == 2
    assert not case.evidence[0].subject.values
    assert judge.ruling(case).verdict == "undecided"


def test_answers_need_lengths(thinking):
    with pytest.raises(InputError, match="output_tokens"):
        evidence.cases(replace(ANSWERS, subject=Models(names=("sparse",))), thinking)


def test_energy_of_an_answer_is_that_of_its_tokens():
    known = {consumption.GROSS: Estimate(0.5), "output_tokens_mean": Estimate(300.0)}
    manifest = make.manifest("x")
    point = SimpleNamespace(
        line=SimpleNamespace(estimate=known.get),
        start=SimpleNamespace(folder="x", manifest=manifest),
        lengths=(10.0, 300.0),
    )
    found = answers._side([point], *answers._PER_TOKEN["energy_j_per_answer"])
    assert found.values == (150.0,)
    known.pop(consumption.GROSS)
    assert answers._side([point], *answers._PER_TOKEN["energy_j_per_answer"]).values == ()


# ------------------------------------------------------------------------------------------ bought

SERVED = base_claim(
    subject=Models(names=("sparse",)),
    baseline=Models(api="qwen3-32b"),
    metric="usd_per_m_output_tokens",
    relation="less",
    cells=(Grid(batch=(1,)),),
)


def test_what_an_api_takes_for_the_same_tokens(tmp_path):
    """10 tokens in and 5 out: of each provider three prices, and the middle of the ends."""
    runs = [run(tmp_path, str(n), speed=1 - n / 200, usd=0.01) for n in range(4)]
    case = only(SERVED, runs)
    (each,) = case.evidence
    offers = catalog.api_offers("qwen3-32b")
    asked = sorted((10 * offer.usd_per_m_input + 5 * offer.usd_per_m_output) / 5 for offer in offers)
    assert len(asked) > 1
    assert each.baseline.exact == pytest.approx(math.sqrt(asked[0] * asked[-1]), rel=1e-6)
    assert each.systematic_frac == pytest.approx(math.sqrt(asked[-1] / asked[0]) - 1, rel=1e-6)
    assert each.subject.values[0] == pytest.approx(0.01 / 3600 / 25 * 1e6, rel=0.02)
    assert case.setting.baseline == "qwen3-32b (API)"
    assert judge.ruling(case).verdict == "supported"


@pytest.mark.parametrize(("usd", "verdict"), [(1.0, "refuted"), (0.05, "undecided"), (0.01, "supported")])
def test_a_price_between_two_providers_decides_nothing(tmp_path, usd, verdict):
    """0.05 USD an hour is 0.56 per million: dearer than the cheapest provider, cheaper than the dearest."""
    runs = [run(tmp_path, str(n), speed=1 - n / 200, usd=usd) for n in range(4)]
    assert judge.ruling(only(SERVED, runs)).verdict == verdict


def test_the_sides_may_be_turned_round(tmp_path):
    runs = [run(tmp_path, str(n), speed=1 - n / 200, usd=0.01) for n in range(4)]
    turned = replace(SERVED, subject=SERVED.baseline, baseline=SERVED.subject, relation="more")
    case = only(turned, runs)
    assert case.evidence[0].subject.exact is not None
    assert case.setting.subject == "qwen3-32b (API)"
    assert judge.ruling(case).verdict == "supported"


def test_offers_of_a_gpu_widen_what_the_run_may_cost(tmp_path):
    """Rented from 0.005 to 0.04 USD, 0.01 in the middle: the ratio may be off by 4 more."""
    price = replace(ONE_USD, usd_per_hour=0.01, low_usd_per_hour=0.005, high_usd_per_hour=0.04)
    runs = [sealed(tmp_path, str(n), batches=(1,), price=price, scenario=asked(5)) for n in range(2)]
    (each,) = only(SERVED, runs).evidence
    (alone,) = only(SERVED, [run(tmp_path, f"x{n}", usd=0.01) for n in range(2)]).evidence
    assert 1 + each.systematic_frac == pytest.approx(4 * (1 + alone.systematic_frac), rel=1e-6)


def test_no_price_no_run_no_offer(tmp_path):
    unpriced = [sealed(tmp_path, str(n), batches=(1,), scenario=asked(5)) for n in range(2)]
    assert "--price" in " ".join(only(SERVED, unpriced).missing)
    assert "no run of sparse" in only(SERVED, []).missing[0]
    nobody = only(replace(SERVED, baseline=Models(api="a-model-nobody-sells")), unpriced)
    assert "no API price" in (nobody.impossible or "")
    (other,) = computed.cases(replace(SERVED, metric="energy_j_per_output_token"), [])
    assert "no price list says it" in (other.impossible or "")


def test_random_weights_are_doubted_and_so_is_unequal_quality(tmp_path):
    runs = [run(tmp_path, str(n), usd=0.01, weights="random") for n in range(2)]
    assert judge.ruling(only(SERVED, runs)).verdict == "not comparable"
    elo = Conditions(weights="any", quality=Quality(benchmark="lmarena_text_elo"))
    case = only(replace(SERVED, conditions=elo), runs)
    assert "no lmarena_text_elo score of sparse" in case.doubts[0]


# ------------------------------------------------------------------------------------ list against list


def listed(subject: str, baseline: str, **changes: object) -> list[Case]:
    claim = base_claim(
        **{
            "subject": Models(api=subject),
            "baseline": Models(api=baseline),
            "metric": "usd_per_m_blended_tokens",
            "relation": "less",
        }
        | changes
    )
    return evidence.cases(claim, [])


def test_the_market_disagrees_with_itself():
    """DeepInfra and Novita ask as much for the MoE as for the dense model; Alibaba (China) 2.6 times less."""
    same = {case.setting.machine: judge.ruling(case).verdict for case in listed("qwen3-30b-a3b", "qwen3-32b")}
    assert same == {"DeepInfra": "refuted", "Novita": "refuted"}
    (china,) = listed("qwen3-30b-a3b-instruct-2507", "qwen3-32b", factor=2.5)
    assert china.setting.engine == "price list, CNY"
    assert china.evidence[0].subject.exact == pytest.approx(0.75 * 0.8 + 0.25 * 3)
    assert judge.ruling(china).verdict == "supported"


def test_what_nobody_named_asks_is_no_provider(monkeypatch):
    """Prices summed up over several sellers tell of no one's."""
    several = "(several, by Artificial Analysis)"
    known = catalog.api_offers("gemma-3-27b-it") + catalog.api_offers("qwen3-32b")
    sold = {name: tuple(replace(each, provider=several) for each in known) for name in ("a", "b")}
    monkeypatch.setattr(catalog, "api_offers", lambda model, rates=None: sold.get(model, ()))
    (case,) = listed("a", "b")
    assert "sells both" in (case.impossible or "")


def test_a_whole_bill_depends_on_lengths():
    cells = (Grid(input_tokens=(1000,), output_tokens=(500,)),)
    case = listed("qwen3-30b-a3b", "qwen3-32b", metric="usd_per_m_output_tokens", cells=cells)[0]
    offer = next(
        each for each in catalog.api_offers("qwen3-30b-a3b") if each.provider == case.setting.machine
    )
    whole = (1000 * offer.usd_per_m_input + 500 * offer.usd_per_m_output) / 500
    assert case.evidence[0].subject.exact == pytest.approx(whole)
    without = listed("qwen3-30b-a3b", "qwen3-32b", metric="usd_per_request")[0]
    assert "depends on lengths" in without.evidence[0].missing[0]
    assert judge.ruling(without).verdict == "undecided"


def test_two_models_that_nobody_sells_both():
    (case,) = listed("gpt-4o-mini-2024-07-18", "qwen3-32b")
    assert "sells both" in (case.impossible or "")


def test_a_trial_of_answers_is_judged_by_what_its_last_look_saw(tmp_path):
    """The fifth block is held and not looked at yet; other runs of the setting are left out."""
    runs = [run(tmp_path, f"{tokens}-{n}", tokens, speed=1 - n / 100) for n in range(6) for tokens in (5, 10)]
    legs = [Leg(side="subject", output_tokens=10), Leg(side="baseline", output_tokens=5)]
    blocks = tuple(
        Block(
            order=tuple(legs),
            held=tuple(Held(leg=leg, run=f"{leg.output_tokens}-{n}", took_s=1.0) for leg in legs),
        )
        for n in range(5)
    )
    trial = Trial(
        id="test-20260101T000000Z-1",
        claim=ANSWERS,
        digest=ledger.digest(ANSWERS),
        subject="sparse",
        baseline="sparse",
        engine="transformers",
        overrides=(),
        weights="auto",
        seed=1,
        looks_at=(4, 8),
        takes=Takes(starts=16, seconds=1.0),
        machine={},
        blocks=blocks,
        looks=(Look(starts=4, frac=0.5, verdict="undecided", why="", decision="go on"),),
    )
    ledger.write(tmp_path, trial)
    case = only(ANSWERS, runs)
    assert case.looks == (0.5,)
    assert len(case.evidence[0].subject.values) == len(case.evidence[0].baseline.values) == 4
