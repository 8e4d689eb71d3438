"""What the worker of a vLLM engine has beside its memory account where the routing is ours or is recorded.

Never in an engine whose experts its own router chooses and that is timed.  A worker imports this before it
builds the model.
"""

from __future__ import annotations

import base64
import io
import os
from functools import partial
from typing import TYPE_CHECKING, Any

from profiler.engines.vllm_inside import ROUTING_VARIABLE, STRATEGY, WorkerMemory

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

if os.environ.get(ROUTING_VARIABLE, "").startswith(STRATEGY):
    from profiler.engines.vllm_router import install

    install(os.environ[ROUTING_VARIABLE])


class WorkerRouting(WorkerMemory):
    """Mixed into vLLM's worker class; its methods are called by name."""

    rank: int

    def profiler_routing(self) -> dict[str, Any]:
        """The layers that route, how many experts each has, and who chooses them, layer by layer: the words
        of a router of ours, or ``model``.  A kernel that chooses on its own asks no router."""
        layers = routing_layers(self.model_runner.get_model())
        counts = {_experts(layer) for layer in layers.values()}
        return {
            "layers": list(layers),
            "experts": max(counts, default=0),
            "routing": [
                "model" if layer.is_monolithic else getattr(layer.router, "words", "model")
                for layer in layers.values()
            ],
        }

    def profiler_record(self) -> None:
        """Keep the experts of every token from now on, in the first of the workers: each sees all tokens."""
        if self.rank == 0:
            self.profiler_recorder = Recorder(self.model_runner)

    def profiler_routed(self, answer: str, positions: int) -> str | None:
        """The experts of a request's first ``positions`` tokens as base64 of a .npy, then forgotten."""
        import numpy as np

        if self.rank != 0:
            return None
        with io.BytesIO() as file:
            np.save(file, self.profiler_recorder.take(answer, positions), allow_pickle=False)
            return base64.b64encode(file.getbuffer()).decode()


class Recorder:
    """Experts by request and position, of vLLM's first model runner without graphs or compilation."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self._layers = routing_layers(runner.get_model())
        self._step: dict[int, Any] = {}
        self._kept: dict[str, dict[int, Any]] = {}
        for number, layer in self._layers.items():
            layer.router.set_capture_fn(partial(self._step.__setitem__, number))
        runner.get_model().register_forward_hook(self._keep)

    def take(self, answer: str, positions: int) -> NDArray[np.uint16]:
        """[positions, layers that route, experts a token] of the request with this id of its answer, which
        vLLM lengthens inside; KeyError where a position was not run."""
        import numpy as np

        name = next(name for name in self._kept if name == answer or name.startswith(f"{answer}-"))
        rows = self._kept.pop(name)
        return np.stack([rows[position] for position in range(positions)])

    def _keep(self, *_: Any) -> None:
        """After a step: its rows belong to the batch's requests in turn, padding comes last."""
        import torch

        step = torch.stack([self._step.pop(number) for number in self._layers], dim=1).cpu().numpy()
        batch, starts = self._runner.input_batch, self._runner.query_start_loc.np
        for place, request in enumerate(batch.req_ids):
            rows = step[starts[place] : starts[place + 1]].astype("uint16")
            first = int(batch.num_computed_tokens_cpu[place])
            self._kept.setdefault(request, {}).update(enumerate(rows, first))


def routing_layers(model: Any) -> dict[int, Any]:
    """The layers that send tokens to experts by their number in the model, in order."""
    found = {
        int(module.layer_id): module
        for module in model.modules()
        if hasattr(module, "layer_id") and hasattr(getattr(module, "router", None), "select_experts")
    }
    return dict(sorted(found.items()))


def _experts(layer: Any) -> int:
    """Experts a layer chooses from, without the copies that balance the load of expert parallelism."""
    return int(layer.moe_config.num_logical_experts)
