"""Claim files: what they may say, and the one line that says what is wrong with one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler import catalog
from profiler.claims import checks, metrics, reading
from profiler.claims.nouns import Cell, Claim
from profiler.errors import InputError
from profiler.settings import EngineSettings

GOOD = {
    "": {"text": "A is faster than B", "metric": "output_tokens_per_s", "relation": "more"},
    "source": {"name": "somebody", "date": "2025-04-29"},
    "subject": {"names": ["Qwen/Qwen3-30B-A3B"]},
    "baseline": {"names": ["Qwen/Qwen3-14B"]},
    "conditions": {"gpus": ["H100 SXM5 80GB"], "gpu_count": 1, "engine": "vllm", "precision": "bf16"},
    "cells": {"batch": [1, 8], "input_tokens": [512], "output_tokens": [256]},
}


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f'"{key}" = {toml(each)}' for key, each in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)


def written(folder: Path, changes: dict[str, object] | None = None, name: str = "mine.toml") -> Path:
    """The good claim with ``table.key`` replaced, or left out where the value is None."""
    tables: dict[str, dict[str, object]] = {key: dict(value) for key, value in GOOD.items()}
    for path, value in (changes or {}).items():
        table, _, key = path.rpartition(".")
        if key in tables and not table:
            tables[key] = dict(value) if value is not None else {}
        elif value is None:
            tables[table].pop(key, None)
        else:
            tables.setdefault(table, {})[key] = value
    text = "\n".join(f"{key} = {toml(value)}" for key, value in tables.pop("").items())
    for table, values in tables.items():
        if values or table in ("subject", "baseline"):
            text += f"\n\n{'[[cells]]' if table == 'cells' else f'[{table}]'}\n"
            text += "\n".join(f"{key} = {toml(value)}" for key, value in values.items())
    path = folder / name
    path.write_text(text + "\n")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        reading.read(path)
    assert caught.value.exit_code == 2
    message = str(caught.value)
    assert message.startswith(str(path)), message
    assert "\n" not in message
    return message.removeprefix(str(path))


def outcome(path: Path) -> str | None:
    try:
        assert isinstance(reading.read(path), Claim)
    except InputError as error:
        return str(error)
    return None


# -------------------------------------------------------------------------------------- what is read


def test_a_claim_of_ones_own(tmp_path):
    claim = reading.read(written(tmp_path))
    assert claim.id == "mine"
    assert claim.grid() == [
        Cell(batch=1, input_tokens=512, output_tokens=256),
        Cell(batch=8, input_tokens=512, output_tokens=256),
    ]
    assert claim.conditions.precision == "bfloat16", "as an engine calls it"
    assert claim.margin_frac is None
    assert metrics.margin_frac(claim) == 0.03


def test_one_value_is_a_list_of_one_and_shares_may_be_percent(tmp_path):
    changes = {"cells": {"batch": 4}, "subject.names": "tiny-moe", "baseline.names": "tiny-dense"}
    changes |= {"conditions": {"weights": "any"}, "margin_frac": "10%"}
    claim = reading.read(written(tmp_path, changes))
    assert claim.subject.names == ("tiny-moe",)
    assert claim.grid() == [Cell(batch=4)]
    assert claim.margin_frac == pytest.approx(0.1)


def test_dates_may_be_written_as_toml_has_them(tmp_path):
    path = written(tmp_path)
    for day in ("2025-04-29", "2025"):
        path.write_text(re.sub("date = .*", f"date = {day}", path.read_text()))
        assert reading.read(path).source.date == day


def test_a_loose_name_is_every_board_it_may_mean(tmp_path):
    claim = reading.read(
        written(tmp_path, {"conditions.gpus": ["a100", "H20"], "conditions.gpu_count": None})
    )
    assert "A100 SXM4 80GB" in claim.conditions.gpus
    assert "A100 PCIe 40GB" in claim.conditions.gpus
    assert "H20 96GB" in claim.conditions.gpus
    assert set(claim.conditions.gpus) <= {spec.gpu for spec in catalog.gpus()}


def test_fields_of_a_trial_are_one_key_each_in_any_spelling(tmp_path):
    path = written(tmp_path)
    tables = "[plan]\nstarts = 4\n[plan.set]\nmeasure.window_s = 3\nsubject.engine.args.x = 1\n"
    path.write_text(path.read_text() + tables)
    flat = reading.read(path).plan.set
    assert flat == {"measure.window_s": 3, "subject.engine.args.x": 1}
    path.write_text(path.read_text().replace("measure.window_s = 3", '"measure.window_s" = 3'))
    assert reading.read(path).plan.set == flat


def test_a_claim_nothing_can_test_may_name_any_metric(tmp_path):
    changes = {"metric": "training_cost", "untestable": "training is over", "cells": None, "factor": 4}
    assert reading.read(written(tmp_path, changes)).untestable == "training is over"


# ----------------------------------------------------------------------------------- what is refused

A_CLASS = {"subject": {"kind": "moe"}, "baseline": {"kind": "dense"}}
BY_CONFIG = {"metric": "active_params", "cells": None, "conditions": None}
QUALITY = {"conditions.quality": {"benchmark": "lmarena_text_elo"}}
ANSWERS = {
    "metric": "usd_per_answer",
    "subject.output_tokens": 9,
    "baseline.output_tokens": 3,
    "cells": {"batch": 1, "input_tokens": 1},
}
WRONG = {
    # words nobody knows
    "unknown key": ({"speed": 1}, "unknown key speed"),
    "unknown key below": ({"subject.model": "x"}, "unknown key subject.model"),
    "no text": ({"text": None}, "text is missing"),
    "empty text": ({"text": " "}, "text: "),
    "its own id": ({"id": "other"}, "id: the claim's id is the name of its file, mine"),
    "metric": ({"metric": "tokens_per_s"}, "metric: unknown metric 'tokens_per_s'"),
    "relation": ({"relation": "better"}, "relation: expected one of 'about', 'equal', 'less', 'more', got"),
    "model": ({"subject.names": ["Qwen3-30B-A33B"]}, "subject.names: unknown model 'Qwen3-30B-A33B' (did"),
    "gpu": ({"conditions.gpus": ["H101"]}, "conditions.gpus: unknown GPU 'H101' (nearest: "),
    "gpu of another type": ({"conditions.gpus": [3]}, "conditions.gpus: expected a list of text, got"),
    "engine": (
        {"conditions.engine": "vlm"},
        "conditions.engine: unknown engine 'vlm' (did you mean 'vllm'?)",
    ),
    "precision": ({"conditions.precision": "bf17"}, "conditions.precision: unknown 'bf17'; one of bfloat16"),
    "date": ({"source.date": "April 2025"}, "source.date: expected a date such as"),
    "no such day": ({"source.date": "2025-02-30"}, "source.date: expected a date"),
    "benchmark": (
        A_CLASS | {"conditions.quality": {"benchmark": "elo"}},
        "conditions.quality.benchmark: no scores of b",
    ),
    "api": (
        {"metric": "usd_per_request", "baseline": {"api": "gpt-9"}},
        "baseline.api: no provider's price of 'g",
    ),
    # figures that cannot be meant
    "about what": ({"relation": "about"}, "factor: is missing"),
    "equal to what": ({"relation": "equal", "factor": 2}, "factor: relation 'equal' has none"),
    "exactly equal": ({"relation": "equal", "margin_frac": 0.0}, "margin_frac: relation 'equal' needs one"),
    "half as much more": (
        {"factor": 0.5},
        "factor: 0.5 is no more than 1 and the practical margin of 0.03; 2 times",
    ),
    "inside the margin": ({"factor": 1.02}, "factor: 1.02 is no more than 1 and the practical margin"),
    "no number": ({"factor": float("inf")}, "factor: expected a finite number"),
    "negative": ({"factor": -2.0}, "factor: expected a number > 0, got -2.0"),
    "a batch of none": ({"cells.batch": [0]}, "cells[0].batch: expected a list of whole numbers ≥ 1, got 0"),
    # sides
    "nobody": ({"subject": {}}, "subject.names: is missing"),
    "itself": ({"baseline.names": ["Qwen/Qwen3-30B-A3B"]}, "baseline: is the subject itself"),
    "name and kind": ({"subject.kind": "moe"}, "subject.kind: names and kind: a side is one of these"),
    "unlike models": (A_CLASS, "conditions.quality: is missing: of all"),
    "language of a load": (
        {"subject.language": "bn"},
        "subject.language: output_tokens_per_s does not depend",
    ),
    "no language": (
        {"metric": "tokens_per_text", "cells": None, "conditions": None},
        "subject.language: is miss",
    ),
    "no answers": ({"metric": "usd_per_answer", "cells": {"batch": 1}}, "subject.output_tokens: is missing"),
    "a board that talks": (
        {"baseline": {"gpu": "T4"}},
        "baseline.gpu: a board is the baseline of smallest_gpu",
    ),
    "unknown board": (
        {"metric": "smallest_gpu_bytes", "baseline": {"gpu": "T5000"}, "conditions": None}
        | {"cells": {"input_tokens": 1}},
        "baseline.gpu: unknown GPU 'T5000'",
    ),
    "sold speed": (
        {"baseline": {"api": "gpt-4o"}},
        "baseline.api: of a model that is sold by the token no output_",
    ),
    "random tiny": (
        {"subject.names": ["tiny-moe"], "conditions": None},
        "conditions.weights: the built-in models only have random ones",
    ),
    "on both sides": (
        {"baseline.names": ["Qwen/Qwen3-14B", "qwen3-30b-a3b"]},
        "baseline.names: Qwen/Qwen3-30B-A3B is",
    ),
    "answers of two": (ANSWERS, "baseline.names: usd_per_answer compares one model with itself"),
    "answers of a kind": (
        ANSWERS | {"subject": {"kind": "moe", "output_tokens": 9}},
        "subject.kind: usd_per_answer is of models by name",
    ),
    # conditions that nothing meets, or that mean nothing
    "weights of none": (
        {"conditions": {"engine": "simulated"}},
        "conditions.weights: the simulated engine has none",
    ),
    "precision of a count": (
        BY_CONFIG | {"conditions.precision": "fp8"},
        "conditions.precision: active_params does",
    ),
    "gpus of no kind": (
        {"metric": "gpus_needed", "conditions": None, "cells": {"input_tokens": [8]}},
        "conditions.gpus: is missing: gpus_needed depends on it",
    ),
    "thoughts beyond the context": (
        ANSWERS | {"baseline": {"names": ["Qwen/Qwen3-30B-A3B"], "output_tokens": 40960}},
        "cells: 40,961 tokens: the context of",
    ),
    "energy of an endpoint": (
        {"metric": "energy_j_per_output_token", "conditions": {"engine": "endpoint"}},
        "conditions.engine: an endpoint runs elsewhere",
    ),
    "poor and rich": (
        {"conditions.gpu_class": "memory-poor"},
        "conditions.gpu_class: H100 SXM5 80GB is not memory-",
    ),
    "class": ({"conditions.gpu_class": "poor"}, "conditions.gpu_class: expected one of 'bandwidth-poor'"),
    "no machine": (
        BY_CONFIG | {"conditions.engine": "vllm"},
        "conditions.engine: active_params does not depend",
    ),
    "quality of noise": (
        A_CLASS | QUALITY | {"conditions.weights": "any"},
        "conditions.weights: 'any' cannot be with quality",
    ),
    "no usual margin": (
        A_CLASS | {"conditions.quality": {"benchmark": "MT-Bench (chat)"}},
        "conditions.quality.margin: is missing",
    ),
    "weights that do not fit": (
        {"subject.names": ["Qwen/Qwen3-235B-A22B"]},
        "conditions.gpu_count: the weights of Qwen/Qwen3-235B-A22B take 438 GiB",
    ),
    "beyond the context": (
        {"cells.input_tokens": [40960]},
        "cells: 41,216 tokens: the context of Qwen/Qwen3-",
    ),
    # cells
    "no batch": (
        {"cells": {"input_tokens": [8]}},
        "cells.batch: is missing: output_tokens_per_s depends on it",
    ),
    "no cells": ({"cells": None}, "cells.batch: is missing"),
    "batch of a config": (
        BY_CONFIG | {"cells": {"batch": [1]}},
        "cells.batch: active_params does not depend",
    ),
    "twice in a list": (
        {"cells.batch": [1, 8, 1]},
        "cells: overlap: batch 1, input_tokens 512, output_tokens 256",
    ),
    "too many": ({"cells.batch": list(range(1, 500))}, "cells: 499 cells; 400 at most"),
    # the trial
    "more looks than starts": ({"plan": {"starts": 3, "looks": 3}}, "plan.looks: 3 looks at 3 starts"),
    "two starts": ({"plan": {"starts": 2, "looks": 1}}, "plan.starts: 2 starts a side decide nothing"),
    "one start": ({"plan": {"starts": 1}}, "plan.starts: expected a whole number ≥ 2, got 1"),
    "unknown field": ({"plan.set": {"measure.window": 3}}, "plan.set: measure.window: unknown key 'window'"),
    "load of a trial": (
        {"plan.set": {"load.concurrency": [1]}},
        "plan.set.load.concurrency: load and lengths",
    ),
    "wrong value": (
        {"plan.set": {"subject.measure.window_s": -1}},
        "plan.set: measure.window_s: expected seconds",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_in_one_line_with_file_and_key(tmp_path, what):
    changes, expected = WRONG[what]
    assert refusal(written(tmp_path, changes)).startswith(f": {expected}")


def test_cells_may_not_overlap_across_tables(tmp_path):
    path = written(tmp_path)
    good = path.read_text()
    more = "\n[[cells]]\nbatch = [8, 32]\ninput_tokens = [512]\noutput_tokens = [256]\n"
    path.write_text(good + more)
    assert "overlap: batch 8, input_tokens 512, output_tokens 256 is there twice" in refusal(path)
    path.write_text(good + more.replace("[8, 32]", "[32]"))
    assert len(reading.read(path).grid()) == 3
    path.write_text(good + "\n[[cells]]\nbatch = [8]\n")
    assert "overlap: a cell at batch 8 leaves a length open that another gives" in refusal(path)


def test_a_file_that_is_none(tmp_path):
    assert "cannot be read" in refusal(tmp_path / "missing.toml")
    path = tmp_path / "broken.toml"
    path.write_text("text = ")
    assert "not valid TOML" in refusal(path)
    path.write_bytes(b"text = '\xff'")
    assert "not UTF-8" in refusal(path)
    assert "its name: 'My claim' is the claim's id" in refusal(written(tmp_path, name="My claim.toml"))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_claims_or_one_line(tmp_path, data):
    lines = written(tmp_path, QUALITY | {"factor": 2.0, "plan": {"starts": 6}}).read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        key = lines[place].partition(" = ")[0]
        value = data.draw(
            st.sampled_from(["", "1", "-1", "''", "'x'", "[]", "['x']", "{}", "true", "nan", "1e400"])
        )
        lines[place] = data.draw(st.sampled_from([f"{key} = {value}", "", lines[place - 1]]))
    path = tmp_path / "damaged.toml"
    path.write_text("\n".join(lines))
    told = outcome(path)
    assert told is None or (told.startswith(str(path)) and "\n" not in told)


# ---------------------------------------------------------------------------------- claims by their names


def test_claims_are_named_by_id_file_or_folder(tmp_path):
    written(tmp_path, name="one.toml")
    two = written(tmp_path, {"text": "two"}, name="two.toml")
    found = reading.named(["mixtral-8x7b-6x", str(tmp_path), str(two)])
    assert [claim.id for claim in found] == ["mixtral-8x7b-6x", "one", "two"]


def test_a_name_of_none(tmp_path):
    with pytest.raises(InputError, match=re.escape("did you mean 'mixtral-8x7b-6x'?")):
        reading.named(["mixtral-8x7b-6"])
    with pytest.raises(InputError, match="no claim files"):
        reading.named([str(tmp_path)])
    with pytest.raises(InputError, match="cannot be read: No such file"):
        reading.named(["./nothing.toml"])


def test_two_claims_of_one_name_are_not_mixed_up(tmp_path):
    (tmp_path / "other").mkdir()
    first = written(tmp_path)
    second = written(tmp_path / "other", {"text": "another sentence"})
    with pytest.raises(InputError, match="two different claims are called mine"):
        reading.named([str(first), str(second)])


# ------------------------------------------------------------------------------------------- metrics


def test_every_metric_says_its_kind_unit_and_places():
    for metric in metrics.known().values():
        assert metric.unit, metric.name
        assert set(metric.needs) <= set(metric.axes), metric.name
        assert metric.kind != "runs" or metric.axes or metric.name.startswith("memory_"), metric.name
    assert metrics.of("energy_j_per_output_token").default_margin_frac == 0.05
    assert metrics.of("usd_per_m_output_tokens").default_margin_frac == 0.05
    assert metrics.of("ttft_s_p99").default_margin_frac == 0.03
    assert metrics.of("smallest_gpu_bytes").default_margin_frac == 0.0
    assert metrics.of("requests_per_s").unit == "requests/s"
    assert metrics.of("total_tokens_per_s").unit == "tokens/s"
    assert metrics.of("energy_host_j_per_output_token").unit == "J/token"
    assert metrics.of("power_idle_w").unit == "W"
    assert metrics.of("memory_peak_bytes").unit == "bytes"
    assert metrics.of("itl_s_p50").unit == "s"
    assert "output_tokens_mean" not in metrics.known(), "neither more nor less of it is better"
    with pytest.raises(InputError, match="did you mean 'requests_per_s'"):
        metrics.of("request_per_s")


def test_engines_and_number_formats_are_the_scenarios_own():
    assert {"vllm", "transformers", "endpoint", "simulated"} == set(checks.ENGINES)
    assert EngineSettings().dtype in checks.DTYPES
