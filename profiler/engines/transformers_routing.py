"""Which experts a model sends its tokens to, read and replaced (runs in the engine's process only).

Both happen where the experts are handed their tokens, not at the router: whatever a family does to its scores
(groups, biases, sigmoids), what arrives there is what is computed.  Nothing here knows a router.

*Read*: one sequence at a time through the plain model, prompt and answer together, while the batching stands
still.  With a causal model that is the routing its tokens had one by one, up to rounding, and a row is a
position: no padding, no packed batch, no replayed graph, in which no hook would run.

*Replaced*: the experts come from tables drawn before the start, a table a layer, row after row, by a counter
that lives on the device and so counts in replayed graphs too.  The model's own router still runs and its
scores still weigh the answers: the arithmetic is the model's, one gather a layer comes on top.
"""

from __future__ import annotations

import inspect
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from profiler import experts
from profiler.engines import varlen_attention

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

# What the library's families call the argument of their experts that names them.
INDEX_NAMES = {"top_k_index", "router_indices", "selected_experts"}
# As many tokens have a choice of their own before the first comes again: a power of two.  Each expert's share
# is then its probability within some 3 %, and the tables of 48 layers take less than a second to draw.
TABLE_TOKENS = 1 << 14
PROBE_TOKENS = 4


class Layer(NamedTuple):
    """A layer that routes: its number, its experts, and the module at which they are named."""

    number: int
    experts: int
    module: Any
    is_dense: bool = False  # every expert computes every token, most of them zeros (Llama 4)


def layers(model: Any) -> list[Layer]:
    """The layers of ``model`` whose experts can be told, in order; none for a dense model."""
    found = []
    for name, module in model.named_modules():
        number = re.search(r"\.(\d+)\.", name)
        if number is None:
            continue
        if _takes_choices(module):
            found.append(Layer(int(number[1]), int(module.down_proj.shape[0]), module))
        elif type(module).__name__ == "Llama4Router":
            found.append(Layer(int(number[1]), module.num_experts, module, is_dense=True))
    return found


def _takes_choices(module: Any) -> bool:
    """Whether this is a stack of experts that is told which of them each token goes to."""
    weights = getattr(module, "down_proj", None)
    if getattr(weights, "ndim", 0) != 3:
        return False
    names = list(inspect.signature(type(module).forward).parameters)
    return len(names) > 3 and names[2] in INDEX_NAMES


