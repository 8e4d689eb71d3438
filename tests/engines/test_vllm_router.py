"""The router that is put into vLLM's layers, with stand-ins for the few classes of vLLM that it needs."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from profiler import experts

torch = pytest.importorskip("torch")
LAYERS, EXPERTS, PER_TOKEN = 3, 16, 4
FACTORY = "vllm.model_executor.layers.fused_moe.router"


class RoutingSimulatorRouter:
    """As far as vLLM's has it."""

    def __init__(self, top_k: int, global_num_experts: int, eplb_state: Any = None) -> None:
        self.top_k, self.global_num_experts, self.eplb_state = top_k, global_num_experts, eplb_state


@pytest.fixture
def vllm(monkeypatch):
    """Modules of the names that the router's module imports."""
    parallel = SimpleNamespace(data_parallel_rank=0, data_parallel_size=1)
    contents: dict[str, dict[str, Any]] = {
        "vllm.config": {"get_current_vllm_config": lambda: SimpleNamespace(parallel_config=parallel)},
        f"{FACTORY}.router_factory": {"RoutingSimulatorRouter": RoutingSimulatorRouter},
        f"{FACTORY}.routing_simulator_router": {"RoutingSimulatorRouter": RoutingSimulatorRouter},
    }
    for name in ("vllm", "vllm.model_executor", "vllm.model_executor.layers"):
        contents.setdefault(name, {})
    contents["vllm.model_executor.layers.fused_moe"] = {}
    contents[FACTORY] = {}
    for name, held in contents.items():
        module = ModuleType(name)
        module.__dict__.update(held)
        monkeypatch.setitem(sys.modules, name, module)
    sys.modules[FACTORY].router_factory = sys.modules[f"{FACTORY}.router_factory"]
    monkeypatch.delitem(sys.modules, "profiler.engines.vllm_router", raising=False)
    yield SimpleNamespace(parallel=parallel, factory=sys.modules[f"{FACTORY}.router_factory"])
    sys.modules.pop("profiler.engines.vllm_router", None)


def layers(vllm, strategy="profiler:uniform", count=EXPERTS):
    """Routers of the layers, as vLLM's factory builds them with the strategy in force."""
    module = importlib.import_module("profiler.engines.vllm_router")
    vllm.factory.RoutingSimulatorRouter = RoutingSimulatorRouter
    module.install(strategy)
    built = vllm.factory.RoutingSimulatorRouter
    return [built(top_k=PER_TOKEN, global_num_experts=count, eplb_state=None) for _ in range(LAYERS)]


def step(routers, tokens, count=EXPERTS, dtype=torch.int32):
    """The experts of one step, [tokens, layers, experts a token]; each layer's weights are checked."""
    hidden, logits = torch.zeros(tokens, 8), torch.zeros(tokens, count)
    chosen = []
    for router in routers:
        weights, ids = router._compute_routing(hidden, logits, dtype, input_ids=None)
        assert ids.dtype == (dtype or torch.int32)
        assert ids.is_contiguous()
        assert weights.is_contiguous()
        assert weights.dtype == torch.float32
        assert torch.equal(weights, torch.full((tokens, PER_TOKEN), 1 / PER_TOKEN))
        chosen.append(ids)
    return torch.stack(chosen, 1).numpy()


@pytest.mark.parametrize(("strategy", "cv"), [("profiler:uniform", 0.0), ("profiler:skew=0.8", 0.8)])
@pytest.mark.parametrize("tokens", [1, 8, 32])
def test_a_step_touches_as_many_experts_as_the_closed_form_says(vllm, strategy, cv, tokens):
    routers = layers(vllm, strategy)
    touched = [
        len(set(layer.ravel().tolist()))
        for _ in range(400)
        for layer in step(routers, tokens).transpose(1, 0, 2)
    ]
    expected = experts.distinct_skewed(EXPERTS, PER_TOKEN, tokens, cv)
    assert sum(touched) / len(touched) == pytest.approx(expected, rel=0.02)


def test_a_tokens_experts_are_distinct_and_layers_do_not_agree(vllm):
    chosen = step(layers(vllm, "profiler:skew=1"), 500)
    ordered = chosen.copy()
    ordered.sort(axis=-1)
    assert (ordered[..., 1:] != ordered[..., :-1]).all()
    loads = [
        torch.bincount(torch.from_numpy(chosen[:, layer].ravel()), minlength=EXPERTS) for layer in range(3)
    ]
    assert len({int(load.argmax()) for load in loads}) > 1


def test_every_step_takes_other_rows_without_allocating_anything(vllm):
    """A CUDA graph that holds the addresses of the first step replays with the rows of the next ones."""
    routers = layers(vllm)
    first = step(routers, 8)
    where = routers[0].step.rows(8, torch.device("cpu")).data_ptr()
    seen = [first, *(step(routers, 8) for _ in range(5))]
    assert routers[0].step.rows(8, torch.device("cpu")).data_ptr() == where
    assert len({each.tobytes() for each in seen}) == 6


def test_ranks_with_the_same_tokens_agree_and_data_parallel_ranks_do_not(vllm):
    def rank():
        routers = layers(vllm)
        return [step(routers, 8).tobytes() for _ in range(3)]

    here = rank()
    assert rank() == here
    vllm.parallel.data_parallel_rank, vllm.parallel.data_parallel_size = 1, 2
    assert not set(rank()) & set(here)


def test_copies_of_experts_for_balance_are_not_chosen(vllm):
    """Ids are logical ones; vLLM maps them to copies afterwards."""
    chosen = step(layers(vllm, count=EXPERTS + 8), 2000)
    assert set(chosen.ravel().tolist()) == set(range(EXPERTS))


def test_more_tokens_than_rows_and_the_kernels_type(vllm):
    module = importlib.import_module("profiler.engines.vllm_router")
    routers = layers(vllm)
    step(routers, 8, dtype=torch.int64)
    assert step(routers, module.ROWS + 5, dtype=torch.int64).shape == (module.ROWS + 5, LAYERS, PER_TOKEN)
    assert step(layers(vllm), 3, dtype=None).shape == (3, LAYERS, PER_TOKEN)


def test_another_vllm_inside_fails_loudly(vllm):
    module = importlib.import_module("profiler.engines.vllm_router")
    vllm.factory.RoutingSimulatorRouter = object
    with pytest.raises(RuntimeError, match="replaced"):
        module.install("profiler:uniform")
    del vllm.factory.RoutingSimulatorRouter
    with pytest.raises(AttributeError):
        module.install("profiler:uniform")
