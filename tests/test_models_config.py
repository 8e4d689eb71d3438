"""Config files with something wrong in them: one line that says what and where, never a traceback."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from profiler import catalog, fit, models, scenario
from profiler.errors import InputError
from profiler.schema import Model
from profiler.settings import EngineSettings

TINY = catalog.tiny_models()["tiny-moe"]
CHAT = scenario.load("chat")


def folder_with(tmp_path: Path, config: dict, *files: str) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(config))
    for name in files:
        (tmp_path / name).touch()
    return tmp_path


def refused(folder: Path) -> str:
    model, error = resolved(folder)
    assert model is None
    assert "\n" not in error
    return error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization_config": "fp8"}, "quantization_config is 'fp8', expected an object"),
        ({"quantization_config": ["fp8"]}, "quantization_config is ['fp8'], expected an object"),
        ({"quantization_config": {"quant_method": ["fp8"]}}, "quantization_config.quant_method is ['fp8']"),
        ({"architectures": 5}, "architectures is 5, expected a list of strings"),
        ({"architectures": 5, "model_type": "mamba"}, "architectures is 5, expected a list of strings"),
        ({"model_type": ["mamba"]}, "model_type is ['mamba'], expected a string"),
        ({"num_experts_per_tok": 64}, "num_experts_per_tok is 64, expected a whole number from 1 to 32"),
    ],
)
def test_a_wrong_key_is_named_with_its_file_and_what_it_should_be(tmp_path, change, words):
    folder = folder_with(tmp_path, {**TINY, **change}, "model.safetensors")
    said = refused(folder)
    assert said.startswith(str(folder / "config.json") + ": ")
    assert words in said


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00", b"null", b'"text"', b"5", b"[" * 100_000, b'{"model_type": "\xff"}']
    + [json.dumps(TINY).encode(encoding) for encoding in ("utf-16", "utf-32")],
    ids=lambda content: repr(content[:12]),
)
def test_a_file_that_is_no_json_object_is_named(tmp_path, content):
    folder = folder_with(tmp_path, {})
    (folder / "config.json").write_bytes(content)
    assert f"{folder / 'config.json'}: not a readable JSON config" in refused(folder)


WRONG = ("x", "", [], ["x"], [1], {}, {"x": 1}, None, True, 0, -1, 1, 2.5, 1e300, 10**9, 2**63)


@pytest.mark.parametrize(
    "key",
    sorted(
        {*TINY, "head_dim", "layer_types", "sliding_window", "text_config"}
        | {"use_sliding_window", "max_window_layers", "quantization_config", "full_attention_interval"}
        | {"shared_expert_intermediate_size", "n_shared_experts", "lm_head_bias", "intermediate_size_mlp"}
        | {"mlp_bias", "attention_chunk_size", "num_local_experts"}
    ),
)
def test_no_value_of_any_key_is_more_than_an_input_error(tmp_path, key):
    """Whatever stands there: sizes that are finite and positive, or one line that says what is wrong."""
    folder = folder_with(tmp_path, {}, "model.safetensors")
    for value in WRONG:
        (folder / "config.json").write_text(json.dumps({**TINY, key: value}))
        model, error = resolved(folder)
        if error is not None:
            assert "\n" not in error
            assert str(folder / "config.json") in error
            assert key in error or "not a readable JSON" in error
        elif model.facts is None:
            assert key in ("model_type", "layer_types")
        else:
            assert 0 < model.facts.active_params <= model.facts.total_params
            assert model.facts.kv_bytes_per_token + model.facts.kv_windowed_bytes_per_token > 0
            check(model)


def resolved(folder: Path) -> tuple[Model | None, str | None]:
    try:
        return models.resolve(str(folder)), None
    except InputError as error:
        return None, str(error)


def check(model: Model) -> None:
    """No other exception than InputError: too large a model, or too short a context."""
    with contextlib.suppress(InputError):
        fit.check_fit(model, EngineSettings(), CHAT.workload, CHAT.load, (), 16 << 30)
    assert fit.least_bytes(model, EngineSettings(), CHAT.workload, CHAT.load) > 0