class Listener:
    """Says the experts of a sequence.  ``pause`` keeps everybody else from the model.

    Raises ValueError where this model's routing cannot be told.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._layers = layers(model)
        self._lock = threading.Lock()
        if not self._layers:
            raise ValueError(f"{type(model).__name__} has no experts that are told their tokens")
        probed = self.experts_of([0] * PROBE_TOKENS)
        self.numbers = tuple(layer.number for layer in self._layers)
        self.experts = self._layers[0].experts
        self.per_token = probed.shape[2]
        if {layer.experts for layer in self._layers} != {self.experts}:
            raise ValueError(f"the layers of {type(model).__name__} have unlike numbers of experts")

    def experts_of(self, ids: Sequence[int], pause: Callable[[], Any] = ExitStack) -> NDArray[np.uint16]:
        """[positions, layers, experts a token] of one sequence."""
        import numpy as np
        import torch

        heard: list[list[torch.Tensor]] = [[] for _ in self._layers]

        def listen() -> None:
            with ExitStack() as stack, torch.no_grad():
                stack.enter_context(_plain_attention(self._model))
                for layer, told in zip(self._layers, heard, strict=True):
                    stack.callback(_listen(layer, told.append).remove)
                row = torch.tensor([list(ids)], device=self._model.device)
                self._model.base_model(input_ids=row, use_cache=False)

        # A thread that has computed keeps OpenMP workers of its own while it lives.  With more of them than
        # cores, OpenMP no longer spins at barriers: the generation thread would be a third slower ever after.
        with self._lock, pause(), ThreadPoolExecutor(1) as passing:
            passing.submit(listen).result()
        if any(len(told) != 1 or len(told[0]) != len(ids) for told in heard):
            raise ValueError(f"{type(self._model).__name__} does not send each token through each layer once")
        return np.stack([told[0].cpu().numpy() for told in heard], axis=1).astype(np.uint16)


def _listen(layer: Layer, tell: Callable[[torch.Tensor], None]) -> Any:
    """Call ``tell`` with the experts of each pass, [tokens, experts a token]; the handle removes it again."""
    if layer.is_dense:
        return layer.module.register_forward_hook(
            lambda module, _, out: tell(out[1].topk(module.top_k, dim=1).indices)
        )
    return layer.module.register_forward_pre_hook(
        lambda _, args, kwargs: tell(_choices(args, kwargs)), with_kwargs=True
    )


def _choices(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    if len(args) > 1:
        return args[1]
    return next(kwargs[name] for name in INDEX_NAMES if name in kwargs)


@contextmanager
def _plain_attention(model: Any) -> Iterator[None]:
    """Attention that needs no paged cache, for as long as this lasts."""
    now, is_ours = model.config._attn_implementation, varlen_attention.is_in(model)
    plain = "sdpa" if is_ours else now.removeprefix("paged|")
    if plain == now:
        yield
        return
    model.set_attn_implementation(plain)
    try:
        yield
    finally:
        if is_ours:
            varlen_attention.install(model)
        else:
            model.set_attn_implementation(now)


def steer(model: Any, routing: str, per_token: int) -> None:
    """Send the tokens of ``model`` to the experts that ``routing`` says, from now on.

    Raises ValueError where that is impossible.
    """
    found = layers(model)
    if not found or any(layer.is_dense for layer in found):
        why = (
            "computes every expert for every token" if found else "has no experts that are told their tokens"
        )
        raise ValueError(f"{type(model).__name__} {why}")
    wanted = experts.parse(routing)
    assert wanted != "model"
    turns = Turns(model.device)
    for place, layer in enumerate(found):
        table = _table(layer.experts, per_token, 0.0 if wanted == "uniform" else wanted, place, model.device)
        layer.module.register_forward_pre_hook(_replaced(table, turns, place == 0), with_kwargs=True)


class Routing(NamedTuple):
    """How the tokens of a loaded model find their experts (None: it has none), and who tells."""

    how: str | None
    listener: Listener | None = None
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> dict[str, Any]:
        """What ``GET /routing`` answers (``routed.Told``)."""
        listener = self.listener
        layers, count = (listener.numbers, listener.experts) if listener else ((), None)
        return {"routing": self.how, "layers": layers, "experts": count, "notes": self.notes}


def set_up(model: Any, wanted: str | None, is_asked: bool) -> Routing:
    """Route as ``wanted``, by the model's own router where that cannot be done; in which case it raises
    ValueError if it was a user who asked (``is_asked``)."""
    if wanted is None:
        return Routing(None)
    try:
        listener = Listener(model)
    except Exception as error:  # whatever a family's code raises: it still runs, its experts are not known
        if is_asked and wanted != "model":
            raise ValueError(f"engine.routing = {wanted!r} cannot be had: {error}") from error
        return Routing("model", None, (f"the routing cannot be recorded: {error}",))
    if wanted == "model":
        return Routing(wanted, listener)
    try:
        steer(model, wanted, listener.per_token)
    except ValueError as error:
        if is_asked:
            raise ValueError(f"engine.routing = {wanted!r} cannot be had: {error}") from None
        return Routing("model", listener, (f"the routing is the model's own: {error}",))
    return Routing(wanted, listener)


class Turns:
    """Whose turn it is: the rows of the tables that the tokens of this pass get."""

    def __init__(self, device: Any) -> None:
        import torch

        self._at = torch.zeros((), dtype=torch.int64, device=device)
        self.rows: torch.Tensor = self._at

    def next(self, tokens: int) -> None:
        """Called once a pass, by its first layer; in a captured graph it counts as often as that is run."""
        import torch

        self.rows = (torch.arange(tokens, device=self._at.device) + self._at) & (TABLE_TOKENS - 1)
        self._at += tokens


def _table(count: int, per_token: int, cv: float, seed: int, device: Any) -> torch.Tensor:
    import torch

    chosen = experts.choices(experts.marginals(count, per_token, cv, seed), TABLE_TOKENS, seed)
    return torch.from_numpy(chosen).to(device=device, dtype=torch.int64)


def _replaced(table: torch.Tensor, turns: Turns, is_first: bool) -> Callable[..., Any]:
    def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        own = _choices(args, kwargs)
        if is_first:
            turns.next(len(own))
        chosen = table[turns.rows]
        if len(args) > 1:
            return (args[0], chosen, *args[2:]), kwargs
        return args, kwargs | {name: chosen for name in INDEX_NAMES if name in kwargs}

    return hook
