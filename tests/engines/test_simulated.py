"""The simulated engine against its own formulas, spoken to with the standard library only."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from profiler.engines.simulated import (
    CACHE_BLOCKS,
    DECODE_BUSY,
    PREFILL_BUSY,
    Draw,
    PrefixCache,
    Settings,
    command,
    law,
    parse,
)
from profiler.errors import InputError
from profiler.nvml.load import LOAD_VARIABLE, MERGE_S, Load
from profiler.telemetry.engine_metrics import EngineMetricsProbe


@pytest.fixture
def start():
    started = []

    def run(**args):
        process = subprocess.Popen(command(args), stdout=subprocess.PIPE, text=True)
        started.append(process)
        word, port = process.stdout.readline().split()
        assert word == "listening"
        process.port = int(port)
        return process

    yield run
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def ask(port, *, prompt=(1, 2, 3), tokens=5, path="/v1/completions", **fields):
    """Status and a list of (time, event) of one streamed answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = {"model": "simulated", "max_tokens": tokens, "stream": True, "return_token_ids": True}
    body |= {"stream_options": {"include_usage": True}, "prompt": prompt} | fields
    began = time.perf_counter()
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    events = []
    if response.status == 200:
        for line in response:
            if line.startswith(b"data: "):
                data = line[6:].strip()
                events.append((time.perf_counter() - began, data if data == b"[DONE]" else json.loads(data)))
    return response.status, events


def arrivals(events):
    return [(t, len(e["choices"][0]["token_ids"])) for t, e in events if e != b"[DONE]" and e["choices"]]


@pytest.mark.timing
def test_times_follow_the_law(start):
    port = start(ttft_s=0.1, prefill_s_per_token=0.001, itl_s=0.02).port
    ask(port)
    _, events = ask(port, prompt=list(range(100)), tokens=20)
    times = np.array([t for t, _ in arrivals(events)])
    assert times[0] == pytest.approx(0.2, abs=0.02)
    assert (times[-1] - times[0]) / 19 == pytest.approx(0.02, rel=0.05)


def test_protocol_tokens_usage_and_end(start):
    port = start(ttft_s=0, itl_s=0, tokens_per_chunk=3).port
    status, events = ask(port, tokens=8)
    assert status == 200
    assert [k for _, k in arrivals(events)] == [3, 3, 2]
    ids = [i for _, e in events[:3] for i in e["choices"][0]["token_ids"]]
    assert ids == list(range(8))
    assert [e["choices"][0]["finish_reason"] for _, e in events[:3]] == [None, None, "length"]
    assert events[3][1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11}
    assert events[4][1] == b"[DONE]"


def test_chat(start):
    port = start(ttft_s=0, itl_s=0).port
    messages = [{"role": "user", "content": "four words it is"}]
    _, events = ask(port, path="/v1/chat/completions", tokens=2, messages=messages, prompt=None)
    assert events[0][1]["choices"][0]["delta"]["content"].strip()
    assert events[2][1]["usage"]["prompt_tokens"] == 4


@pytest.mark.timing
def test_jitter_is_reproducible_and_uniform_about_the_mean(start):
    def gaps():
        port = start(ttft_s=0.0, itl_s=0.01, jitter_frac=0.5, seed=3).port
        return np.diff([t for t, _ in arrivals(ask(port, tokens=60)[1])])

    first, second = gaps(), gaps()
    assert np.corrcoef(first, second)[0, 1] > 0.7
    assert first.std() > 0.0015


@pytest.mark.timing
def test_batch_slope_and_admission(start):
    port = start(ttft_s=0.05, itl_s=0.02, batch_slope=0.5, max_running=2).port
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: arrivals(ask(port, tokens=11)[1]), range(3)))
    firsts = sorted(answer[0][0] for answer in answers)
    assert firsts[1] < 0.15
    assert firsts[2] == pytest.approx(0.05 + 10 * 0.03 + 0.05, abs=0.06)
    fastest = min(answer[-1][0] - answer[0][0] for answer in answers[:3])
    assert fastest / 10 == pytest.approx(0.03, rel=0.35)


def test_law():
    settings = Settings(ttft_s=0.1, prefill_s_per_token=0.001, itl_s=0.01, batch_slope=0.1, max_running=4)
    alone = law(settings, concurrency=1, input_tokens=100, output_tokens=11)
    assert (alone.ttft_s, alone.chunk_gap_s) == pytest.approx((0.2, 0.01))
    assert alone.output_tokens_per_s == pytest.approx(11 / 0.3)
    full = law(settings, concurrency=4, input_tokens=100, output_tokens=11)
    assert full.chunk_gap_s == pytest.approx(0.013)
    assert full.requests_per_s == pytest.approx(4 / 0.33)
    queued = law(settings, concurrency=8, input_tokens=100, output_tokens=11)
    assert queued.requests_per_s == pytest.approx(full.requests_per_s)
    assert queued.ttft_s == pytest.approx(0.2 + 0.33)
    chunked = law(Settings(tokens_per_chunk=4, itl_s=0.01), concurrency=1, input_tokens=1, output_tokens=10)
    assert chunked.e2e_s == pytest.approx(0.1 + 2 * 0.01)


