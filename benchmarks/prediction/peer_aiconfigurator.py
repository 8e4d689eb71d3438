"""NVIDIA's aiconfigurator on the same rows, in a virtual environment of its own:

    python -m venv peer && peer/bin/pip install -r benchmarks/prediction/requirements-aiconfigurator.txt
    HERE=benchmarks/prediction/peer_aiconfigurator.py
    python -m benchmarks.prediction.peer_aiconfigurator ask > asked.jsonl
    HF_HUB_OFFLINE=1 peer/bin/python $HERE answer < asked.jsonl > answers.jsonl    # three minutes
    python -m benchmarks.prediction.peer_aiconfigurator table < answers.jsonl      # writes docs/prediction.md

It is given what ours is given: model config, GPU, parallel widths, precision, batch and lengths; its packaged
kernel database for vLLM on H100 (its own default version: it has none for 0.11.1), and its ``HYBRID`` mode
where that lacks a kernel.  *Scaled*: divided by what the rows of all other models are off by, so that the
host's time, which it leaves out, does not count against it.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any


def ask() -> None:
    """One line a row: the row, and the config it is a model of."""
    import msgspec

    from benchmarks.prediction import rows
    from profiler import catalog

    for row in rows.rows("ml-energy"):
        entry = catalog.find(rows.SAME_SHAPE.get(row.model, row.model))
        assert entry is not None, row.model
        config = {key: value for key, value in entry.config.items() if key != "quantization_config"}
        asked = msgspec.to_builtins(row) | {"config": config, "isl": int(rows.INPUT_TOKENS)}
        print(json.dumps(asked))


def answer() -> None:
    """Runs in the peer's environment, with nothing of ours."""
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            row = json.loads(line)
            place = Path(folder) / row["model"].replace("/", "--")
            place.mkdir(exist_ok=True)
            (place / "config.json").write_text(json.dumps(row.pop("config")))
            print(json.dumps(row | _estimate(row, str(place))), flush=True)


def _estimate(row: dict[str, Any], model: str) -> dict[str, Any]:
    from aiconfigurator.cli.api import cli_estimate

    eight_bit = row["precision"] == "fp8"
    quantised = {"gemm_quant_mode": "fp8"} if eight_bit else {}
    if row["expert"] > 1 or "A3B" in row["model"]:
        quantised |= {"moe_tp_size": row["tensor"] // row["expert"], "moe_ep_size": row["expert"]}
    failed = ""
    for mode in ("SILICON", "HYBRID"):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                found = cli_estimate(
                    model,
                    "h100_sxm",
                    mode="agg",
                    backend_name="vllm",
                    database_mode=mode,
                    isl=row["isl"],
                    osl=round(row["output_tokens"]),
                    batch_size=round(row["batch_seen"]),
                    tp_size=row["tensor"],
                    **quantised,
                )
            return {"tpot_s": found.tpot / 1e3, "ttft_s": found.ttft / 1e3, "mode": mode}
        except Exception as error:
            failed = f"{type(error).__name__}: {error}"
    return {"tpot_s": None, "why": failed[:300]}


def table() -> None:
    """Its time between tokens against the measured median, and against the mean (batch over tokens/s)."""
    from benchmarks.prediction import table as accuracy

    groups: dict[str, list[dict[str, Any]]] = {}
    for line in sys.stdin:
        each = json.loads(line)
        groups.setdefault(each["model"].rsplit("/", 1)[-1], []).append(each)
    errors = {name: _errors(group) for name, group in groups.items()}
    lines = ["| model | rows | answered | ITL | mean time between tokens | bias of ITL | ITL, scaled |"]
    lines.append("|---|" + "--:|" * 6)
    scaled = {}
    for name, own in errors.items():
        others = [itl for other, found in errors.items() if other != name for itl, _ in found]
        factor = math.exp(sum(others) / len(others))
        scaled[name] = [itl - math.log(factor) for itl, _ in own]
        lines.append(_line(name, len(groups[name]), own, scaled[name]))
    for title, moe in (("**dense, all**", False), ("**MoE**", True)):
        names = [name for name in groups if ("A3B" in name) == moe and errors[name]]
        pairs = [pair for name in names for pair in errors[name]]
        every = [each for name in names for each in scaled[name]]
        lines.append(_line(title, sum(len(groups[name]) for name in names), pairs, every))
    print("\n".join(lines))
    accuracy.write("peer", "\n".join(lines))


def _errors(group: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Logarithms of predicted over measured: median and mean time between tokens."""
    return [
        (
            math.log(each["tpot_s"] / each["itl_s_p50"]),
            math.log(each["tpot_s"] * each["output_tokens_per_s"] / each["batch_seen"]),
        )
        for each in group
        if each["tpot_s"]
    ]


def _line(name: str, asked: int, own: list[tuple[float, float]], scaled: list[float]) -> str:
    if not own:
        return f"| {name} | {asked} | 0 | – | – | – | – |"
    itl, mean = ([math.expm1(each) for each in column] for column in zip(*own, strict=True))
    sizes = [
        100 * sum(map(abs, found)) / len(found) for found in (itl, mean, [math.expm1(e) for e in scaled])
    ]
    bias = 100 * sum(itl) / len(itl)
    return (
        f"| {name} | {asked} | {len(own)} | {sizes[0]:.1f} | {sizes[1]:.1f} | {bias:+.1f} | {sizes[2]:.1f} |"
    )


if __name__ == "__main__":
    {"ask": ask, "answer": answer, "table": table}[sys.argv[1]]()
