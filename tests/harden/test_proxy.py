"""The proxy of the matrix does what its modes say, and figures through it are those without it."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest

import profiler
from profiler import comparison
from profiler.engines.simulated import command, law, parse
from profiler.loadgen.client import Connection, target_of
from profiler.loadgen.decode import answer_of, decode
from profiler.loadgen.exchange import Exchange
from profiler.loadgen.payload import build
from profiler.schema import Endpoint, RequestRecord
from profiler.settings import Timeouts, Workload
from profiler.workload import Plan
from tests.harden.proxy import Proxy

TOKENS = 8
LIMITS = Timeouts(connect_s=1, first_token_s=0.5, gap_s=0.5, total_s=5)
ARGS = {"ttft_s": 0.05, "itl_s": 0.02}
WORK = Workload(input_tokens=4, output_tokens=TOKENS)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    argv = command(ARGS, model="served")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[1])
        process.terminate()


@pytest.fixture(scope="module")
def running(server: int) -> Iterator[Proxy]:
    with Proxy(server) as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxy) -> Proxy:
    running.set("pass")
    return running


def endpoint_of(port: int) -> Endpoint:
    return Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model="served", vocab_size=1000)


async def ask(port: int, count: int = 1, strike=None) -> list[tuple[RequestRecord, Exchange]]:
    """So many requests one after another on one connection, as the load generator sends and judges them;
    ``strike`` is called once the first has had its first token."""
    endpoint = endpoint_of(port)
    target = target_of(endpoint)
    plan = Plan(WORK, 1000, 0)
    connection = Connection(target, LIMITS)
    found = []
    for number in range(count):
        exchange = Exchange(plan.request(number), time.perf_counter_ns())
        trouble = await connection.open()
        if trouble is not None:
            exchange.failure, exchange.error = trouble
        else:
            ended = connection.send(exchange, build(endpoint, target, plan, exchange.planned))
            while not ended.done():
                connection.expire(time.perf_counter_ns())
                if strike is not None and exchange.first_token_ns is not None:
                    strike = strike()
                await asyncio.wait([ended], timeout=0.005)
        found.append((decode(exchange, endpoint, 0), exchange))
    connection.close()
    return found


def outcomes(proxy: Proxy, count: int = 1, strike=None) -> list[str]:
    return [record.outcome for record, _ in asyncio.run(ask(proxy.port, count, strike))]


def test_what_passes_is_what_the_server_sent(proxy, server):
    ((record, exchange),), ((same, copy),) = asyncio.run(ask(server)), asyncio.run(ask(proxy.port))
    assert record.outcome == same.outcome == "ok"
    assert answer_of(exchange, endpoint_of(server)) == answer_of(copy, endpoint_of(server))
    assert proxy.struck == 0


@pytest.mark.parametrize(
    ("kind", "changes", "outcome"),
    [
        ("stall", {}, "first_token_timeout"),
        ("stall", {"after": 3}, "gap_timeout"),
        ("cut", {}, "reset"),
        ("cut", {"after": 3}, "reset"),
        ("cut", {"after": 3, "how": "close"}, "reset"),
        ("split", {}, "ok"),
        ("glue", {}, "ok"),
        ("slow", {"delay_s": 0.05}, "ok"),
        ("drip", {"delay_s": 0.02}, "first_token_timeout"),
        ("drip", {"delay_s": 0.02, "after": 3}, "gap_timeout"),
        ("no_done", {}, "no_end"),
        ("twice", {"after": 3}, "malformed"),
        ("corrupt", {"after": 3}, "malformed"),
        ("bad_frame", {"after": 3}, "malformed"),
        ("status", {"status": 429, "retry_after_s": 1}, "http_error"),
        ("refuse", {}, "connect_error"),
    ],
)
def test_each_mode_has_its_outcome_and_none_after_it(proxy, kind, changes, outcome):
    proxy.set(kind, **changes)
    assert outcomes(proxy) == [outcome]
    assert kind == "refuse" or proxy.struck == 1
    proxy.set("pass")
    assert outcomes(proxy) == ["ok"]


@pytest.mark.parametrize(
    ("kind", "outcome"), [("stall", "gap_timeout"), ("cut", "reset"), ("refuse", "reset")]
)
def test_an_answer_under_way_is_struck_too(proxy, kind, outcome):
    assert outcomes(proxy, strike=lambda: proxy.set(kind)) == [outcome]


def test_a_stalled_answer_goes_on_when_the_mode_changes(proxy):
    def strike():
        proxy.set("stall")
        time.sleep(0.2)
        proxy.set("pass")

    ((record, _),) = asyncio.run(ask(proxy.port, strike=strike))
    assert record.outcome == "ok"
    gaps = [after - before for before, after in zip(record.arrivals_ns, record.arrivals_ns[1:], strict=False)]
    assert max(gaps) > 0.15e9


def test_only_each_so_many_eth_answer_is_struck(proxy):
    proxy.set("no_done", every=3)
    assert Counter(outcomes(proxy, 9)) == {"ok": 6, "no_end": 3}
    assert proxy.struck == 3


def test_pieces_end_inside_lines_and_characters(proxy):
    proxy.set("split")
    ((record, exchange),) = asyncio.run(ask(proxy.port))
    assert record.outcome == "ok"
    assert "☃" in b"".join(exchange.pieces).decode()
    ends = [piece[-1:] for piece in exchange.pieces]
    assert sum(end != b"\n" for end in ends) > 3 * TOKENS
    assert any(piece[0] in "☃".encode()[1:] for piece in exchange.pieces), "no character was cut"


def test_glued_events_are_one_piece_and_arrive_at_once(proxy):
    proxy.set("glue", count=4)
    ((record, exchange),) = asyncio.run(ask(proxy.port))
    assert record.output_tokens == TOKENS
    assert max(piece.count(b"data: ") for piece in exchange.pieces) == 4
    assert len(set(record.arrivals_ns)) == TOKENS / 4


def test_a_delay_moves_the_first_token_and_no_gap(proxy):
    def times(kind, **changes):
        proxy.set(kind, **changes)
        rows = [record for record, _ in asyncio.run(ask(proxy.port, 5))]
        first = sorted(record.first_ns - record.due_ns for record in rows)[2]
        return first, sorted(record.last_ns - record.first_ns for record in rows)[2]

    first, rest = times("pass")
    later, same = times("slow", delay_s=0.1)
    assert later - first == pytest.approx(0.1e9, rel=0.2)
    assert same == pytest.approx(rest, rel=0.3)


def test_a_refusal_never_reaches_the_server(proxy, server):
    proxy.set("status", status=429, retry_after_s=7)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
        head = client.recv(4096)
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\n")


def test_a_wrong_mode_is_said_and_changes_nothing(proxy):
    with pytest.raises(AssertionError, match="modes: pass, slow"):
        proxy.set("splat")
    assert outcomes(proxy) == ["ok"]


def test_the_proxy_ends_with_its_block(server):
    with Proxy(server) as short:
        process = short._process
    assert process.returncode == 0


@pytest.mark.parametrize(("kind", "changes"), [("split", {"size": 16}), ("glue", {})])
def test_figures_through_pieces_and_giant_chunks_are_those_without(proxy, tmp_path, kind, changes):
    """Tokens to the last one; rate and length of requests agree by Little's law (tokens lost or counted twice
    on the way would show), and no request is shorter than the server's law has it, which a neighbour on the
    machine only makes longer."""
    truth = law(parse(ARGS), concurrency=2, input_tokens=32, output_tokens=20)
    proxy.set(kind, **changes)
    (run,) = profiler.run(
        "served",
        "smoke",
        [
            *("load.concurrency=2", "workload.output_tokens=20", "measure.repeats=1"),
            *("measure.warmup_s=0.5", f"measure.window_s={3 * truth.e2e_s}"),
        ],
        url=proxy.url,
        out=tmp_path,
    )
    rows = [row for row in run.requests.to_pylist() if row["outcome"] != "cancelled"]
    assert proxy.struck >= len(rows) >= 6
    assert {row["outcome"] for row in rows} == {"ok"}
    assert {row["output_tokens"] - row["planned_output_tokens"] for row in rows} == {0}
    assert {row["reported_output_tokens"] - row["output_tokens"] for row in rows} == {0}
    assert {row["input_tokens"] for row in rows} == {32}
    (figures,) = comparison.rows([run])
    in_flight = figures["output_tokens_per_s"] * figures["e2e_s_mean"] / 20
    assert in_flight == pytest.approx(2, rel=0.15)
    lasted_s = [(row["last_ns"] - row["due_ns"]) / 1e9 for row in rows if row["output_tokens"] == 20]
    assert min(lasted_s) >= 0.98 * truth.e2e_s
    assert figures["e2e_s_mean"] == pytest.approx(sum(lasted_s) / len(lasted_s), rel=0.2)
