"""Four load generators and ours on the same servers of known behaviour, side by side.

    python benchmarks/load/peers.py [--peers FOLDER] [--only vllm,aiperf,ours] [--rows accuracy,open]
                                    [--json FILE]

The peers are installed as peer_tools.py says; one that is not there is shown as such.  The server keeps one
core and the client another; tools take turns at every case.  With ``--json`` each run is added to the file,
and the table is of all runs in it (the median where a case was run more than once), so that a long
comparison can be made in parts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from common import SERVER_CORE, Metronome, Settings
from peer_ours import Ours
from peer_run import against_truth, interpreter_start_s, run, simulated
from peer_table import FAULTS, RATES, Fault, markdown
from peer_tools import PEERS, Case, Tool, make_tokenizer

TTFT_S, ITL_S, JITTER_FRAC = 0.1, 0.025, 0.5
TOKENS = 64
START_PATIENCE_S = 60.0
SLOW_FACTOR = 8  # so much longer than its nominal time a run may take
FAULT_TIMEOUT_S = 5.0
OPEN_RATE = 2_000.0
TOOLS: tuple[type[Tool], ...] = (*PEERS, Ours)


@dataclass
class Bench:
    """The tools present, and every run so far."""

    tools: list[Tool]
    runs: list[dict[str, Any]]
    path: Path | None
    interpreter_s: float

    def measure(self, tool: Tool, row: str, label: str, law: Settings, **of_case: Any) -> dict[str, Any]:
        """One run against a metronome, kept."""
        weigh = row == "memory"
        with Metronome(law, core=SERVER_CORE) as server:
            case = Case(server.port, server.model, **of_case)
            found = run(tool, case, START_PATIENCE_S + SLOW_FACTOR * of_case["seconds"], weigh=weigh)
            truth = server.truth()
        found |= against_truth(found, truth, case)
        if tool.on_interpreter and "start_s" in found:
            found["start_s"] -= self.interpreter_s
        return self.keep({"row": row, "label": label, "tool": tool.name, "case": asdict(case), **found})

    def keep(self, found: dict[str, Any]) -> dict[str, Any]:
        self.runs.append(found)
        if self.path:
            self.path.write_text(json.dumps(self.runs, indent=1))
        shown = ("ttft_mean_error_frac", "itl_p99_error_frac", "requests_ok", "requests_failed", "exit_code")
        print(
            f"{found['row']} {found['label']} {found['tool']}:",
            *(f"{name}={found.get(name):.4g}" for name in shown if found.get(name) is not None),
            f"wall_s={found['wall_s']:.1f}",
            flush=True,
        )
        return found


# ---------------------------------------------------------------------------------- the rows


def accuracy(bench: Bench) -> None:
    """Errors at 1, 32, 256 streams of 25 ms gaps, and at 1,024 that make 25,000 chunks/s."""
    for streams, waves, itl_s in ((1, 20, ITL_S), (32, 8, ITL_S), (256, 6, ITL_S), (1_024, 4, 0.041)):
        law = Settings(ttft_s=TTFT_S, itl_s=itl_s, jitter_frac=JITTER_FRAC)
        for tool in bench.tools:
            bench.measure(tool, "accuracy", str(streams), law, **_closed(law, streams, waves))


def capacity(bench: Bench) -> None:
    """Chunks/s, 64 streams of 128 tokens, stepped up until the 99th percentile of gaps is 5 % off."""

    def step(tool: Tool, rate: int) -> dict[str, Any]:
        law = _law(rate, 64, 128)
        waves = max(4, round(5 * rate / (64 * 128)))
        return bench.measure(tool, "capacity", str(rate), law, **_closed(law, 64, waves, 128))

    _climb(bench.tools, RATES["capacity"].rungs, step, RATES["capacity"].passed)


def requests(bench: Bench) -> None:
    """Answers of one token after 100 ms, ever more streams, until 5 % of what they should make is missing."""

    def step(tool: Tool, rate: int) -> dict[str, Any]:
        law = Settings(ttft_s=TTFT_S, jitter_frac=JITTER_FRAC)
        streams = round(rate * TTFT_S)
        return bench.measure(tool, "requests", str(rate), law, **_closed(law, streams, 50, 1))

    _climb(bench.tools, RATES["requests"].rungs, step, RATES["requests"].passed)


def cpu(bench: Bench) -> None:
    """The same load for two lengths: what the longer took more is the chunks', what is left the start's."""
    law = _law(3_000, 64, 128)
    for label, waves in (("short", 1), ("long", 5)):
        for tool in bench.tools:
            bench.measure(tool, "cpu", label, law, **_closed(law, 64, waves, 128))


def start(bench: Bench) -> None:
    law = Settings(ttft_s=0.01, itl_s=0.001)
    for _, tool in itertools.product(range(3), bench.tools):
        bench.measure(tool, "start", "1", law, **_closed(law, 1, 16, 4))


def memory(bench: Bench) -> None:
    law = Settings(ttft_s=TTFT_S, itl_s=ITL_S, jitter_frac=JITTER_FRAC)
    for tool in bench.tools:
        bench.measure(tool, "memory", "256", law, **_closed(law, 256, 6))


def open_loop(bench: Bench) -> None:
    """Poisson arrivals; the server notes when they came."""
    law = Settings(ttft_s=TTFT_S, jitter_frac=JITTER_FRAC)
    count = round(6 * OPEN_RATE)
    of_case = {"requests": count, "output_tokens": 1, "requests_per_s": OPEN_RATE, "seconds": 6.0}
    for tool in bench.tools:
        bench.measure(tool, "open", f"{OPEN_RATE:.0f}", law, **of_case)


def faults(bench: Bench) -> None:
    """32 requests over 8 connections, every 8th hit; all tools at once, since nothing is timed here."""
    for label, fault in FAULTS.items():
        settings = {"ttft_s": 0.02, "itl_s": 0.005, "faults": [fault.asked]}
        with ThreadPoolExecutor(len(bench.tools)) as pool:
            for found in pool.map(lambda tool, f=fault, s=settings: _faulty(tool, f, s), bench.tools):
                bench.keep({"row": "faults", "label": label, **found})


ROWS: dict[str, Callable[[Bench], None]] = {
    "accuracy": accuracy,
    "capacity": capacity,
    "requests": requests,
    "cpu": cpu,
    "start": start,
    "memory": memory,
    "open": open_loop,
    "faults": faults,
}


# ---------------------------------------------------------------------------------- their parts


def _law(chunks_per_s: float, streams: int, tokens: int) -> Settings:
    """Gaps such that the streams make this many chunks/s, the first token of each taking 50 ms."""
    ttft_s = 0.05
    itl_s = (streams * tokens / chunks_per_s - ttft_s) / (tokens - 1)
    return Settings(ttft_s=ttft_s, itl_s=itl_s, jitter_frac=JITTER_FRAC)


def _closed(law: Settings, streams: int, waves: int, tokens: int = TOKENS) -> dict[str, Any]:
    seconds = waves * (law.ttft_s + (tokens - 1) * law.itl_s)
    return {"streams": streams, "requests": streams * waves, "output_tokens": tokens, "seconds": seconds}


def _climb(
    tools: Iterable[Tool],
    rungs: Iterable[int],
    step: Callable[[Tool, int], dict[str, Any]],
    passed: Callable[[dict[str, Any]], bool],
) -> None:
    """Every tool as high as it comes; a missed rung is tried once more."""
    climbing = list(tools)
    for rung in rungs:
        climbing = [tool for tool in climbing if passed(step(tool, rung)) or passed(step(tool, rung))]


def _faulty(tool: Tool, fault: Fault, settings: dict[str, Any]) -> dict[str, Any]:
    with simulated(settings) as port:
        timeout_s = FAULT_TIMEOUT_S if fault.with_timeout else None
        case = Case(port, "simulated", 32, 16, streams=8, timeout_s=timeout_s)
        return {"tool": tool.name, **run(tool, case, fault.patience_s, pinned=False)}


# ---------------------------------------------------------------------------------- the face


def main() -> None:
    options = _options()
    folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    tokenizer = make_tokenizer(Path(folder.name, "tokenizer"))
    every = [kind(options.peers, tokenizer) for kind in TOOLS]
    wanted = [tool for tool in every if not options.only or tool.name in options.only]
    present = [tool for tool in wanted if tool.program()]
    path = options.json
    runs = json.loads(path.read_text()) if path and path.exists() else []
    bench = Bench(present, runs, path, statistics.median([interpreter_start_s() for _ in range(3)]))
    for row in options.rows:
        ROWS[row](bench)
    absent = {tool.name for tool in wanted if tool not in present}
    print(markdown(bench.runs, [tool.name for tool in wanted], absent))


def _options() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        return [name for name in text.split(",") if name]

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    environment = os.environ.get("PEERS")
    parser.add_argument("--peers", type=Path, default=Path(environment) if environment else None)
    parser.add_argument("--only", type=names, default=[], help="which tools, by name")
    parser.add_argument("--rows", type=names, default=list(ROWS), help=f"which of {', '.join(ROWS)}")
    parser.add_argument("--json", type=Path, help="the file of runs to add to and to show")
    options = parser.parse_args()
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"--rows {','.join(unknown)}: no such row; there are {', '.join(ROWS)}")
    options.peers = options.peers and options.peers.resolve()
    return options


if __name__ == "__main__":
    main()
