"""Opening engines: which one ``auto`` is, what is refused before a start, the simulated one for real."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from profiler.engines import available_engines, check_engine, choose_kind, open_engine
from profiler.engines.vllm import Installed
from profiler.errors import EngineError, InputError
from profiler.schema import Memory, Model
from profiler.settings import EngineSettings
from profiler.telemetry.engine_metrics import EngineMetricsProbe

MODEL = Model(name="sim", weights="remote")
HUB = Model(name="x", weights="hub")
GPU = ("GPU-1234", 80 << 30)


@pytest.mark.parametrize(
    ("gpus", "build", "kind"),
    [
        ((GPU,), Installed("0.33", "cuda"), "vllm"),
        ((), Installed("0.32", "cpu"), "transformers"),
        ((GPU,), Installed("0.32", "cpu"), "transformers"),
        ((GPU,), None, "transformers"),
    ],
)
def test_auto_is_vllm_only_with_a_gpu_and_its_cuda_build(monkeypatch, gpus, build, kind):
    monkeypatch.setattr("profiler.engines.gpus.visible_gpus", lambda env: gpus)
    monkeypatch.setattr("profiler.engines.vllm.installed", lambda: build)
    assert choose_kind(EngineSettings()) == kind
    assert choose_kind(EngineSettings(kind="simulated")) == "simulated"


def test_every_kind_is_listed_with_what_is_missing(monkeypatch):
    statuses = {status.probe: status for status in available_engines()}
    assert list(statuses) == ["vllm", "transformers", "endpoint", "simulated"]
    monkeypatch.setattr("profiler.engines.vllm.installed", lambda: None)
    monkeypatch.setattr("profiler.engines.local.missing_packages", lambda: ["torch"])
    statuses = {status.probe: status for status in available_engines()}
    assert not statuses["vllm"].usable
    assert "make vllm" in statuses["vllm"].detail
    assert not statuses["transformers"].usable
    assert "torch not installed" in statuses["transformers"].detail


@pytest.mark.parametrize(
    ("settings", "model", "message"),
    [
        (EngineSettings(kind="endpoint"), MODEL, "--url"),
        (EngineSettings(kind="simulated", args={"ttft": 1}), MODEL, "no such setting"),
        (EngineSettings(kind="transformers"), MODEL, "no weights for 'sim'"),
        (EngineSettings(kind="transformers", args={"num_block": 9}), HUB, "did you mean 'num_blocks'"),
        (
            EngineSettings(kind="transformers", args={"page_size": "x"}),
            HUB,
            "engine.args.page_size: expected",
        ),
        (EngineSettings(kind="vllm"), MODEL, "no weights of sim|not installed"),
        (EngineSettings(kind="vllm", args={"port": 1}), HUB, "port|not installed"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(settings, model, message, tmp_path):
    with pytest.raises(InputError, match=message):
        check_engine(settings, model)
    with pytest.raises(InputError, match=message), open_engine(settings, model, tmp_path, print):
        pass
    assert list(tmp_path.iterdir()) == []


def test_listing_engines_imports_none_of_them():
    code = """
import sys
from profiler.engines import available_engines, choose_kind
from profiler.settings import EngineSettings
from profiler.telemetry.engine_metrics import EngineMetricsProbe
available_engines(); choose_kind(EngineSettings())
print([name for name in ("torch", "transformers", "vllm", "numpy", "httptools") if name in sys.modules])
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_the_simulated_engine_serves_and_is_gone_afterwards(tmp_path):
    settings = EngineSettings(kind="simulated", args={"ttft_s": 0.01, "itl_s": 0.001})
    with open_engine(settings, MODEL, tmp_path, lambda _: None) as engine:
        endpoint = engine.endpoint
        assert endpoint.model == "sim"
        assert (engine.facts.kind, engine.facts.device) == ("simulated", "none")
        assert engine.memory() == Memory()
        engine.check()
        where = endpoint.base_url.removeprefix("http://").removesuffix("/v1")
        connection = http.client.HTTPConnection(where, timeout=10)
        body = json.dumps({"model": "sim", "prompt": [1, 2], "max_tokens": 3, "stream": True})
        connection.request("POST", "/v1/completions", body, {"authorization": f"Bearer {endpoint.api_key}"})
        response = connection.getresponse()
        assert response.status == 200
        assert response.read().endswith(b"data: [DONE]\n\n")
        connection.request("POST", "/v1/completions", body)
        assert connection.getresponse().status == 401
        connection.close()
        probe = EngineMetricsProbe("sim", endpoint.metrics_url)
        assert {sample.name: sample.value for sample in probe.sample()}["generation_tokens"] == 3
    assert not psutil.pid_exists(endpoint.pid)
    assert engine.log_path == tmp_path / "engine.log"


def test_the_transformers_engine_serves_a_tiny_model_and_accounts_for_its_memory(tmp_path):
    config = {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "intermediate_size": 128,
        "vocab_size": 512,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    }
    model = Model(name="tiny", weights="random", config=config)
    # Two layers of query, key, value, output, gate, up, down and norms; embeddings once.
    layer = 64 * (64 + 32 + 32 + 64) + 3 * 64 * 128 + 2 * 32 + 2 * 64
    parameters = 2 * layer + 512 * 64 + 64
    said: list[str] = []
    settings = EngineSettings(kind="transformers", max_model_len=128, args={"num_blocks": 16})
    with open_engine(settings, model, tmp_path, said.append) as engine:
        assert engine.endpoint.model == "tiny"
        assert engine.facts.weights == "random"
        assert engine.facts.device in ("cpu", "cuda")
        assert engine.memory().weights_bytes == pytest.approx(2 * parameters, rel=1e-3)
        assert engine.memory().kv_bytes
        engine.check()
    assert not psutil.pid_exists(engine.endpoint.pid)
    assert any(line.startswith("transformers: ") for line in said)


def test_an_engine_that_dies_fails_its_check(tmp_path):
    with open_engine(EngineSettings(kind="simulated"), MODEL, tmp_path, lambda _: None) as engine:
        psutil.Process(engine.endpoint.pid).kill()
        end = time.monotonic() + 10
        while engine.process.exit_code() is None:
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(EngineError, match=r"simulated died \(exit -9\): it was killed"):
            engine.check()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_inside_stops_the_engine(tmp_path: Path, error):
    with (
        pytest.raises(error),
        open_engine(EngineSettings(kind="simulated"), MODEL, tmp_path, lambda _: None) as engine,
    ):
        raise error
    assert not psutil.pid_exists(engine.endpoint.pid)


def test_two_engines_live_side_by_side(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    settings = EngineSettings(kind="simulated")
    with open_engine(settings, MODEL, tmp_path / "a", lambda _: None) as one:
        with open_engine(settings, MODEL, tmp_path / "b", lambda _: None) as other:
            assert one.endpoint.base_url != other.endpoint.base_url
            assert one.endpoint.api_key != other.endpoint.api_key
        one.check()
        assert not psutil.pid_exists(other.endpoint.pid)
