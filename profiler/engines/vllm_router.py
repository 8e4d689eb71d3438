"""A router of our own in vLLM's workers: experts from tables made beforehand, whatever the weights are.

vLLM's routing simulation (``VLLM_MOE_ROUTING_SIMULATION_STRATEGY``) builds a ``RoutingSimulatorRouter`` for
every layer, and has most of the kernels stand back that choose experts themselves; ``install`` puts ours in
its place.  A strategy registered with the simulation would not know its layer.

No randomness at run time: each layer has a table of ``ROWS`` tokens' experts, a token takes the row that a
counter on the device says, and the counter moves on once a step.  A graph therefore replays one gather per
layer, as many kernels as the model's own top-k.  Ranks that hold the same tokens choose the same experts,
since they count alike; data-parallel ranks take other rows.

Imported by a worker only, before it builds the model.
"""

from __future__ import annotations

from typing import Any

import torch
from vllm.config import get_current_vllm_config
from vllm.model_executor.layers.fused_moe.router import router_factory
from vllm.model_executor.layers.fused_moe.router.routing_simulator_router import RoutingSimulatorRouter

from profiler import experts
from profiler.engines.vllm_inside import STRATEGY

ROWS = 1 << 13  # of a table; 0.25 MB a layer for 8 experts a token
STRIDE = 5063  # rows the counter moves on a step; odd, so that a slot comes by all of them


class Step:
    """What the layers of a step share, on the device; ``first`` is the row this process begins with.

    A tensor that became too short is kept: a CUDA graph may hold its address.
    """

    def __init__(self, first: int) -> None:
        self._first = first
        self._rows: list[torch.Tensor] = []
        self._shares: dict[int, list[torch.Tensor]] = {}

    def rows(self, tokens: int, device: torch.device) -> torch.Tensor:
        """The row of the tables that each token takes."""
        if not self._rows or len(self._rows[-1]) < tokens:
            places = torch.arange(max(tokens, ROWS), device=device) + self._first
            self._rows.append(places.bitwise_and_(ROWS - 1))
        return self._rows[-1][:tokens]

    def shares(self, tokens: int, per_token: int, device: torch.device) -> torch.Tensor:
        """Each expert's weight in a token's sum, all alike."""
        held = self._shares.setdefault(per_token, [])
        if not held or len(held[-1]) < tokens:
            shape = (max(tokens, ROWS), per_token)
            held.append(torch.full(shape, 1 / per_token, dtype=torch.float32, device=device))
        return held[-1][:tokens]

    def advance(self) -> None:
        """To the rows of the next step."""
        if self._rows:
            self._rows[-1].add_(STRIDE).bitwise_and_(ROWS - 1)


class MadeRouter(RoutingSimulatorRouter):  # type: ignore[misc]
    """Chooses ``top_k`` distinct experts a token as ``words`` say, whatever the weights are."""

    words: str
    cv: float
    built: int
    step: Step

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        kind = type(self)
        if kind.built == 0:
            parallel = get_current_vllm_config().parallel_config
            kind.step = Step(ROWS * parallel.data_parallel_rank // parallel.data_parallel_size)
        self._number = kind.built
        kind.built += 1
        self._table: torch.Tensor | None = None

    def _compute_routing(
        self, hidden_states: torch.Tensor, router_logits: torch.Tensor, indices_type: Any, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        tokens, device = len(hidden_states), hidden_states.device
        if self._table is None:
            self._table = self._draw(router_logits, indices_type)
        if self._number == 0:
            self.step.advance()
        chosen = self._table.index_select(0, self.step.rows(tokens, device))
        return self.step.shares(tokens, self.top_k, device), chosen

    def _draw(self, router_logits: torch.Tensor, indices_type: Any) -> torch.Tensor:
        """Made at the first tokens, vLLM's trial run: only they tell how many experts are not copies of
        others, and the type that the kernel wants."""
        count = min(self.global_num_experts, router_logits.shape[-1])
        marginals = experts.marginals(count, self.top_k, self.cv, seed=self._number)
        chosen = torch.from_numpy(experts.choices(marginals, ROWS, seed=self._number))
        return chosen.to(router_logits.device, indices_type or torch.int32)


def install(strategy: str) -> None:
    """Let every layer that is built from now on route as ``strategy`` says, ``STRATEGY`` and a routing."""
    wanted = experts.parse(strategy.removeprefix(STRATEGY))
    assert wanted != "model", "the model's own router needs no other"
    MadeRouter.words = strategy.removeprefix(STRATEGY)
    MadeRouter.cv = 0.0 if wanted == "uniform" else wanted
    MadeRouter.built = 0
    if router_factory.RoutingSimulatorRouter is not RoutingSimulatorRouter:
        raise RuntimeError("vLLM's routing simulation has been replaced by somebody else")
    router_factory.RoutingSimulatorRouter = MadeRouter
