"""Rows of the wire: bytes that come in odd pieces, connections that break or cannot be had, names, TLS."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable

from tests.harden.cell import Live
from tests.harden.nouns import SIMULATED, Case, Expect, Fault, Phase
from tests.harden.rows_server import (
    ALL_ALONG,
    HASTY,
    NOTHING_ASKED,
    NOTHING_BUT,
    ONCE_IN_5,
    TO_THE_END_S,
    TOO_MANY,
    at_start,
    bad_answers,
    given_up,
    now_and_then,
    row,
    switch,
    too_much,
    well,
)

FINE = Expect(code=0, says=None, status="complete", windows=2, outcomes=frozenset(), within_s=TO_THE_END_S)
AT_THE_START = "a connection that stands asks for no name and no certificate; new ones fail as *refused* does"
# A relay that speaks TLS with a throwaway certificate: port of the server, files of key and certificate.
RELAY = """
import asyncio, ssl, sys
async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
async def relay(reader, writer):
    there = await asyncio.open_connection('127.0.0.1', int(sys.argv[1]))
    await asyncio.gather(pump(reader, there[1]), pump(there[0], writer), return_exceptions=True)
async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[2])
    server = await asyncio.start_server(relay, '127.0.0.1', 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


def _url(live: Live, url: str) -> None:
    live.words += ["--url", url]


def _secured(live: Live) -> tuple[str, str]:
    """A server behind TLS: its address without scheme, its certificate."""
    key, cert = str(live.folder / "key.pem"), str(live.folder / "cert.pem")
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    words += ["-keyout", key, "-out", cert, "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(words, check=True, capture_output=True)
    _, port = live.serve()
    relay = live.beside(
        [sys.executable, "-c", RELAY, str(port), key, cert],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert relay.stdout is not None
    return f"127.0.0.1:{int(relay.stdout.readline())}/v1", cert


def _untrusted(live: Live) -> None:
    _url(live, f"https://{_secured(live)[0]}")


def _trusted(live: Live) -> None:
    address, cert = _secured(live)
    live.env["SSL_CERT_FILE"] = cert
    _url(live, f"https://{address}")


def _plain_to_tls(live: Live) -> None:
    _url(live, f"http://{_secured(live)[0]}")


def _tls_to_plain(live: Live) -> None:
    _url(live, f"https://127.0.0.1:{live.serve()[1]}/v1")


def _nobody(live: Live) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        _url(live, f"http://127.0.0.1:{free.getsockname()[1]}/v1")


def _never_read(live: Live) -> None:
    """The kernel accepts, nobody reads."""
    listener = socket.create_server(("127.0.0.1", 0))
    live.on_close(listener.close)
    _url(live, f"http://127.0.0.1:{listener.getsockname()[1]}/v1")


def _ipv6(live: Live) -> None:
    _url(live, f"http://[::1]:{live.serve(host='::1')[1]}/v1")


def _no_ipv6() -> str | None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return "this machine has no IPv6"
    return None


def _theirs(live: Live) -> None:
    """A server that somebody else runs, under a name by which it can be struck."""
    server, port = live.serve()
    live.notes["server"], live.notes["port"] = server, port
    _url(live, f"http://127.0.0.1:{port}/v1")


def _signalled(number: int) -> Callable[[Live], None]:
    return lambda live: live.notes["server"].send_signal(number)


def _again(live: Live) -> None:
    """Somebody starts it anew, where it was."""
    live.notes["server"].wait()
    live.serve(port=live.notes["port"])


def _gone(says: str, *, stopped: bool) -> dict[Phase, Case | str]:
    strike = _signalled(signal.SIGSTOP if stopped else signal.SIGKILL)
    mend = _signalled(signal.SIGCONT) if stopped else _again

    def struck(windows: int) -> Case:
        if stopped:  # what was under way runs into its time limits: data
            window = Expect(code=1, says=TOO_MANY, status="complete", windows=2, within_s=TO_THE_END_S)
            lost = Expect(code=4, says=says, status="failed", within_s=TO_THE_END_S)
            return Case(engine=(), prepare=_theirs, strike=strike, expect=window if windows else lost)
        lost = Expect(code=4, says=says, status="failed", windows=windows, resumes=True)
        return Case(engine=(), prepare=_theirs, strike=strike, mend=mend, expect=lost)

    return {
        "start": Case(
            engine=(),
            prepare=_never_read if stopped else _nobody,
            expect=Expect(code=2, says="is not reachable", status=None),
        ),
        "warm-up": struck(0),
        "window": struck(1),
        "shutdown": Case(engine=(), prepare=_theirs, strike=strike, expect=FINE),
    }


def only_at_start(prepare: Callable[[Live], None], says: str) -> dict[Phase, Case | str]:
    return {
        "start": Case(engine=(), prepare=prepare, expect=Expect(code=2, says=says, status=None)),
        "warm-up": AT_THE_START,
        "window": AT_THE_START,
        "shutdown": NOTHING_ASKED,
    }


def all_along(case: Case) -> dict[Phase, Case | str]:
    return {"start": case, "warm-up": ALL_ALONG, "window": ALL_ALONG, "shutdown": ALL_ALONG}


def wire(name: str, does: str, cases: dict[Phase, Case | str]) -> Fault:
    return row("wire", name, does, cases)


def _hangs_up() -> dict[Phase, Case | str]:
    """The next request meets the closed connection, or sees it before it goes out."""
    fault = {"kind": "hang_up", "every": 5}
    some = Case(
        strike=switch(fault),
        expect=Expect(code=(0, 1), says=None, status="complete", windows=2, within_s=TO_THE_END_S),
    )
    return {
        "start": some,
        "warm-up": ALL_ALONG,
        "window": ALL_ALONG,
        "shutdown": ALL_ALONG,
    }


DEAD_PROXY = {
    name: "http://127.0.0.1:9"
    for each in ("http_proxy", "https_proxy", "all_proxy")
    for name in (each, each.upper())
} | {"no_proxy": None, "NO_PROXY": None}
CUT = "connection lost|Connection reset|connection reset"
BROKEN = [
    wire(
        "reset",
        "resets the connection in the middle of every answer",
        given_up("reset", "stopped answering: ", CUT, {"kind": "reset"}),
    ),
    wire("reset now and then", f"the same: {ONCE_IN_5}", now_and_then("reset", "reset")),
    wire(
        "refused",
        "nobody listens; later on: the server is killed",
        _gone("stopped answering: ", stopped=False),
    ),
    wire(
        "half open",
        "connections are accepted and never read; later on: the server is suspended",
        _gone(f"{NOTHING_BUT}|stopped answering: ", stopped=True),
    ),
    wire(
        "hung up between requests",
        f"the connection is closed after the answer, unannounced: {ONCE_IN_5}",
        _hangs_up(),
    ),
    wire(
        "no HTTP",
        "what is no HTTP chunk in the middle of every answer",
        given_up("malformed", NOTHING_BUT + "not HTTP", "malformed: not HTTP", {"kind": "bad_framing"}),
    ),
    wire(
        "no text",
        "a data line of bytes that are no text in every answer",
        bad_answers("malformed", NOTHING_BUT, "malformed: ", {"kind": "garbage"}),
    ),
    wire(
        "giant line",
        f"an event of 17 MiB: {ONCE_IN_5}",
        now_and_then("malformed", "long_line") | {"start": at_start("malformed: ", {"kind": "long_line"})},
    ),
    wire(
        "wrong content type",
        "status 200 with a web page",
        given_up(
            "malformed",
            NOTHING_BUT + "not an event stream: <html>",
            "not an event stream",
            {"kind": "wrong_type"},
        ),
    ),
    wire(
        "compressed",
        "gzip that nobody asked for",
        given_up(
            "malformed",
            NOTHING_BUT + r"not an event stream: compressed \(gzip\)",
            r"compressed \(gzip\)",
            {"kind": "gzip"},
        ),
    ),
    wire(
        "slow loris",
        "the rest of every answer byte by byte, four a second",
        too_much(
            "gap_timeout",
            "no complete answer in",
            {"kind": "loris"},
            words=HASTY,
        ),
    ),
    wire(
        "slow loris, head",
        "the head of every answer so",
        bad_answers(
            "first_token_timeout",
            NOTHING_BUT + "no token in 0.6",
            "no complete answer in",
            {"kind": "loris_head"},
            words=HASTY,
        ),
    ),
]
ODD = [
    wire("byte by byte", "the middle event of every answer, 5 ms a byte", well({"kind": "trickle"})),
    wire("characters cut in two", "UTF-8 split across chunks", well({"kind": "split_utf8"})),
    wire(
        "giant chunk",
        "8 MiB of comment before an event, in one piece",
        well({"kind": "giant_chunk", "every": 7}),
    ),
    wire("100 Continue", "announces each answer", well({"kind": "interim"})),
    wire("HTTP/1.0", "the end of each answer is the end of the connection", well({"kind": "http_10"})),
    wire("closed, announced", "Connection: close after each answer", well({"kind": "close"})),
    wire("bytes after the end", "something more behind each answer", well({"kind": "trailing"})),
]
WAYS = [
    wire(
        "no such name",
        "the host's name cannot be resolved",
        only_at_start(lambda live: _url(live, "http://nowhere.invalid:8000/v1"), "nowhere.invalid"),
    ),
    wire("certificate not trusted", "signed by itself", only_at_start(_untrusted, "(?i)certificate")),
    wire("https:// to a plain server", "no TLS there", only_at_start(_tls_to_plain, "is not reachable")),
    wire("http:// to a TLS server", "TLS there", only_at_start(_plain_to_tls, "is not reachable")),
    wire(
        "TLS, trusted",
        "a certificate that the system trusts",
        all_along(Case(engine=(), prepare=_trusted, expect=FINE)),
    ),
    Fault(
        name="IPv6 only",
        group="wire",
        does="the server listens on ::1 alone",
        cases=all_along(Case(engine=(), prepare=_ipv6, expect=FINE)),
        needs=_no_ipv6,
    ),
    wire(
        "dead proxy in the environment",
        "HTTP_PROXY and its like name one that is not there; the engine is on this machine",
        all_along(Case(engine=SIMULATED, env=DEAD_PROXY, expect=FINE)),
    ),
]
ROWS = [*BROKEN, *ODD, *WAYS]
