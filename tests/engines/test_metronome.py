"""The metronome: its law, its wire, its account of itself, and that it is punctual."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.engines.metronome import main
from profiler.engines.metronome_law import POOL, Plans, Settings, parse
from profiler.engines.truth import Metronome, Truth
from profiler.errors import EngineError, InputError

S = 10**9
QUICK = Settings(ttft_s=0.002, itl_s=0.001)


@pytest.fixture(scope="module")
def quick():
    with Metronome(QUICK) as server:
        yield server


@pytest.fixture
def connection(quick):
    quick.clear()
    connection = http.client.HTTPConnection("127.0.0.1", quick.port, timeout=10)
    yield connection
    connection.close()


def body(tokens=5, prompt=(1, 2, 3), **fields):
    wanted = {"model": "metronome", "prompt": prompt, "max_tokens": tokens, "stream": True}
    return json.dumps(wanted | {"return_token_ids": True} | fields).encode()


def post(content, path="/v1/completions", close=False):
    """A whole request as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n"
    return f"{head}{'Connection: close' + chr(13) + chr(10) if close else ''}\r\n".encode() + content


def ask(connection, content, path="/v1/completions"):
    """Status and text of one answer."""
    connection.request("POST", path, content)
    response = connection.getresponse()
    return response.status, response.read().decode()


def events(text):
    assert text.endswith("data: [DONE]\n\n")
    return [json.loads(line[6:]) for line in text.split("\n\n")[:-2]]


# ---------------------------------------------------------------------------------- the law


