"""Claims that no load decides, against sums by hand, published figures and price lists."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import catalog, stats
from profiler.arch import work
from profiler.claims import computed, configs, judge, languages
from profiler.claims.nouns import Case, Cell, Claim, Conditions, Grid, Models, Quality
from profiler.fit import GPU_OVERHEAD_BYTES, USABLE_FRAC
from profiler.plan import placement, question
from profiler.tokens.parallel import premium
from tests.claims.cases import claim as base_claim

GIB = 1 << 30
HERE = Grid(input_tokens=(1024,))
ELO = Conditions(quality=Quality(benchmark="lmarena_text_elo"))


def claim(metric: str, subject: object, baseline: object, **changes: object) -> Claim:
    sides = [Models(names=(each,)) if isinstance(each, str) else each for each in (subject, baseline)]
    return base_claim(
        **{"metric": metric, "subject": sides[0], "baseline": sides[1], "relation": "less"} | changes
    )


def only(asked: Claim) -> Case:
    (found,) = computed.cases(asked, [])
    return found


def ratio(case: Case) -> float:
    (each,) = case.evidence
    assert each.subject.exact is not None
    assert each.baseline.exact is not None
    return each.subject.exact / each.baseline.exact


# -------------------------------------------------------------------------------------- architecture


def test_flops_of_a_token_are_two_a_weight_and_four_a_cached_number():
    """Llama-2-7B: 32 layers, 4096 wide, every head its own cache."""
    side = configs.held("meta-llama/Llama-2-7b-hf", None)
    weights = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008) + 4096 * 32000
    for context in (0, 1, 2048):
        attention = 32 * 4 * 4096 * (context + 1)
        found = computed._flops(side, Cell(input_tokens=context)).value
        assert found == 2 * weights + attention


def test_deepseek_moe_takes_the_share_of_a_dense_models_operations_its_paper_says():
    """39.6 % of LLaMA2-7B's for 4,096 tokens of text (arXiv 2401.06066): attention grows with the context, so
    the mean token is that in the middle."""
    asked = claim(
        "flops_per_token",
        "deepseek-ai/deepseek-moe-16b-base",
        "meta-llama/Llama-2-7b-hf",
        relation="about",
        factor=0.396,
        cells=(Grid(input_tokens=(2048,)),),
    )
    case = only(asked)
    assert ratio(case) == pytest.approx(0.396, rel=0.02)
    assert judge.ruling(case).verdict == "supported"
    assert judge.ruling(replace(case, claim=replace(asked, factor=0.5))).verdict == "refuted"


def test_parameters_are_those_of_the_catalog():
    entry = catalog.models()["Qwen/Qwen3-30B-A3B"]
    case = only(claim("total_params", "Qwen3-30B-A3B", "Qwen3-32B"))
    assert case.evidence[0].subject.exact == entry.computed_text_params
    active = only(claim("active_params", "Qwen3-30B-A3B", "Qwen3-32B"))
    assert ratio(active) < 0.11 < ratio(case)
    assert case.setting is not None
    assert case.setting.machine == "any machine"


def test_cache_of_a_token_where_every_layer_keeps_all():
    """DeepSeek-V2 keeps 576 numbers a layer, Qwen3-32B keys and values of 8 heads."""
    case = only(claim("kv_bytes_per_token", "deepseek-ai/DeepSeek-V2", "Qwen3-32B"))
    assert case.evidence[0].subject.exact == 60 * 576 * 2
    assert case.evidence[0].baseline.exact == 64 * 2 * 8 * 128 * 2
    windows = only(claim("kv_bytes_per_token", "Qwen3-30B-A3B", "google/gemma-3-27b-it"))
    assert windows.evidence[0].baseline.exact is None
    assert judge.ruling(windows).verdict not in ("supported", "refuted")


def test_formats_are_no_property_of_models():
    unlike = only(claim("weights_bytes", "openai/gpt-oss-120b", "Qwen3-32B"))
    assert judge.ruling(unlike).verdict == "not comparable"
    assert "number formats" in unlike.doubts[0]
    alike = only(
        claim("weights_bytes", "openai/gpt-oss-120b", "Qwen3-32B", conditions=Conditions(precision="int4"))
    )
    assert not alike.doubts
    assert judge.ruling(alike).verdict == "refuted"


def test_a_precision_says_how_many_bytes_a_weight_takes():
    total = configs.held("Qwen3-32B", "bfloat16").shape.total_params
    assert configs.held("Qwen3-32B", "bfloat16").weights_bytes == 2 * total
    assert configs.held("Qwen3-32B", "float32").weights_bytes == 4 * total
    assert configs.held("Qwen3-32B", "fp8").bytes_each == pytest.approx(1.05, rel=0.02)
    assert configs.held("Qwen3-32B", "int4").bytes_each == pytest.approx(0.59, rel=0.02)
    for name, own in (("openai/gpt-oss-120b", "mxfp4"), ("Qwen/Qwen3-32B-AWQ", "int4")):
        assert configs.held(name, own) == configs.held(name, None)
    assert configs.held("Qwen/Qwen3-32B-AWQ", "int8").bytes_each > 1


def test_a_checkpoint_of_the_precision_asked_for_is_taken_as_it_is(tmp_path):
    """Groups of 32 weights have four times the scales of the usual 128."""
    own = {"quant_method": "gptq", "bits": 4, "group_size": 32}
    config = catalog.models()["Qwen/Qwen3-32B"].config | {"quantization_config": own}
    (tmp_path / "config.json").write_text(json.dumps(config))
    fine, coarse = (configs.held(name, "int4") for name in (str(tmp_path), "Qwen/Qwen3-32B"))
    assert fine == configs.held(str(tmp_path), None)
    assert fine.bytes_each > 1.05 * coarse.bytes_each


# ----------------------------------------------------------------------------------------------- fit


def test_the_smallest_gpu_holds_weights_runtime_and_cache():
    cell = Cell(batch=4, input_tokens=1000, output_tokens=24)
    side = configs.held("Qwen3-32B", None)
    found = computed.smallest_gpu_bytes(side, cell)
    cache = 64 * 2 * 8 * 128 * 2 * 4 * 1024
    whole = 2 * side.shape.total_params + GPU_OVERHEAD_BYTES + cache
    assert found.value == pytest.approx(whole / USABLE_FRAC, rel=1e-9)
    assert 0.02 < found.off_frac < 0.03


def test_two_accounts_may_be_off_in_opposite_directions():
    cell = Cell(input_tokens=1024)
    one, other = (
        computed.smallest_gpu_bytes(configs.held(n, None), cell) for n in ("Qwen3-32B", "Qwen3-14B")
    )
    case = only(claim("smallest_gpu_bytes", "Qwen3-32B", "Qwen3-14B", cells=(HERE,)))
    most = (1 + one.off_frac) * (1 + other.off_frac)
    assert case.evidence[0].systematic_frac == pytest.approx(most - 1)
    assert most > 1.04


def test_a_model_that_may_fit_one_board_may_need_two():
    """gpt-oss-20b takes all of 16 GB, give or take what our account is off by."""
    side, board = configs.held("openai/gpt-oss-20b", None), catalog.find_gpus("T4")[0]
    found = computed.gpus_needed(side, Cell(input_tokens=8192), board)
    assert (found.value, found.off_frac) == (2, 1.0)
    assert computed.gpus_needed(side, Cell(input_tokens=8192), catalog.find_gpus("L4")[0]) == (1, 0.0, None)


@pytest.mark.parametrize(
    ("model", "board", "precision", "verdict"),
    [
        ("meta-llama/Llama-4-Scout-17B-16E", "H100 SXM5 80GB", "int4", "supported"),
        ("openai/gpt-oss-120b", "H100 SXM5 80GB", None, "supported"),
        ("Qwen3-32B", "RTX 4090 24GB", None, "refuted"),
        # Within what our account of a model's memory may be off.
        ("openai/gpt-oss-20b", "T4 16GB", None, "undecided"),
    ],
)
def test_whether_a_model_fits_on_a_board(model, board, precision, verdict):
    asked = claim(
        "smallest_gpu_bytes",
        model,
        Models(gpu=board),
        margin_frac=0.0,
        conditions=Conditions(precision=precision),
        cells=(Grid(batch=(1,), input_tokens=(8192,)),),
    )
    assert judge.ruling(only(asked)).verdict == verdict


def test_as_many_gpus_are_needed_as_a_plan_says():
    """``profile plan`` counts on its own account of the same model."""
    asked = question.Request(
        models=["Qwen/Qwen3-235B-A22B", "Qwen/Qwen3-32B"],
        gpus=["H100 SXM5 80GB"],
        overrides=["workload.input_tokens=1023", "workload.output_tokens=1", "load.concurrency=1"],
    )
    planned = question.resolve(asked)
    for candidate in planned.candidates:
        placed = placement.smallest(planned, candidate, planned.gpus[0])
        side = configs.held(candidate.name, None)
        found = computed.gpus_needed(side, Cell(batch=1, input_tokens=1023), planned.gpus[0])
        assert placed is not None
        assert found.value == placed.gpus


def test_every_board_of_the_conditions_is_a_setting():
    boards = ("L40S 48GB", "RTX 4090 24GB")
    asked = claim(
        "gpus_needed", "Qwen3-30B-A3B", "Qwen3-14B", conditions=Conditions(gpus=boards), cells=(HERE,)
    )
    found = computed.cases(asked, [])
    assert [case.setting and case.setting.machine for case in found] == list(boards)
    assert {judge.ruling(case).verdict for case in found} == {"refuted"}
    (nowhere,) = computed.cases(replace(asked, conditions=Conditions()), [])
    assert "conditions.gpus" in (nowhere.impossible or "")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 64), st.integers(1, 8000), st.integers(0, 2))
def test_more_load_never_needs_less(batch, tokens, more):
    side, board = configs.held("google/gemma-3-12b-it", None), catalog.find_gpus("L4")[0]
    one, other = (Cell(batch=batch, input_tokens=n) for n in (tokens, tokens + 1000 * more))
    small, large = (computed.smallest_gpu_bytes(side, cell) for cell in (one, other))
    assert small.value <= large.value
    counts = [computed.gpus_needed(side, cell, board).value for cell in (one, other)]
    assert None in counts or counts[0] <= counts[1]


# -------------------------------------------------------------------------------------- which models


def test_classes_are_pairs_of_equal_quality():
    asked = claim("active_params", Models(kind="moe"), Models(kind="dense"), conditions=ELO)
    found = computed.cases(asked, [])
    pairs = [case.setting.pair for case in found if case.setting]
    assert "openai/gpt-oss-120b / google/gemma-3-27b-it" in pairs
    assert not any(pair.startswith("Qwen/Qwen3-30B-A3B / Qwen/Qwen3-14B") for pair in pairs)
    assert not any(case.doubts for case in found)
    (nothing,) = computed.cases(replace(asked, conditions=Conditions()), [])
    assert nothing.missing
    assert nothing.setting is None


def test_named_models_that_are_not_equally_good_are_doubted():
    case = only(claim("active_params", "Qwen3-30B-A3B", "Qwen3-32B", conditions=ELO))
    assert "undecided" in case.doubts[0]
    assert judge.ruling(case).verdict == "not comparable"


def test_what_cannot_be_computed_says_why():
    unknown = only(claim("active_params", "DeepSeek-1T", "Qwen3-32B"))
    assert "DeepSeek-1T is not known" in (unknown.impossible or "")
    beyond = only(
        claim(
            "flops_per_token",
            "Qwen3-30B-A3B",
            "meta-llama/Llama-2-70b-hf",
            cells=(Grid(input_tokens=(9000,)),),
        )
    )
    assert "context of 4,096 tokens" in beyond.evidence[0].doubts[0]
    assert judge.ruling(beyond).verdict == "not comparable"


def test_a_folder_with_a_config_is_a_model(tmp_path):
    (tmp_path / "own").mkdir()
    config = catalog.tiny_models()["tiny-moe"]
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    case = only(claim("total_params", str(tmp_path / "own"), "tiny-moe"))
    assert ratio(case) == 1
    (tmp_path / "own" / "config.json").write_text("{")
    broken = only(claim("total_params", str(tmp_path / "own"), "tiny-moe"))
    assert "not a readable JSON config" in (broken.impossible or "")


def test_a_shape_that_is_known_in_part_is_a_lower_bound():
    shape = replace(configs.held("Qwen3-32B", None).shape, missing=("a part",))
    side = configs.held("Qwen3-32B", None)._replace(shape=shape)
    assert "lower bounds" in next(side.doubts())
    assert work.weight_bytes(shape, side.widths) > 0


# --------------------------------------------------------------------------------------------- texts


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """40 lines; every ``my`` line has three times the words, which are as many tokens."""
    package = pytest.importorskip("tokenizers")
    del package
    lines = [n % 7 + 3 for n in range(40)]
    table = ["en\tmy\tfr"] + [f"{'a ' * n}\t{'b ' * 3 * n}\t{'c ' * n if n < 4 else ''}" for n in lines]
    (tmp_path / "parallel.tsv").write_text("\n".join(table) + "\n")
    model = {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "c": 2, "?": 3}, "unk_token": "?"}
    tokenizer = {"version": "1.0", "model": model, "added_tokens": []}
    path = tmp_path / "Qwen3-8B"
    path.mkdir()
    (path / "tokenizer.json").write_text(
        json.dumps(tokenizer | {"pre_tokenizer": {"type": "WhitespaceSplit"}})
    )
    monkeypatch.setenv(languages.TEXTS, str(tmp_path / "parallel.tsv"))
    monkeypatch.setenv(languages.TOKENIZERS, str(path))
    return tmp_path


def of_languages(subject: str, baseline: str, **changes: object) -> Claim:
    sides = Models(language=subject), Models(language=baseline)
    return claim("tokens_per_text", *sides, relation="more", **changes)


def test_a_language_of_three_times_the_tokens(texts):
    case = only(of_languages("my", "en", factor=2.0))
    assert judge.ruling(case).verdict == "supported"
    assert case.evidence[0].subject.values == pytest.approx([3.0] * languages.BLOCKS)
    assert judge.ruling(only(of_languages("my", "en", factor=4.0))).verdict == "direction only"
    assert judge.ruling(only(of_languages("en", "my"))).verdict == "refuted"


def test_without_texts_or_tokenizers_it_cannot_be_tested(texts, monkeypatch):
    few = only(of_languages("fr", "en"))
    assert "parallel lines" in few.evidence[0].missing[0]
    assert judge.ruling(few).verdict == "undecided"
    named = replace(of_languages("my", "en"), subject=Models(names=("Qwen3-8B",), language="my"))
    assert judge.ruling(only(named)).verdict == "supported"
    other = only(replace(named, subject=Models(names=("Qwen3-14B",), language="my")))
    assert "no tokenizer of Qwen3-14B" in (other.impossible or "")
    assert "no text in bn" in (only(of_languages("bn", "en")).impossible or "")
    monkeypatch.delenv(languages.TEXTS)
    assert "PROFILER_TEXTS" in (only(of_languages("my", "en")).impossible or "")


def test_text_that_is_lost_is_doubted(texts):
    table = "en\tmy\n" + "a a a\tb b b z\n" * 30
    (texts / "parallel.tsv").write_text(table)
    case = only(of_languages("my", "en"))
    assert "lost" in case.evidence[0].doubts[0]
    assert judge.ruling(case).verdict == "not comparable"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 90), st.integers(1, 90)), min_size=20, max_size=200))
def test_batches_of_lines_say_the_ratio_of_the_sums(counts):
    ours, theirs = ([pair[n] for pair in counts] for n in (0, 1))
    values = languages.in_blocks(ours, theirs)
    middle = sum(map(math.log, values)) / len(values)
    assert math.exp(middle) == pytest.approx(sum(ours) / sum(theirs))


def test_batches_scatter_as_lines_do():
    """Of lines that lean on nothing, either way gives the same error but for its degrees of freedom."""
    import numpy as np

    random, halves = np.random.default_rng(5), []
    for _ in range(200):
        theirs = random.integers(5, 40, 400)
        ours = np.maximum(1, np.round(theirs * 2.5 * np.exp(random.normal(0, 0.3, 400)))).astype(int)
        by_line = premium(ours.tolist(), theirs.tolist(), parallel=True)
        logs = np.log(languages.in_blocks(ours.tolist(), theirs.tolist()))
        assert by_line is not None
        assert by_line.low is not None
        line = math.log(by_line.value / by_line.low) / stats.t_quantile(399)
        halves.append((logs.std(ddof=1) / math.sqrt(languages.BLOCKS) / line) ** 2)
    assert np.mean(halves) == pytest.approx(1, abs=0.1)
