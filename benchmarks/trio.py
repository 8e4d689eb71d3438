"""Tokens/s of the built-in trio at batch 1, 8 and 32 through the embedded engine's HTTP address.

``python benchmarks/trio.py [--seconds 3] [--repeats 3]``.  The three engines stay up together and take
turns (A B C A B C), so that whatever else the machine does meets all of them alike.  Closed loop: every slot
sends its next request when the last has ended; tokens that arrive while the window is open count, and the
window opens once every slot has had its first token.  An independent check of what ``profile run`` prints.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from profiler.engines.transformers import command
from profiler.schema import Model
from profiler.settings import EngineSettings

TRIO = ("tiny-moe", "tiny-dense", "tiny-dense-active")
CATALOG = Path(__file__).parent.parent / "profiler" / "catalog" / "tiny"
VOCABULARY = 2048


def start(name: str, workdir: Path) -> tuple[subprocess.Popen[str], Path]:
    """A starting engine and its log."""
    config = json.loads((CATALOG / f"{name}.json").read_text())
    folder = workdir / name
    folder.mkdir()
    argv = command(EngineSettings(), Model(name=name, weights="random", config=config), folder)
    log = folder / "engine.log"
    with log.open("w") as file:
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=file, text=True), log


def port_of(engine: subprocess.Popen[str], log: Path) -> int:
    """The port once the engine is ready."""
    assert engine.stdout is not None
    line = engine.stdout.readline()
    if not line.startswith("listening"):
        raise SystemExit(log.read_text())
    return int(line.split()[1])


class Loop:
    """A closed loop of ``batch`` slots against one engine; ``arrivals`` are times of single tokens."""

    def __init__(self, name: str, port: int, batch: int, lengths: tuple[int, int]) -> None:
        self.name, self.port, self.batch, self.lengths = name, port, batch, lengths
        self.random = random.Random(batch)
        self.arrivals: list[float] = []
        self.begun = 0
        self.steady = asyncio.Event()

    async def hold(self, seconds: float) -> float:
        """Tokens/s over ``seconds`` of steady load."""
        slots = [asyncio.create_task(self.slot()) for _ in range(self.batch)]
        await self.steady.wait()
        opened = time.perf_counter()
        await asyncio.sleep(seconds)
        closed = time.perf_counter()
        for task in slots:
            task.cancel()
        await asyncio.gather(*slots, return_exceptions=True)
        return sum(opened <= at < closed for at in self.arrivals) / (closed - opened)

    async def slot(self) -> None:
        first = True
        while True:
            async for _ in self.answer():
                self.arrivals.append(time.perf_counter())
                if first:
                    first = False
                    self.begun += 1
                    if self.begun == self.batch:
                        self.steady.set()

    async def answer(self):  # type: ignore[no-untyped-def]
        """One request; yields once a token."""
        prompt = [self.random.randrange(VOCABULARY) for _ in range(self.lengths[0])]
        body = json.dumps(
            {
                "model": self.name,
                "prompt": prompt,
                "max_tokens": self.lengths[1],
                "stream": True,
                "ignore_eos": True,
            }
        ).encode()
        head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(head + body)
            while True:
                line = await reader.readline()
                if line.startswith(b"data: {"):
                    yield None
                elif line.startswith(b"data: [DONE]") or not line:
                    return
        finally:
            writer.close()


async def measure(ports: dict[str, int], options: argparse.Namespace) -> None:
    for batch in (1, 8, 32):
        rates: dict[str, list[float]] = {name: [] for name in ports}
        for _ in range(options.repeats):
            for name, port in ports.items():
                rates[name].append(
                    await Loop(name, port, batch, (options.input, options.output)).hold(options.seconds)
                )
        middle = {name: statistics.median(found) for name, found in rates.items()}
        line = "  ".join(
            f"{name} {middle[name]:7.1f} ({min(found):.0f}–{max(found):.0f})" for name, found in rates.items()
        )
        moe, dense, active = (middle[name] for name in TRIO)
        print(
            f"batch {batch:2}  {line}   MoE ÷ dense {moe / dense:.2f}   MoE ÷ active {moe / active:.2f}",
            flush=True,
        )


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=3.0)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--input", type=int, default=32)
    options.add_argument("--output", type=int, default=64)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        engines: list[subprocess.Popen[str]] = []
        try:
            ports = {}
            for name in TRIO:
                engine, log = start(name, Path(folder))
                engines.append(engine)
                ports[name] = port_of(engine, log)
            print(f"three engines up after {time.perf_counter() - began:.1f} s", flush=True)
            asyncio.run(measure(ports, chosen))
        finally:
            for engine in engines:
                engine.terminate()
                engine.wait()


if __name__ == "__main__":
    main()
