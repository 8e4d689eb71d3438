"""With which Pythons, vLLMs and transformers this works: tried, kept in ``docs/reliability/compat.json``.

    python -m tools.compat pythons [3.N…] [TESTS…]            each interpreter here, without torch
    python -m tools.compat vllm RUN…                          sealed runs of the vLLMs that were tried
    python -m tools.compat transformers VERSION…              the engine's own tests, a version an overlay

``--into FOLDER``: where environments are kept, if not in ``build/compat``.  Exit code 1: a test failed.

The record: ``command``, ``utc``, ``machine`` (cores, python) and by section, name → figures.  What is
not tried anew stays as it was, with its own date.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "reliability" / "compat.json"
PYTHONS = ("3.11", "3.12", "3.13")
# What a machine without torch, vLLM, Chromium or a GPU can run, and what no neighbour can spoil.
MARKS = "not vllm and not gpu and not browser and not timing"
HEAVY = ("tests/engines/test_transformers.py", "tests/engines/test_transformers_routing.py")
UNINSTALLED = {"playwright", "axe-playwright-python", "ruff", "mypy", "ray"}
# Where versions of Python differ: processes, sockets, asyncio, files, pickles; and arithmetic.
TESTS = (
    *(
        f"tests/{each}"
        for each in ("loadgen", "telemetry", "workload", "compat", "storage", "tokens", "stats")
    ),
    *(f"tests/{each}" for each in ("arch", "routing", "split", "engines/test_process.py")),
    *(f"tests/test_{each}.py" for each in ("scenario", "store", "schema", "records")),
)
LIMIT_S = 1800
WARNINGS = "error::DeprecationWarning:profiler.*"


def pythons(into: Path, versions: Sequence[str], tests: Sequence[str]) -> dict[str, Any]:
    """Interpreter → what its tests and an end-to-end run gave; an absent one is said and left out."""
    found = {}
    for version in versions:
        interpreter = shutil.which(f"python{version}")
        if interpreter is None:
            print(f"python{version}: not on this machine; left out")
            continue
        python = environment(interpreter, into / f"py{version}")
        found[version] = {**tested(python, tests, {}), "profile_run_rc": end_to_end(python, into)}
        print(f"python{version}: {found[version]}", flush=True)
    return found


def environment(interpreter: str, folder: Path) -> str:
    """Python of a virtual environment with everything the reading half, its tests and the load need."""
    python = str(folder / "bin" / "python")
    if not Path(python).exists():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = [
            *project["dependencies"],
            *project["optional-dependencies"]["dev"],
            "tokenizers",
            "tiktoken",
        ]
        wanted = [each for each in wanted if re.split(r"[<>=]", each)[0] not in UNINSTALLED]
        subprocess.run([interpreter, "-m", "venv", str(folder)], check=True)
        pins = ["--constraint", str(ROOT / "constraints.txt")]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pins, *wanted], check=True)
    return python


def tested(python: str, tests: Sequence[str], more: dict[str, str]) -> dict[str, Any]:
    """How many tests passed, failed and were left out; a deprecation that our own code meets is a failure."""
    words = ["-p", "no:cacheprovider", "-o", f"filterwarnings={WARNINGS}", "--tb=short", "-m", MARKS]
    began = time.monotonic()
    done = subprocess.run(
        [python, "-m", "pytest", *words, *tests],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*more.values(), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_S,
    )
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return {
        **counted(done.stdout),
        "failures": failures,
        "tests": list(tests),
        "seconds": round(time.monotonic() - began),
        "rc": done.returncode,
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def counted(output: str) -> dict[str, int]:
    """The counts in pytest's last line; what it does not name did not occur.  ValueError: none."""
    last = output.strip().splitlines()[-1] if output.strip() else ""
    counts = {what.rstrip("s"): int(number) for number, what in re.findall(r"(\d+) (\w+)", last)}
    if not {"passed", "failed", "error", "skipped", "deselected"} & set(counts):
        raise ValueError(f"pytest counted nothing: {last or 'it said nothing'}")
    failed = counts.get("failed", 0) + counts.get("error", 0)
    return {"passed": counts.get("passed", 0), "failed": failed, "skipped": counts.get("skipped", 0)}


