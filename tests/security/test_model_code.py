"""A model is data: code that came with it runs only where ``trust_remote_code`` was asked for."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from profiler import comparison, store
from profiler.engines import transformers, vllm
from profiler.engines.base import code_note
from profiler.errors import InputError
from profiler.report import page
from profiler.schema import EngineFacts, Model
from profiler.settings import EngineSettings
from tests import make

CONFIG = {
    "architectures": ["HostileForCausalLM"],
    "model_type": "hostile",
    "auto_map": {
        "AutoConfig": "modeling_hostile.HostileConfig",
        "AutoModelForCausalLM": "modeling_hostile.HostileForCausalLM",
    },
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 64,
}
# Known by the library, so that only the tokenizer and the weights are the model's own.
KNOWN = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
CODE = """
from pathlib import Path
Path({touched!r}).touch()
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizer
class HostileConfig(PretrainedConfig):
    model_type = "hostile"
class HostileForCausalLM(PreTrainedModel):
    config_class = HostileConfig
class HostileTokenizer(PreTrainedTokenizer):
    pass
"""
# What the engine's process does with a model folder, each in turn.
LOADS = """
import json, sys
from pathlib import Path
import msgspec
from profiler.engines import transformers_model, transformers_server
from profiler.engines.transformers import ServerConfig
for config, touched in json.loads(sys.stdin.read()):
    config = msgspec.convert(config, ServerConfig)
    for load in (transformers_model.load, transformers_server._tokenizer):
        try:
            load(config)
        except Exception as error:
            print(load.__name__, type(error).__name__, str(error).replace("\\n", " "), file=sys.stderr)
    print(json.dumps(Path(touched).exists()), flush=True)
"""


class Touch:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def hostile(folder: Path, touched: Path) -> Path:
    """A model folder whose code touches a file as soon as it is imported."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    (folder / "modeling_hostile.py").write_text(CODE.format(touched=str(touched)))
    return folder


def with_tokenizer(folder: Path, touched: Path) -> Path:
    hostile(folder, touched)
    (folder / "config.json").write_text(json.dumps(KNOWN))
    told = {
        "tokenizer_class": "HostileTokenizer",
        "auto_map": {"AutoTokenizer": ["modeling_hostile.HostileTokenizer", None]},
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    return folder


def with_pickle(folder: Path, touched: Path) -> Path:
    """Weights in the old format, which is a pickle."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(KNOWN))
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"lm_head.weight": Touch(touched)}))
    return folder


def server_config(folder: Path, weights: str = "local", **args: object) -> dict:
    return {
        "name": "hostile",
        "weights": weights,
        "dtype": "float32",
        "args": {"threads": 1, **args},
        "config": json.loads((folder / "config.json").read_text()),
        "folder": str(folder),
    }


def test_code_of_a_model_runs_when_asked_and_never_else(tmp_path):
    """In one process, for the library takes seconds to import; the asked-for one last."""
    asked: list[tuple[dict, str]] = []
    for name, make_it in (("code", hostile), ("tokenizer", with_tokenizer), ("pickle", with_pickle)):
        folder = make_it(tmp_path / name, tmp_path / f"{name}.touched")
        asked.append((server_config(folder), str(tmp_path / f"{name}.touched")))
    asked.append((server_config(tmp_path / "code", "random"), str(tmp_path / "code.touched")))
    asked.append((server_config(tmp_path / "code", trust_remote_code=True), str(tmp_path / "code.touched")))
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=_without_home(tmp_path),
    )
    assert done.stdout.splitlines() == ["false", "false", "false", "false", "true"], done.stderr
    assert "trust_remote_code=True" in done.stderr  # from which the advice is made


def _without_home(folder: Path) -> dict[str, str]:
    """The library copies code that it runs into its cache, which is not to stay."""
    return {
        **os.environ,
        "HF_HOME": str(folder / "hub"),
        "HF_MODULES_CACHE": str(folder / "modules"),
        "HF_HUB_OFFLINE": "1",
    }


@pytest.mark.parametrize("asked", [True, False])
def test_what_is_asked_for_is_on_the_command_line_and_off_unless_it_is(asked):
    model = Model(name="m", weights="random", config=KNOWN)
    args = {"trust_remote_code": True} if asked else {}
    given = vllm.engine_arguments(EngineSettings(args=args), model, "cpu")
    assert ("--trust-remote-code" in vllm.command("m", "m", 1, given)) is asked
    assert transformers.engine_args(args).trust_remote_code is asked


def test_another_word_than_true_is_no_consent():
    with pytest.raises(InputError, match=r"trust_remote_code"):
        transformers.engine_args({"trust_remote_code": "yes"})


def test_the_manifest_and_what_is_printed_say_that_it_was_asked(tmp_path):
    settings = EngineSettings(kind="transformers", args={"trust_remote_code": True})
    assert code_note(EngineSettings()) == code_note(EngineSettings(args={"trust-remote-code": False})) == ()
    facts = EngineFacts(kind="transformers", version="5", device="cpu", notes=code_note(settings))
    window, records = make.steady(0, 0.0)
    writer = make.writer(tmp_path, [(window, records)], settings=settings, engine=facts)
    writer.seal()
    [run] = store.find([tmp_path])
    assert run.manifest.settings.args == {"trust_remote_code": True}
    told = page.markdown(comparison.rows([run]), [run])
    assert "code that came with the model was allowed to run" in told
