"""An engine that works in steps, on a clock of its own: what every step takes is written down.

Each step decodes one token of every running request and fills what is left of its token budget with prompts
in the order they came (chunked prefill); it lasts ``step_s`` + a share for each token, and takes
``standing_w`` for as long, and so much for each token.  So the truth about a window is known, and so is what
a client sees of it.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from profiler import store
from profiler.schema import Baseline, LoadPoint, RequestRecord
from tests import make

S = 10**9
GPU = "GPU-1"
IDLE_S = 10.0
Lengths = Callable[[int], tuple[int, int]]


def prefill(_index: int) -> tuple[int, int]:
    return 2048, 1


def decode(_index: int) -> tuple[int, int]:
    return 128, 512


def mixed(index: int) -> tuple[int, int]:
    """As scenario split."""
    return decode(index) if index % 3 == 0 else prefill(index)


@dataclass
class Engine:
    """The law.  ``wobble``: relative scatter of the energy of a step, and how much of it the next keeps."""

    step_s: float = 0.004
    prefill_s: float = 50e-6
    decode_s: float = 200e-6
    budget: int = 2048
    standing_w: float = 120.0
    input_j: float = 0.02
    decode_j: float = 0.15
    context_j: float = 0.0
    wobble: tuple[float, float] = (0.05, 0.9)


@dataclass
class _Request:
    index: int
    sent_s: float
    input_tokens: int
    output_tokens: int
    left: int
    arrivals_s: list[float] = field(default_factory=list)


@dataclass
class Log:
    """Energy reached at the end of each step, and the requests."""

    times_s: list[float]
    joules: list[float]
    requests: list[_Request]


def closed_loop(
    law: Engine, slots: int, lengths: Lengths, span_s: tuple[float, float], seed: int, think_s: float = 0.0
) -> Log:
    """``slots`` requests in the house, each ``think_s`` (on average) after the one before it ended."""
    rng = random.Random(seed)
    numbers = itertools.count()

    def fresh(now: float) -> _Request:
        index = next(numbers)
        asked = lengths(index)
        return _Request(index, now, *asked, asked[0])

    start_s, until_s = span_s
    waiting = deque(fresh(start_s) for _ in range(slots))
    thinking: list[float] = []
    running: list[_Request] = []
    log, now, joules, off = Log([start_s], [0.0], []), start_s, 0.0, 0.0
    while now < until_s:
        waiting.extend(fresh(at) for at in sorted(thinking) if at <= now)
        thinking = [at for at in thinking if at > now]
        if not waiting and not running:
            joules += law.standing_w * (min(thinking) - now)
            now = min(thinking)
            log.times_s.append(now)
            log.joules.append(joules)
            continue
        prefilled, ready = _fill(waiting, law.budget - len(running))
        span_s = law.step_s + law.prefill_s * prefilled + law.decode_s * len(running)
        off = law.wobble[1] * off + law.wobble[0] * rng.gauss(0, 1)
        context = sum(each.input_tokens + len(each.arrivals_s) for each in running)
        spent = law.input_j * prefilled + law.decode_j * len(running) + law.context_j * context
        now += span_s
        joules += law.standing_w * span_s + spent * (1 + off)
        log.times_s.append(now)
        log.joules.append(joules)
        for each in (*running, *ready):
            each.arrivals_s.append(now)
        ended = [each for each in (*running, *ready) if len(each.arrivals_s) == each.output_tokens]
        running = [each for each in (*running, *ready) if each not in ended]
        log.requests += ended
        thinking += [now + rng.uniform(0, 2) * think_s for _ in ended]
    log.requests += [*running, *waiting]
    return log


def _fill(waiting: deque[_Request], budget: int) -> tuple[int, list[_Request]]:
    """Prompt tokens of the next step, and the requests whose prompts end in it."""
    used, ready = 0, []
    while waiting and used < budget:
        part = min(waiting[0].left, budget - used)
        waiting[0].left -= part
        used += part
        if not waiting[0].left:
            ready.append(waiting.popleft())
    return used, ready


def record(window: int, request: _Request) -> RequestRecord:
    arrivals = [round(t * S) for t in request.arrivals_s]
    whole = len(arrivals) == request.output_tokens
    base = make.request(window, request.index, request.sent_s)
    return replace(
        base,
        sent_ns=base.due_ns,
        first_ns=arrivals[0] if arrivals else None,
        last_ns=arrivals[-1] if arrivals else None,
        done_ns=arrivals[-1] if whole else None,
        input_tokens=request.input_tokens,
        output_tokens=len(arrivals),
        reported_input_tokens=request.input_tokens,
        reported_output_tokens=len(arrivals),
        arrivals_ns=arrivals,
        arrival_tokens=[1] * len(arrivals),
        outcome="ok" if whole else "cancelled",
    )


def ticks(joules_at: Callable[[np.ndarray], np.ndarray], until_s: float, seed: int, gpu: str = GPU) -> list:
    """Rows of a counter that steps every 100 ms, give or take, seen by a poll every 10 ms."""
    rng = np.random.default_rng(seed)
    at = np.arange(0, until_s, 0.1) + rng.uniform(0, 0.003)
    millijoules = np.round(joules_at(at) * 1e3)
    seen = at + rng.uniform(0, 0.01, len(at))
    rows = [(t, f"gpu:{gpu}", "energy_mj", value) for t, value in zip(seen, millijoules, strict=True)]
    return rows + [(t, f"gpu:{gpu}", "energy_seen_within_s", 0.01) for t in seen]


def run(
    out: Path,
    name: str,
    lengths: Lengths,
    law: Engine | None = None,
    *,
    slots: int = 16,
    window_s: float = 60.0,
    repeats: int = 3,
    energy: bool = True,
    baseline: bool = True,
    think_s: float = 0.0,
) -> store.RunResult:
    """A sealed run: an idle baseline, then ``repeats`` windows of one closed-loop load; ``lengths`` gives
    prompt and answer of its n-th request."""
    law = law or Engine()
    at_s = IDLE_S + 2
    times, joules = [0.0, at_s], [0.0, law.standing_w * at_s]
    held, seed = [], 100 * sum(map(ord, name))
    for repeat in range(repeats):
        log = closed_loop(law, slots, lengths, (at_s, at_s + window_s + 10), seed + repeat, think_s)
        window = make.window(
            repeat,
            at_s + 5,
            at_s + 5 + window_s,
            opened_ns=round(at_s * S),
            closed_ns=round(log.times_s[-1] * S),
            point=LoadPoint(mode="closed", concurrency=slots),
        )
        records = sorted(log.requests, key=lambda each: each.index)
        held.append((window, [record(repeat, each) for each in records]))
        times += log.times_s[1:]
        joules += [joules[-1] + each for each in log.joules[1:]]
        at_s = times[-1]
    times.append(at_s + 5)
    joules.append(joules[-1] + 5 * law.standing_w)
    idle = Baseline(kind="loaded", engine_start=0, start_ns=S, end_ns=round((1 + IDLE_S) * S))
    writer = make.writer(
        out,
        held,
        run_id=name,
        scenario=replace(make.SCENARIO, name=name),
        engine=replace(make.manifest("x").engine, gpus=(GPU,) if energy else ()),
        baselines=(idle,) if baseline else (),
    )
    rows = ticks(lambda t: np.interp(t, times, joules), at_s + 4, 1) if energy else []
    writer.samples_path.write_bytes(make.sample_lines(sorted(rows)))
    writer.seal()
    return store.load(out / name)


def add_samples(folder: Path, rows: list[tuple[float, str, str, float]]) -> None:
    """More samples into a sealed run."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.ParquetFile(folder / "telemetry.parquet").read()
    more = pa.table(
        [
            pa.array([round(row[0] * S) for row in rows]),
            *(pa.array([row[place] for row in rows]) for place in (1, 2)),
            pa.array([float(row[3]) for row in rows]),
        ],
        schema=table.schema,
    )
    pq.write_table(pa.concat_tables([table, more]), folder / "telemetry.parquet")
    make.written_again(folder)
