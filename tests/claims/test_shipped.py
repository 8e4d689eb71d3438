"""The shipped claims: all there, honest about conditions, and right where nothing need be run."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from profiler import catalog
from profiler.catalog.scores import quality
from profiler.claims import computed, hardware, judge, metrics, reading
from profiler.claims.nouns import Claim
from profiler.report import listing
from tests.test_shape import ROOT

SHIPPED = {claim.id: claim for claim in reading.shipped()}
# What no claims to be a test would be without (docs/claims.md).
WANTED = {
    *("moe-lower-energy", "moe-cheaper-per-token", "moe-faster", "moe-reduces-computation"),
    *("moe-suits-bandwidth-poor-gpus", "moe-suits-compute-poor-gpus", "moe-suits-memory-poor-gpus"),
    *("moe-more-energy-in-company", "qwen3-runtime-inversion", "qwen1.5-moe-1.74x"),
    *("qwen3-30b-a3b-vs-32b-speed", "qwen3-30b-a3b-vs-14b-speed"),
    *("qwen3-30b-a3b-vs-32b-energy", "qwen3-30b-a3b-vs-14b-energy-counter"),
    *("mixtral-8x7b-6x", "deepseekmoe-16b-2.5x", "qwen3-next-10x-long-context"),
    *("thinking-costs-8x-per-answer", "thinking-takes-8x-energy-per-answer"),
    *("burmese-costs-more-tokens", "bengali-costs-more-tokens", "urdu-costs-more-tokens"),
    *("own-server-undercuts-closed-api", "tiny-moe-vs-tiny-dense-alone"),
}


def test_what_was_promised_is_there():
    assert not WANTED - SHIPPED.keys()


@pytest.mark.parametrize("claim", SHIPPED.values(), ids=SHIPPED)
def test_each_says_who_when_what_and_where(claim: Claim):
    assert claim.source.name
    assert claim.tags
    assert not claim.text.endswith(".")
    assert claim.untestable is not None or claim.grid()
    names = [*claim.subject.names, *claim.baseline.names]
    unknown = [name for name in names if not catalog.find(name) and name not in catalog.tiny_models()]
    assert claim.untestable or not unknown or claim.id in ("dbrx-faster-than-70b", "nemotron-3-nano-7x"), (
        unknown
    )


@pytest.mark.parametrize("claim", SHIPPED.values(), ids=SHIPPED)
def test_what_depends_on_the_load_has_its_lengths_fixed_beforehand(claim: Claim):
    """A claim that leaves them open is as good as its friendliest workload."""
    if claim.untestable is None and metrics.of(claim.metric).kind == "runs" and not metrics.api_priced(claim):
        assert all(None not in (cell.batch, cell.input_tokens, cell.output_tokens) for cell in claim.grid())


def test_general_claims_hold_quality_equal():
    general = [claim for claim in SHIPPED.values() if "general" in claim.tags]
    assert len(general) == 8
    known = {score.benchmark for score in quality() if score.low is not None}
    for claim in general:
        assert claim.conditions.quality is not None
        assert claim.conditions.quality.benchmark in known, "intervals are needed to call two models equal"
        assert (claim.subject.kind, claim.baseline.kind) == ("moe", "dense")


def test_claims_of_the_tiny_models_can_be_tried_on_any_machine():
    for claim in (claim for claim in SHIPPED.values() if "tiny" in claim.tags):
        assert claim.conditions.weights == "any"
        assert not claim.conditions.gpus
        assert claim.conditions.engine is None


# --------------------------------------------------------------------------- judged without any run


def verdicts(name: str) -> list[tuple[str, float]]:
    """Verdict and ratio of the first cell, case by case."""
    rulings = [judge.ruling(case) for case in computed.cases(SHIPPED[name], [])]
    return [
        (each.verdict, round(each.findings[0].ratio.value, 4) if each.findings[0].ratio else 0.0)
        for each in rulings
    ]


# Ratios worked out by hand from the configs (parameters) or the papers' own tables.
EXACT = {
    "tiny-moe-active-params": ("supported", 0.1193),
    "qwen1.5-moe-a-third-active": ("supported", 0.3191),
    "qwen3-235b-a22b-a-third-active": ("supported", 0.3052),
    # 3.35e9 of 32.8e9: the tenth, within the margin
    "qwen3-30b-a3b-vs-qwq-active": ("supported", 0.1023),
    # 2.73e9 of 13.2e9 without embeddings: a 4.84th
    "qwen3-30b-a3b-a-fifth-active": ("direction only", 0.2067),
    # (512 + 64) × 60 layers over 2 × 8 × 128 × 95: the rest of the 93.3 % is 6-bit numbers
    "deepseek-v2-kv-cache": ("direction only", round(576 * 60 / (2 * 8 * 128 * 95), 4)),
    "deepseekmoe-16b-flops-vs-llama2": ("supported", 0.3995),
    "deepseekmoe-16b-flops-vs-7b": ("supported", 0.408),
    # (3 × 0.8 + 3) / (3 × 2 + 8) CNY
    "qwen3-30b-a3b-vs-32b-api-price": ("supported", round(5.4 / 14, 4)),
}


@pytest.mark.parametrize("name", EXACT)
def test_counted_claims_come_out_as_worked_out_by_hand(name):
    assert verdicts(name) == [EXACT[name]]


def test_all_providers_that_sell_both_ask_the_same():
    assert verdicts("qwen3-30b-a3b-vs-32b-api-parity") == [("supported", 1.0)] * 2


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("deepseekmoe-16b-fits-40gb", "supported"),
        ("gpt-oss-120b-fits-80gb", "supported"),
        ("llama4-scout-fits-one-h100", "supported"),
        ("gpt-oss-20b-fits-16gb", "undecided"),  # 4 % over with our runtime, which is known to half
    ],
)
def test_what_fits(name, verdict):
    assert [each for each, _ in verdicts(name)] == [verdict]


def test_no_moe_of_equal_quality_needs_less_memory():
    found = verdicts("moe-suits-memory-poor-gpus")
    assert found
    assert {verdict for verdict, _ in found} == {"refuted"}


def test_equal_quality_is_no_rule_for_computation():
    """gpt-oss-120b computes a fifth of Gemma 3 27B's, DeepSeek-V3 more than Qwen3-32B."""
    assert {"supported", "refuted"} == {verdict for verdict, _ in verdicts("moe-reduces-computation")}