def end_to_end(python: str, into: Path) -> int:
    """Exit code of a measurement of the simulated engine that is read back."""
    words = [
        "run",
        "--engine",
        "simulated",
        "-m",
        "tiny-moe",
        "-s",
        "smoke",
        "--quiet",
        "--out",
        str(into / "runs"),
    ]
    done = subprocess.run(
        [python, "-m", "profiler", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        timeout=LIMIT_S,
    )
    return done.returncode


def vllm(folders: Sequence[str]) -> dict[str, Any]:
    """Version → what a sealed run on it holds: tokens, memory, metrics, routing."""
    from profiler import store

    found: dict[str, Any] = {}
    for folder in folders:
        run = store.load(folder)
        facts, memory = run.manifest.engine, run.manifest.memory
        if facts.kind != "vllm" or facts.version is None or memory is None:
            sys.exit(f"{folder} is no run of vLLM")
        outcomes = run.requests["outcome"].to_pylist()
        samples = run.samples.select(["source", "name"]).to_pylist()
        found[facts.version] = {
            "device": facts.device,
            "start_s": None if facts.start_s is None else round(facts.start_s, 1),
            "sealed": run.is_sealed,
            "requests_ok": outcomes.count("ok"),
            "requests_failed": sum(each not in ("ok", "cancelled") for each in outcomes),
            "output_tokens": sum(each or 0 for each in run.requests["output_tokens"].to_pylist()),
            "memory": sorted(name for name in memory.__struct_fields__ if getattr(memory, name) is not None),
            "metrics": sorted({each["name"] for each in samples if each["source"].startswith("engine:")}),
            "routing_missing": run.manifest.routing_missing,
            "utc": run.manifest.utc,
        }
    return found


def transformers(versions: Sequence[str], into: Path) -> dict[str, Any]:
    """Version → what the tests of the transformers engine gave with it laid over the environment."""
    found = {}
    for version in versions:
        overlay = into / f"transformers{version}"
        if not overlay.exists():
            wanted = [f"transformers=={version}", *(["huggingface_hub<2"] if version < "5.17" else [])]
            install = ["install", "--quiet", "--no-deps", "--target", str(overlay)]
            subprocess.run([sys.executable, "-m", "pip", *install, *wanted], check=True)
        found[version] = tested(sys.executable, HEAVY, {"overlay": str(overlay)})
        print(f"transformers {version}: {found[version]}", flush=True)
    return found


def keep(section: str, found: dict[str, Any]) -> None:
    """Renew one section of the record, version by version."""
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    record |= {
        "command": "python -m tools.compat pythons|vllm|transformers",
        "utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "python": ".".join(map(str, sys.version_info[:3]))},
        section: dict(sorted({**record.get(section, {}), **found}.items())),
    }
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    RECORD.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def main() -> None:
    section, *words = sys.argv[1:] or ["pythons"]
    into = ROOT / "build" / "compat"
    if "--into" in words:
        at = words.index("--into")
        into = Path(words[at + 1])
        del words[at : at + 2]
    into.mkdir(parents=True, exist_ok=True)
    if section == "pythons":
        versions = [word for word in words if re.fullmatch(r"3\.\d+", word)]
        tests = [word for word in words if word not in versions]
        found = pythons(into, versions or PYTHONS, tests or TESTS)
    elif section == "vllm":
        found = vllm(words)
    elif section == "transformers":
        found = transformers(words, into)
    else:
        sys.exit(f"no section {section}: pythons, vllm or transformers")
    keep(section, found)
    sys.exit(any(each.get("rc") or each.get("profile_run_rc") for each in found.values()))


if __name__ == "__main__":
    main()