@pytest.mark.parametrize(
    ("kind", "status", "tokens", "done"),
    [
        ("http_500", 500, 0, False),
        ("http_429", 429, 0, False),
        ("error_event", 200, 5, True),
        ("empty", 200, 0, True),
        ("no_done", 200, 10, False),
    ],
)
def test_orderly_faults(start, kind, status, tokens, done):
    port = start(ttft_s=0, itl_s=0.001, faults=[{"kind": kind, "every": 2}]).port
    assert len(arrivals(ask(port, tokens=10)[1])) == 10
    got, events = ask(port, tokens=10)
    assert got == status
    data = [event for _, event in events]
    assert (
        sum(len(e["choices"][0]["token_ids"]) for e in data if e != b"[DONE]" and e.get("choices")) == tokens
    )
    assert (b"[DONE]" in data) == done
    assert any("error" in e for e in data if e != b"[DONE]") == (kind == "error_event")


def test_reset_and_exit(start):
    process = start(
        ttft_s=0, itl_s=0.001, faults=[{"kind": "reset", "every": 2}, {"kind": "exit", "every": 3}]
    )
    ask(process.port)
    with pytest.raises(ConnectionResetError):
        ask(process.port)
    assert process.poll() is None
    with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
        assert len(arrivals(ask(process.port)[1])) < 5
    assert process.wait(5) == 70


def test_client_that_leaves_frees_its_place(start):
    port = start(ttft_s=0.01, itl_s=0.05, max_running=1).port
    leaver = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    body = {"model": "simulated", "max_tokens": 1000, "stream": True, "prompt": [1]}
    leaver.request("POST", "/v1/completions", json.dumps(body))
    leaver.getresponse().read(10)
    leaver.sock.close() if leaver.sock else None
    leaver.close()
    began = time.perf_counter()
    assert len(arrivals(ask(port, tokens=2)[1])) == 2
    assert time.perf_counter() - began < 5


def usage(events):
    return next(e["usage"] for _, e in events if e != b"[DONE]" and e.get("usage"))


def test_prefix_cache_is_reported_and_shortens_the_prefill(start):
    port = start(ttft_s=0, itl_s=0, prefill_s_per_token=0.004, prefix_cache_block_tokens=16).port
    prompt = list(range(100))
    first, again, other = (ask(port, prompt=p)[1] for p in (prompt, prompt, [7, *prompt]))
    cached = [usage(events)["prompt_tokens_details"]["cached_tokens"] for events in (first, again, other)]
    assert cached == [0, 96, 0]
    times = [arrivals(events)[0][0] for events in (first, again, other)]
    assert min(times[0], times[2]) >= 0.4
    assert 0.016 <= times[1] < times[0] / 2
    longer = prompt[:50] + [500] * 50
    assert usage(ask(port, prompt=longer)[1])["prompt_tokens_details"]["cached_tokens"] == 48
    assert "prompt_tokens_details" not in usage(ask(start(ttft_s=0, itl_s=0).port)[1])


@pytest.mark.parametrize("chat", [False, True])
def test_what_was_answered_is_cached_for_the_next_turn(start, chat):
    port = start(ttft_s=0, itl_s=0, prefix_cache_block_tokens=4).port

    def turn(prompt):
        if not chat:
            return usage(ask(port, prompt=prompt, tokens=8)[1])
        return usage(ask(port, path="/v1/chat/completions", tokens=8, messages=prompt, prompt=None)[1])

    if chat:
        said = [{"role": "user", "content": "a b c d"}]
        longer = [
            *said,
            {"role": "assistant", "content": "tok " * 8},
            {"role": "user", "content": "e f g h"},
        ]
    else:
        said, longer = [91, 92, 93, 94], [91, 92, 93, 94, *range(8), 81, 82, 83, 84]
    assert turn(said)["prompt_tokens_details"]["cached_tokens"] == 0
    assert turn(longer)["prompt_tokens_details"]["cached_tokens"] == 12


