"""Experts of vLLM on a real NVIDIA GPU: chosen under CUDA graphs, recorded by vLLM's own flag; skipped, with
the reason, where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec

import msgspec
import numpy as np
import pytest

from profiler import engines, experts, host
from profiler.engines import routed
from profiler.schema import Model
from profiler.settings import EngineSettings
from tests.engines.test_vllm_routing import CONFIG, FACTS, by_transformers, weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not host.collect().gpus, reason="no NVIDIA GPU here"),
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed (make vllm)"),
]
__all__ = ["weights"]  # the fixture
OUTPUT = 48
LOCAL = Model(name="tiny", weights="local", config=CONFIG, facts=FACTS)


def settings(**args):
    routing = args.pop("routing", "model")
    return EngineSettings(
        kind="vllm", max_model_len=512, routing=routing, args={"skip_tokenizer_init": True, **args}
    )


def prompts(length, count=32):
    return np.random.default_rng(0).integers(2, 1024, (count, length)).tolist()


def test_the_flag_tells_the_experts_that_transformers_gives(weights, tmp_path):
    """Of the prompts: a bf16 answer that once differs goes its own way."""
    model = msgspec.structs.replace(LOCAL, folder=str(weights))
    asked = prompts(40)
    with engines.open_recorder(settings(), model, tmp_path, print) as engine:
        assert engine.facts.routing == "model"
        assert "--enable-return-routed-experts" in engine.routing.says
        assert engine.routing.layers == (0, 2)
        told = [engine.routing.ask(prompt, OUTPUT, 60.0) for prompt in asked]
    assert all(each.experts.shape == (40 + OUTPUT - 1, 2, 4) for each in told)
    same = [
        (np.sort(ours.experts[:40], -1) == np.sort(theirs[:40], -1)).all(-1).mean()
        for ours, theirs in zip(told, by_transformers(weights, asked), strict=True)
    ]
    assert np.mean(same) > 0.97


@pytest.mark.parametrize(("routing", "cv"), [("uniform", 0.0), ("skew=0.8", 0.8)])
def test_a_chosen_routing_holds_under_cuda_graphs(weights, tmp_path, routing, cv):
    """In the timed kind of engine, compiled and with graphs, that for once returns what it used."""
    model = msgspec.structs.replace(LOCAL, folder=str(weights))
    asked = settings(routing=routing, enable_return_routed_experts=True)
    with engines.open_engine(asked, model, tmp_path, print) as engine, ThreadPoolExecutor(32) as askers:
        assert engine.facts.routing == routing
        told = list(
            askers.map(lambda prompt: routed.ask(engine.endpoint, prompt, OUTPUT, 60.0).experts, prompts(32))
        )
    chosen = np.stack(told)[:, :, [0, 2]]  # requests, positions, layers that route, experts
    for layer in range(2):
        load = np.bincount(chosen[:, :, layer].ravel(), minlength=16)
        assert load.std() / load.mean() == pytest.approx(cv, abs=0.08)
    for tokens in (1, 8, 32):
        touched = [len(np.unique(each[:tokens, layer])) for each in chosen for layer in range(2)]
        assert np.mean(touched) == pytest.approx(experts.distinct_skewed(16, 4, tokens, cv), rel=0.04)
    # A graph that did not move on would repeat an answer's experts token by token.
    answers = np.sort(chosen[:, 32:, 0], axis=-1)
    assert (answers[:, 1:] == answers[:, :-1]).all(-1).mean() < 0.2
