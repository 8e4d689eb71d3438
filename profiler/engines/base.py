"""What every engine is once it runs: an address, the facts of its start, its memory account, its routing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from msgspec import Struct

from profiler.schema import Endpoint, EngineFacts, Memory, Model
from profiler.settings import EngineSettings

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from profiler.engines.process import EngineProcess

TRUSTED = "trust_remote_code"  # the engines' own word for it
# Where a server of ours listens: for this machine alone, or for others that send a part of its load.
HERE, EVERYWHERE = "127.0.0.1", "0.0.0.0"  # noqa: S104 (behind a key)


class Routed(NamedTuple):
    """The experts that the tokens of one request were sent to.

    ``experts`` is uint16 [positions, layers that route, experts a token]; position p is the p-th token of
    prompt and answer together.  The last token of an answer is sent nowhere.
    """

    prompt_tokens: int
    experts: NDArray[np.uint16]


class RoutingSource(Struct, frozen=True, kw_only=True):
    """How an engine tells which experts it used.

    ``says`` what tells it, in words; ``layers`` the numbers of the layers that route, in order; ``experts``
    how many each has.  ``ask(prompt, output_tokens, timeout_s)`` lets the engine answer a prompt and waits
    for what it says; from any thread; raises EngineError.
    """

    says: str
    layers: tuple[int, ...]
    experts: int
    ask: Callable[[list[int], int, float], Routed]


class RunningEngine(Struct, frozen=True, kw_only=True):
    """An engine that answers at ``endpoint``.

    ``process`` is None for an engine that somebody else runs; ``account`` asks the engine for its
    memory, None where it keeps no account; ``routing`` is None where it does not tell its experts.
    """

    endpoint: Endpoint
    facts: EngineFacts
    log_path: Path | None = None
    process: EngineProcess | None = None
    account: Callable[[], Memory] | None = None
    routing: RoutingSource | None = None

    def memory(self) -> Memory:
        """The engine's own memory account at this moment; fields it does not know are None."""
        return self.account() if self.account is not None else Memory()

    def check(self) -> None:
        """Raise EngineError, with the telling lines of the log, if the engine has died."""
        if self.process is not None and self.process.exit_code() is not None:
            raise self.process.failure(f"{self.facts.kind} died (exit {self.process.exit_code()})")


def wanted_routing(settings: EngineSettings, model: Model) -> str | None:
    """How the tokens of this model are to find their experts; None where it has none that we know of.

    ``auto`` is ``uniform`` where the weights are random: the router of a random network may send all tokens
    to the same few experts, or to others in every layer alike, and neither is a trained router's way.
    """
    if model.facts is None or model.facts.kind != "moe":
        return None
    assert isinstance(settings.routing, str), "of several routings each is a run of its own"
    if settings.routing != "auto":
        return settings.routing
    return "uniform" if model.weights == "random" else "model"


def code_note(settings: EngineSettings) -> tuple[str, ...]:
    """What must be known of a run for which a model's own code was let in; nothing for others."""
    asked = any(
        name.lstrip("-").replace("-", "_") == TRUSTED and value for name, value in settings.args.items()
    )
    return (f"code that came with the model was allowed to run (engine.args.{TRUSTED})",) if asked else ()


def routing_note(model: Model, routing: str | None) -> tuple[str, ...]:
    """What must be known of a run whose experts no trained router chose; nothing for others."""
    if routing is None or (routing == "model" and model.weights != "random"):
        return ()
    how = {
        "model": "by the router of a random network",
        "uniform": "uniformly, by no router of the model's",
    }.get(
        routing,
        f"with a coefficient of variation of {routing.removeprefix('skew=')}, by no router of the model's",
    )
    return (
        f"experts were chosen {how}: no claim about quality or that depends on routing may rest on this run",
    )