# ------------------------------------------------------------------------------------------ hardware


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("H100 SXM5 80GB", ()),
        ("H200 SXM 141GB", ()),
        ("A100 SXM4 40GB", ()),
        ("H20 96GB", ("compute-poor",)),
        ("L40S 48GB", ("bandwidth-poor",)),
        ("L4 24GB", ("bandwidth-poor", "memory-poor")),
        ("RTX 4090 24GB", ("bandwidth-poor", "memory-poor")),
        ("RTX 3090 24GB", ("compute-poor", "memory-poor")),
        ("RTX 5090 32GB", ("memory-poor",)),
        ("RTX 4090 D 24GB", ("memory-poor",)),  # no source says its bandwidth
    ],
)
def test_boards_are_poor_in_what_their_sheet_says(gpu, expected):
    spec = next(spec for spec in catalog.gpus() if spec.gpu == gpu)
    assert hardware.classes(spec) == expected


def test_a_board_is_known_by_its_driver_and_an_unknown_one_is_of_no_class():
    assert hardware.is_of("NVIDIA L40S", None, "bandwidth-poor") is True
    assert hardware.is_of("NVIDIA L40S", None, "memory-poor") is False
    assert hardware.is_of("NVIDIA H20", None, "compute-poor") is True
    assert hardware.is_of("Radeon VII", None, "compute-poor") is None
    assert not any("H100" in spec.gpu for kind in CLASSES for spec in hardware.of_class(kind))
    assert all(hardware.of_class(kind) for kind in CLASSES)


CLASSES = ("bandwidth-poor", "compute-poor", "memory-poor")


def test_a_cpu_of_a_users_sheet_is_of_no_class(tmp_path, monkeypatch):
    sheet = tmp_path / "gpus.toml"
    sheet.write_text(
        '[[gpu]]\ngpu = "my CPU"\nsource = "measured"\nkind = "cpu"\nmem_gb = 16\nmem_bw_gbs = 20\n'
        "dense_bf16_tflops = 0.5\n"
    )
    monkeypatch.setenv(catalog.SHEET_VARIABLE, str(sheet))
    assert hardware.classes(catalog.gpus()[0]) == ()


# ------------------------------------------------------------------------------- the list, the document


def test_the_list_shows_every_claim_and_json_its_source():
    text = listing.render(listing.list_claims(), as_json=False)
    assert text.splitlines()[0].split()[:3] == ["claim", "text", "metric"]
    assert len(text.splitlines()) == 1 + len(SHIPPED)
    assert max(map(len, text.splitlines())) <= 180
    rows = {row["claim"]: row for row in json.loads(listing.render(listing.list_claims(), as_json=True))}
    assert rows["qwen1.5-moe-1.74x"]["ratio"] == "≥ 1.74"
    assert rows["moe-lower-energy"]["ratio"] == "< 1"
    assert rows["moe-lower-energy"]["subject"] == "any moe"
    assert rows["qwen3-30b-a3b-vs-32b-energy"]["ratio"] == "≤ 1/3.56"
    assert rows["qwen3-30b-a3b-vs-32b-api-parity"]["ratio"] == "about 1"
    assert rows["gpt-oss-20b-fits-16gb"]["baseline"] == "T4 16GB"
    assert rows["thinking-costs-8x-per-answer"]["subject"] == "answers of 2,304 tokens"
    assert rows["arctic-training"]["takes"] == "not testable"
    assert rows["deepseek-r1-545-margin"]["takes"] == "prices"
    assert all(row["source"] and row["date"] for row in rows.values())


def test_the_document_names_every_claim_once_in_its_table():
    table = (ROOT / "docs/claims.md").read_text().partition("## Shipped claims")[2]
    rows = Counter(re.findall(r"^\| `([a-z0-9._-]+)` \|", table, re.MULTILINE))
    assert rows == Counter(list(SHIPPED))


def test_the_documents_example_is_a_claim(tmp_path: Path):
    text = (ROOT / "docs/claims.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "mine.toml"
    path.write_text(example)
    assert len(reading.read(path).grid()) == 6
