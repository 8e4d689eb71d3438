"""What every engine is once it runs: an address, the facts of its start, its memory account."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from profiler.schema import Endpoint, EngineFacts, Memory

if TYPE_CHECKING:
    from profiler.engines.process import EngineProcess


class RunningEngine(Struct, frozen=True, kw_only=True):
    """An engine that answers at ``endpoint``.

    ``process`` is None for an engine that somebody else runs; ``account`` asks the engine for its
    memory, None where it keeps no account.
    """

    endpoint: Endpoint
    facts: EngineFacts
    log_path: Path | None = None
    process: EngineProcess | None = None
    account: Callable[[], Memory] | None = None

    def memory(self) -> Memory:
        """The engine's own memory account at this moment; fields it does not know are None."""
        return self.account() if self.account is not None else Memory()

    def check(self) -> None:
        """Raise EngineError, with the telling lines of the log, if the engine has died."""
        if self.process is not None and self.process.exit_code() is not None:
            raise self.process.failure(f"{self.facts.kind} died (exit {self.process.exit_code()})")
