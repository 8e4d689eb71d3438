"""Rows of servers that answer badly, or not at all: the simulated engine, told its faults while it runs.

At the start it is a server that somebody else runs (``--url``), whose faults the first questions meet; after
that one of the profiler's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiler.loadgen.failing import OVERLOADED
from tests.harden.cell import Live
from tests.harden.nouns import Case, Expect, Fault, Group, Phase

NOTHING_ASKED = (
    "after the last window nothing that counts is asked of the server: see *server fails everything* and "
    "*server hangs*, which are tried there"
)
# Time limits so short that what hangs is given up within a window.
HASTY = tuple(
    each for word in ("timeouts.first_token_s=0.6", "timeouts.gap_s=0.6") for each in ("--set", word)
)
ALL_ALONG = "it holds from the start to the end: the one run shows all phases"
TO_THE_END_S = 75.0  # of a run that goes on, on a machine with neighbours
ONCE_IN_5 = "of every five requests one; the others are answered"


def switch(*faults: dict[str, Any]) -> Callable[[Live], None]:
    """Tells the engine its faults."""
    return lambda live: live.faults(*faults)


def attached(*faults: dict[str, Any], **settings: Any) -> Callable[[Live], None]:
    """A server that runs already, with these faults from its first request on."""

    def prepare(live: Live) -> None:
        live.faults(*faults)
        _, port = live.serve(**settings)
        live.words += ["--url", f"http://127.0.0.1:{port}/v1"]

    return prepare


def at_start(says: str, *faults: dict[str, Any], within_s: float = 30.0) -> Case:
    """Nothing is begun: exit code 2 and what the server did."""
    return Case(
        engine=(),
        prepare=attached(*faults),
        expect=Expect(code=2, says=says, status=None, within_s=within_s),
    )


def well(*faults: dict[str, Any], look: Callable[[Live], None] | None = None) -> dict[Phase, Case | str]:
    """No harm is done, from the first question to the last answer."""
    fine = Expect(
        code=0, says=None, status="complete", windows=2, outcomes=frozenset(), within_s=TO_THE_END_S
    )
    return {
        "start": Case(engine=(), prepare=attached(*faults), expect=fine, look=look),
        "warm-up": ALL_ALONG,
        "window": ALL_ALONG,
        "shutdown": ALL_ALONG,
    }


def given_up(outcome: str, says: str, start: str, *faults: dict[str, Any]) -> dict[Phase, Case | str]:
    """No answer comes any more: the window is given up, what was finished is kept, and it can be resumed."""

    def struck(windows: int) -> Case:
        return Case(
            strike=switch(*faults),
            mend=switch(),
            expect=Expect(
                code=4,
                says=says,
                status="failed",
                windows=windows,
                outcomes=frozenset({outcome}),
                resumes=True,
            ),
        )

    return {
        "start": at_start(start, *faults),
        "warm-up": struck(0),
        "window": struck(1),
        "shutdown": NOTHING_ASKED,
    }


def bad_answers(
    outcome: str,
    says: str,
    start: str,
    *faults: dict[str, Any],
    words: tuple[str, ...] = (),
) -> dict[Phase, Case | str]:
    """Answers come and are bad: the window is held, as data; the next one, in which no answer is good, is
    given up.  In the last window the run ends with too many failures."""
    bad = frozenset({outcome})
    return {
        "start": at_start(start, *faults),
        "warm-up": Case(
            words=words,
            strike=switch(*faults),
            expect=Expect(code=4, says=says, status="failed", outcomes=bad, within_s=TO_THE_END_S),
        ),
        "window": Case(
            words=words,
            strike=switch(*faults),
            expect=Expect(
                code=1, says=TOO_MANY, status="complete", windows=2, outcomes=bad, within_s=TO_THE_END_S
            ),
        ),
        "shutdown": NOTHING_ASKED,
    }


def too_much(
    outcome: str, start: str, *faults: dict[str, Any], words: tuple[str, ...] = ()
) -> dict[Phase, Case | str]:
    """As a server with too much to do: each window is held, or ends early, as data.  From the first on none
    has an answer then, and the run no figure; in the last it ends with too many failures."""

    def struck(code: int, says: str) -> Case:
        expect = Expect(
            code=code,
            says=says,
            status="complete",
            windows=2,
            outcomes=frozenset({outcome}),
            within_s=TO_THE_END_S,
        )
        return Case(words=words, strike=switch(*faults), expect=expect)

    return {
        "start": at_start(start, *faults),
        "warm-up": struck(4, "no request succeeded"),
        "window": struck(1, TOO_MANY),
        "shutdown": NOTHING_ASKED,
    }


TOO_MANY = r"failed: sim: \d+ of \d+ requests failed"
NOTHING_BUT = "answers with nothing but failures: "


def now_and_then(outcome: str, kind: str) -> dict[Phase, Case | str]:
    """One request in five: data, counted, and too many of them."""
    case = Case(
        strike=switch({"kind": kind, "every": 5}),
        expect=Expect(
            code=1,
            says=TOO_MANY,
            status="complete",
            windows=2,
            outcomes=frozenset({outcome}),
            within_s=TO_THE_END_S,
        ),
    )
    return {
        "start": "one question in five at the start is one of at most five: see the row above",
        "warm-up": case,
        "window": "from the warm-up on it holds in both windows: see there",
        "shutdown": NOTHING_ASKED,
    }


def refusal(status: int, says: str = "") -> dict[Phase, Case | str]:
    words = rf"HTTP {status}: .*{says or 'simulated refusal'}"
    if status in OVERLOADED:
        return too_much("http_error", words, {"kind": f"http_{status}"})
    return given_up("http_error", NOTHING_BUT + words, words, {"kind": f"http_{status}"})


def redirect(status: int) -> dict[Phase, Case | str]:
    words = f"HTTP {status}: sends us on to /elsewhere"
    return given_up("http_error", NOTHING_BUT + words, words, {"kind": f"http_{status}"})


def row(group: Group, name: str, does: str, cases: dict[Phase, Case | str], **more: Any) -> Fault:
    return Fault(name=name, group=group, does=does, cases=cases | more)


def _usage_is_told(live: Live) -> None:
    assert "usage disagrees" in live.stdout, "nothing is said of usage that disagrees"


def _still_whole() -> Case:
    """Struck when all is measured."""
    return Case(
        strike=switch({"kind": "http_500"}),
        expect=Expect(
            code=0, says=None, status="complete", windows=2, outcomes=frozenset(), within_s=TO_THE_END_S
        ),
    )


def _start_fault(fault: str | None, says: str, start_s: float = 0.3) -> Case:
    words = [f"engine.args.start_s={start_s:g}", "engine.start_timeout_s=4"]
    words += [f"engine.args.start_fault={fault}"] if fault else []
    return Case(
        words=tuple(each for word in words for each in ("--set", word)),
        expect=Expect(code=4, says=says, status="failed"),
    )


def starting(name: str, does: str, case: Case) -> Fault:
    reason = "it is a fault of coming up"
    return Fault(
        name=name,
        group="engine",
        does=does,
        cases={"start": case, "warm-up": reason, "window": reason, "shutdown": reason},
    )


REFUSALS = [
    row(
        "server",
        "server fails everything",
        "HTTP 500 to every request",
        refusal(500),
        shutdown=_still_whole(),
    ),
    row("server", "500 now and then", f"HTTP 500: {ONCE_IN_5}", now_and_then("http_error", "http_500")),
    row("server", "bad request", "HTTP 400 to every request", refusal(400)),
    row(
        "server",
        "key refused",
        "HTTP 401 to every request",
        given_up(
            "http_error",
            NOTHING_BUT + "HTTP 401: .*simulated refusal",
            r"an API key is needed \(HTTP 401\)",
            {"kind": "http_401"},
        ),
    ),
    row("server", "not found", "HTTP 404 to every request", refusal(404)),
    row("server", "too many requests", "HTTP 429, Retry-After: 1, to every request", refusal(429)),
    row(
        "server",
        "429 now and then",
        f"HTTP 429, Retry-After: 1: {ONCE_IN_5}",
        now_and_then("http_error", "http_429"),
    ),
    row("server", "overloaded", "HTTP 503, Retry-After: 5, to every request", refusal(503)),
    row("server", "moved for good", "HTTP 301 to every request", redirect(301)),
    row("server", "moved for now", "HTTP 307 to every request", redirect(307)),
]

ANSWERS = [
    row(
        "server",
        "hangs",
        "falls silent in the middle of every answer",
        too_much(
            "gap_timeout",
            "no complete answer in",
            {"kind": "hang"},
            words=HASTY,
        ),
    ),
    row(
        "server",
        "hangs after the head",
        "sends the head of the answer, then nothing",
        bad_answers(
            "first_token_timeout",
            NOTHING_BUT + "no token in 0.6",
            "no complete answer in",
            {"kind": "hang_after_head"},
            words=HASTY,
        ),
    ),
    row(
        "server",
        "comments only",
        "sends comments and no tokens any more",
        too_much(
            "gap_timeout",
            "no complete answer in",
            {"kind": "pings"},
            words=HASTY,
        ),
    ),
    row(
        "server",
        "engine fails in mid-stream",
        "reports an error inside the stream, as vLLM does",
        bad_answers(
            "stream_error",
            NOTHING_BUT + ".*simulated engine failure",
            "simulated engine failure",
            {"kind": "error_event"},
        ),
    ),
    row(
        "server",
        "malformed event",
        "sends an event that is no JSON in the middle of every answer",
        bad_answers("malformed", NOTHING_BUT + ".*cut", "malformed: ", {"kind": "malformed"}),
    ),
    row("server", "malformed now and then", f"the same: {ONCE_IN_5}", now_and_then("malformed", "malformed")),
    row(
        "server",
        "no [DONE]",
        "ends every stream without its end mark",
        bad_answers(
            "no_end", NOTHING_BUT + r".*without its \[DONE\]", r"without its \[DONE\]", {"kind": "no_done"}
        ),
    ),
    row(
        "server",
        "no finish reason",
        "ends every stream without a finish reason",
        bad_answers(
            "no_end", NOTHING_BUT + ".*finish reason", "without its finish reason", {"kind": "no_finish"}
        ),
    ),
    row(
        "server",
        "event sent twice",
        "sends an event of every answer twice",
        bad_answers(
            "malformed",
            NOTHING_BUT + r"\d+ tokens came, \d+ were asked for",
            "3 tokens came, 2 were",
            {"kind": "duplicate"},
        ),
    ),
    row(
        "server",
        "more tokens than asked",
        "sends one token too many",
        bad_answers(
            "malformed",
            NOTHING_BUT + r"\d+ tokens came, \d+ were asked for",
            "3 tokens came, 2 were",
            {"kind": "too_many"},
        ),
    ),
    row(
        "server",
        "fewer tokens than asked",
        "stops after half of the tokens, though told not to",
        bad_answers(
            "short", NOTHING_BUT + r"\d+ of \d+ tokens, finish reason 'stop'", "", {"kind": "too_few"}
        )
        | {
            "start": Case(
                engine=(),
                prepare=attached({"kind": "too_few"}),
                expect=Expect(code=4, says=NOTHING_BUT, status="failed", outcomes=frozenset({"short"})),
            )
        },
    ),
    row(
        "server",
        "no tokens",
        "ends in good order without a token",
        given_up(
            "empty", NOTHING_BUT + "the answer held no tokens", "the answer held no tokens", {"kind": "empty"}
        ),
    ),
    row(
        "server",
        "wrong usage",
        "reports one token more each way than there were",
        well({"kind": "wrong_usage"}, look=_usage_is_told),
    ),
    row(
        "server",
        "early role",
        "sends what holds no token before the first token",
        well({"kind": "early_role"}),
    ),
]
STARTS = [
    starting(
        "engine dies while starting",
        "its process ends before it listens",
        _start_fault("exit", r"simulated ended while starting \(exit 1\)"),
    ),
    starting(
        "engine is never healthy",
        "GET /health answers 500 for ever",
        _start_fault("unhealthy", r"was not ready after 4 s \(engine.start_timeout_s\)"),
    ),
    starting(
        "engine does not answer /health",
        "it listens and GET /health hangs",
        _start_fault("silent", r"was not ready after 4 s \(engine.start_timeout_s\)"),
    ),
    starting(
        "engine is too slow to start",
        "it takes longer than engine.start_timeout_s",
        _start_fault(None, r"was not ready after 4 s \(engine.start_timeout_s\)", start_s=60),
    ),
]
ROWS = [*REFUSALS, *ANSWERS, *STARTS]