def test_a_prompt_is_never_cached_to_its_last_token_and_old_blocks_go_first():
    cache = PrefixCache(2)
    prompt = list(range(8))
    assert [cache.look_up(prompt) for _ in range(2)] == [0, 6]
    assert (cache.asked_tokens, cache.hit_tokens) == (16, 6)
    assert cache.look_up([]) == 0
    for number in range(CACHE_BLOCKS):
        cache.add([-1, number])
    assert cache.look_up(prompt) == 0


def test_images_are_tokens_too(start):
    port = start(ttft_s=0, itl_s=0, tokens_per_image=20, prefix_cache_block_tokens=4).port

    def prompt(picture):
        parts = [
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
            {"type": "text", "text": "what is it"},
        ]
        messages = [{"role": "user", "content": parts}]
        return usage(ask(port, path="/v1/chat/completions", tokens=1, messages=messages, prompt=None)[1])

    seen = [prompt(picture) for picture in ("AAAA", "AAAA", "BBBB")]
    assert [each["prompt_tokens"] for each in seen] == [23, 23, 23]
    assert [each["prompt_tokens_details"]["cached_tokens"] for each in seen] == [0, 20, 0]


def test_metrics_are_vllms(start):
    port = start(ttft_s=0, itl_s=0.2, max_running=1, prefix_cache_block_tokens=2).port
    probe = EngineMetricsProbe("m", f"http://127.0.0.1:{port}/metrics")
    ask(port, prompt=[1, 2, 3, 4], tokens=1)
    ask(port, prompt=[1, 2, 3, 4], tokens=1)
    with ThreadPoolExecutor(2) as pool:
        busy = [pool.submit(ask, port, tokens=3) for _ in range(2)]
        time.sleep(0.2)
        values = {sample.name: sample.value for sample in probe.sample()}
        assert all(status == 200 for status, _ in (each.result() for each in busy))
    assert (values["requests_running"], values["requests_waiting"]) == (1, 1)
    after = {sample.name: sample.value for sample in probe.sample()}
    assert after == {
        "requests_running": 0,
        "requests_waiting": 0,
        "prompt_tokens": 4 + 4 + 3 + 3,
        "generation_tokens": 1 + 1 + 3 + 3,
        "prefix_cache_query_tokens": 14,
        "prefix_cache_hit_tokens": 2 + 2 + 2,
    }
    assert probe.status().usable


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"tfft_s": 1}, "did you mean 'ttft_s'"),
        ({"ttft_s": "fast"}, r"Expected `float`, got `str` - at `\$.ttft_s`"),
        ({"itl_s": -1}, "itl_s"),
        ({"jitter_frac": 2}, "jitter_frac"),
        ({"faults": [{"kind": "explode"}]}, "explode"),
        ({"faults": [{"kind": "reset", "evry": 2}]}, "evry"),
    ],
)
def test_bad_settings(args, said):
    with pytest.raises(InputError, match=said):
        parse(args)
    with pytest.raises(InputError):
        command(args)


def test_integers_do_for_seconds():
    assert parse({"ttft_s": 1}).ttft_s == 1


@pytest.mark.timing
def test_simulated_boards_are_told_how_busy_the_engine_is(start, monkeypatch, tmp_path):
    """Two prefills of 0.3 s and two decodes of 0.4 s; then a request that is cut off, and the end."""
    path = tmp_path / "load"
    monkeypatch.setenv(LOAD_VARIABLE, str(path))
    engine = start(ttft_s=0.3, itl_s=0.04, faults=[{"kind": "reset", "every": 3}])
    load = Load(path)

    def busy():
        load.refresh()
        return load.busy_frac(time.perf_counter())

    assert busy() == 0
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(ask, engine.port, tokens=11) for _ in range(2)]
        time.sleep(0.15)
        assert busy() == pytest.approx(2 * PREFILL_BUSY, abs=1e-4)
        time.sleep(0.35)
        assert busy() == pytest.approx(2 * DECODE_BUSY, abs=1e-4)
        for answer in answers:
            answer.result()
    with contextlib.suppress(OSError, http.client.HTTPException):
        ask(engine.port)
    deadline = time.monotonic() + 5
    while busy() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert busy() == 0
    engine.terminate()
    engine.wait()
    assert busy() is None


def test_power_follows_the_number_of_requests_up_to_full_load(tmp_path):
    draw, load = Draw(str(tmp_path / "load")), Load(tmp_path / "load")
    for change, expected in [
        ((1, 0), PREFILL_BUSY),
        ((-1, 1), DECODE_BUSY),
        ((0, 99), 1.0),
        ((0, -100), 0.0),
    ]:
        draw.change(*change)
        time.sleep(3 * MERGE_S)
        load.refresh()
        assert load.busy_frac(time.perf_counter()) == pytest.approx(expected, abs=1e-4)
    draw.close()
    Draw(None).change(1, 1)  # without boards nobody listens
