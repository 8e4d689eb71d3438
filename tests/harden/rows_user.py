"""Rows of what a user does to a run under way."""

from __future__ import annotations

import signal

from tests.harden.cell import Live
from tests.harden.nouns import Case, Expect, Fault


def _interrupt(live: Live) -> None:
    live.send(signal.SIGINT)


ROWS = [
    Fault(
        name="Ctrl-C",
        group="user",
        does="SIGINT to `profile`",
        cases={
            "start": Case(
                strike=_interrupt, expect=Expect(code=130, says="interrupted", status="interrupted")
            ),
            "warm-up": Case(
                strike=_interrupt, expect=Expect(code=130, says="interrupted", status="interrupted")
            ),
            "window": Case(
                strike=_interrupt,
                expect=Expect(code=130, says="interrupted", status="interrupted", windows=1, resumes=True),
            ),
            "shutdown": Case(
                strike=_interrupt,
                expect=Expect(code=130, says="interrupted", status="interrupted", windows=2, resumes=True),
            ),
        },
    )
]