@given(
    number=st.integers(0, 10**7),
    chunks=st.integers(1, 3_000),
    arrived_ns=st.integers(0, 10**17),
    jitter_frac=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_a_plan_keeps_to_the_law(number, chunks, arrived_ns, jitter_frac):
    plans = plans_of(jitter_frac)
    due_ns = np.array(plans.due_ns(number, chunks, arrived_ns))
    assert due_ns.size == chunks
    low, high = 1 - jitter_frac, 1 + jitter_frac
    assert 0.05 * S * low - 1 <= due_ns[0] - arrived_ns <= 0.05 * S * high + 1
    gaps_ns = np.diff(due_ns)
    assert np.all((gaps_ns >= 0.01 * S * low - 1) & (gaps_ns <= 0.01 * S * high + 1))
    assert list(plans.due_ns(number, chunks, arrived_ns + 5)) == [due + 5 for due in due_ns]


def plans_of(jitter_frac, made={}):  # noqa: B006 (made once: the pool takes a while)
    if jitter_frac not in made:
        made[jitter_frac] = Plans(Settings(ttft_s=0.05, itl_s=0.01, jitter_frac=jitter_frac))
    return made[jitter_frac]


def test_plans_differ_between_requests_and_seeds_and_repeat_otherwise():
    settings = Settings(jitter_frac=0.5, seed=1)
    one, again, other = Plans(settings), Plans(settings), Plans(Settings(jitter_frac=0.5, seed=2))
    assert one.due_ns(3, 9, 0) == again.due_ns(3, 9, 0)
    assert one.due_ns(3, 9, 0) != other.due_ns(3, 9, 0)
    firsts = {one.due_ns(number, 1, 0)[0] for number in range(1_000)}
    assert len(firsts) > 990


def test_some_gaps_are_heavy():
    plans = Plans(Settings(itl_s=0.01, heavy_frac=0.02, heavy_factor=10))
    gaps_s = np.diff(plans.due_ns(0, POOL, 0)) / S
    assert np.mean(gaps_s > 0.05) == pytest.approx(0.02, rel=0.1)
    assert set(np.round(gaps_s, 6)) == {0.01, 0.1}


@pytest.mark.parametrize("wrong", ['{"ttft_s": -1}', '{"itl": 1}', "{", '{"jitter_frac": 2}'])
def test_wrong_settings_are_refused(wrong, capsys):
    with pytest.raises(InputError):
        parse(wrong)
    with pytest.raises(SystemExit) as end:
        main(["--settings", wrong])
    assert end.value.code == 2
    assert "settings of the metronome" in capsys.readouterr().err


# ---------------------------------------------------------------------------------- the wire


def test_a_stream(connection):
    status, text = ask(connection, body(4, stream_options={"include_usage": True}))
    assert status == 200
    *chunks, usage = events(text)
    assert [len(chunk["choices"][0]["token_ids"]) for chunk in chunks] == [1, 1, 1, 1]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def test_one_token_no_usage_no_ids(connection):
    status, text = ask(connection, body(1, return_token_ids=False))
    (chunk,) = events(text)
    assert status == 200
    assert chunk["choices"][0]["finish_reason"] == "length"
    assert "token_ids" not in chunk["choices"][0]


def test_chat(connection):
    messages = [{"role": "user", "content": "one two three"}, {"role": "user", "content": "four"}]
    content = {"messages": messages, "max_completion_tokens": 2, "stream": True}
    content["stream_options"] = {"include_usage": True}
    status, text = ask(connection, json.dumps(content), "/v1/chat/completions")
    first, second, usage = events(text)
    assert status == 200
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"] == second["choices"][0]["delta"] == {"content": " tok"}
    assert usage["usage"]["prompt_tokens"] == 4


def test_without_a_stream(connection, quick):
    _, text = ask(connection, body(3, stream=False))
    answer = json.loads(text)
    assert answer["choices"][0]["text"] == " tok tok tok"
    assert answer["usage"]["completion_tokens"] == 3
    truth = quick.truth()
    assert list(truth.chunks) == [1]
    assert list(truth.due_ns - truth.arrived_ns) == [4_000_000]


def test_chunks_of_several_tokens():
    with Metronome(Settings(ttft_s=0, itl_s=0, tokens_per_chunk=3)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        _, text = ask(connection, body(8))
        assert [len(chunk["choices"][0]["token_ids"]) for chunk in events(text)] == [3, 3, 2]
        connection.close()


def test_pages_and_refusals(connection):
    for path, status in (("/health", 200), ("/v1/models", 200), ("/nothing", 404)):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == status
        assert response.read()
    assert ask(connection, b"{}", "/v1/embeddings")[0] == 404
    for wrong in (b"no json", body(model="another"), body(tokens="many"), body(tokens=POOL + 1)):
        assert ask(connection, wrong)[0] == 400
    assert ask(connection, body(1))[0] == 200


def test_a_large_request_in_small_pieces(connection, quick):
    content = post(body(2, prompt=list(range(200_000)), stream_options={"include_usage": True}), close=True)
    with socket.create_connection(("127.0.0.1", quick.port)) as raw:
        for start in range(0, len(content), 300_000):
            raw.sendall(content[start : start + 300_000])
            time.sleep(0.002)
        assert b'"prompt_tokens":200000' in all_of(raw)


def test_requests_that_come_before_the_last_is_answered_wait(connection, quick):
    with socket.create_connection(("127.0.0.1", quick.port)) as raw:
        raw.sendall(post(body(3)) + post(body(2)) + post(body(1), close=True))
        answers = all_of(raw).split(b"HTTP/1.1 200 OK")[1:]
    assert [answer.count(b"token_ids") for answer in answers] == [3, 2, 1]


def all_of(raw):
    raw.settimeout(10)
    pieces = []
    while piece := raw.recv(1 << 16):
        pieces.append(piece)
    return b"".join(pieces)


def test_a_client_that_does_not_read_gets_all_of_it_later():
    tokens = 60_000
    with (
        Metronome(Settings(ttft_s=0, itl_s=0)) as server,
        socket.create_connection(("127.0.0.1", server.port)) as raw,
    ):
        raw.sendall(post(body(tokens), close=True))
        wait_for(lambda: len(server.truth().emitted_ns) == tokens)
        text = all_of(raw)
    assert text.count(b"token_ids") == tokens
    assert text.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")


def wait_for(condition, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# ---------------------------------------------------------------------------------- the truth


def test_it_knows_every_chunk_and_forgets_when_told(connection, quick):
    for tokens in (5, 1, 7):
        ask(connection, body(tokens))
    truth = quick.truth()
    assert list(truth.chunks) == [5, 1, 7]
    assert np.all(np.diff(truth.arrived_ns) > 0)
    assert np.all(truth.late_s() >= 0)
    assert truth.gaps_s().size == 4 + 6
    assert np.all(truth.ttft_s() >= 0.002)
    quick.clear()
    assert quick.truth().arrived_ns.size == 0


def test_it_knows_what_is_under_way_and_stops_when_the_client_leaves():
    with Metronome(Settings(ttft_s=0.01, itl_s=0.01)) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(post(body(10_000)))
            wait_for(lambda: server.truth().emitted_ns.size >= 3)
        time.sleep(0.1)
        emitted = server.truth().emitted_ns.size
        assert emitted < 100
        time.sleep(0.05)
        truth = server.truth()
        assert truth.emitted_ns.size == truth.due_ns.size == emitted
        assert list(truth.chunks) == [emitted]


TRUTH = Truth(
    arrived_ns=np.array([0, 10, 20, 30]) * S,
    chunks=np.array([2, 0, 1, 3]),
    emitted_ns=np.array([1, 3, 22, 31, 33, 36]) * S,
    due_ns=np.array([1, 2, 22, 31, 33, 35]) * S,
)


def test_answers_of_clients_that_left_are_let_go():
    """A plan of this length takes 1.6 MB: forty that are kept would be seen."""
    with Metronome(Settings(ttft_s=0.005, itl_s=0.005)) as server:
        of_server = psutil.Process(server.pid)
        for number in range(44):
            with socket.create_connection(("127.0.0.1", server.port)) as sock:
                sock.sendall(post(body(200_000)))
                assert sock.recv(1 << 16)
            if number == 3:
                time.sleep(0.1)
                before = of_server.memory_info().rss
        time.sleep(0.1)
        assert of_server.memory_info().rss - before < 20e6


def test_what_can_be_told_from_it():
    assert list(TRUTH.ttft_s()) == [1, 2, 1]
    assert list(TRUTH.gaps_s()) == [2, 2, 3]
    assert list(TRUTH.late_s()) == [0, 1, 0, 0, 0, 1]
    part = TRUTH.arrived_in(10 * S, 30 * S)
    assert list(part.arrived_ns) == [10 * S, 20 * S]
    assert list(part.emitted_ns) == [22 * S]
    assert list(part.ttft_s()) == [2]
    assert list(TRUTH.part(3, 4).gaps_s()) == [2, 3]


def test_answers_that_end_out_of_turn_are_put_in_order(quick):
    quick.clear()
    with contextlib.ExitStack() as stack:
        for tokens in (30, 1, 10):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", quick.port)))
            raw.sendall(post(body(tokens)))
            time.sleep(0.002)
        wait_for(lambda: quick.truth().emitted_ns.size == 41)
    truth = quick.truth()
    assert list(truth.chunks) == [30, 1, 10]
    assert np.all(truth.ttft_s() >= 0.002)
    assert truth.gaps_s().size == 29 + 9
    assert np.all(truth.gaps_s() > -1e-9)


def test_a_server_that_cannot_start_is_an_error():
    with pytest.raises(EngineError), Metronome(QUICK, core=10_000):
        pass


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_with_its_parent(how):
    code = (
        "import time; from profiler.engines.truth import *\n"
        "with Metronome(Settings()) as m: print(m.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, how)
    child.wait(5)


# ---------------------------------------------------------------------------------- punctuality


def best_of_three(measure):
    return min(measure() for _ in range(3))


@pytest.mark.timing
def test_an_idle_server_is_punctual_to_the_tenth_of_a_millisecond():
    with Metronome(Settings(ttft_s=0.05, itl_s=0.01)) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

        def median_s():
            server.clear()
            ask(connection, body(30))
            return float(np.median(server.truth().late_s()))

        assert best_of_three(median_s) < 1e-4


@pytest.mark.timing
def test_emissions_are_stamped_before_the_client_has_them(quick):
    def off_s():
        quick.clear()
        seen_ns = []
        with socket.create_connection(("127.0.0.1", quick.port)) as raw:
            raw.sendall(post(body(30)))
            raw.settimeout(5)
            while len(seen_ns) < 30:
                seen = raw.recv(1 << 16).count(b"token_ids")
                seen_ns += [time.perf_counter_ns()] * seen
        after_ns = np.array(seen_ns) - quick.truth().emitted_ns
        assert np.all(after_ns > 0)
        return float(np.median(after_ns)) / S

    assert best_of_three(off_s) < 5e-4


@pytest.mark.timing
def test_a_burst_does_not_stall_it():
    burst = 300
    with Metronome(Settings(ttft_s=0.05, itl_s=0)) as server, contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(burst)
        ]
        request = post(body(1, prompt=list(range(128))))

        def each_s():
            server.clear()
            for raw in sockets:
                raw.sendall(request)
            for raw in sockets:
                raw.settimeout(5)
                raw.recv(1 << 16)
            return float(np.ptp(server.truth().arrived_ns)) / S / burst

        assert best_of_three(each_s) < 1e-4
