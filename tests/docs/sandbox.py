"""Where the commands of a page are run: a folder like a user's, with real runs where a page says RUN.

``profile`` there is this tool, but ``profile run`` measures for a second in place of the minutes a scenario
takes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.docs.pages import ROOT, Command, blocks

REFERENCE = ROOT / "results" / "reference"
SHORT = ("measure.window_s=1", "measure.warmup_s=0.2", "measure.max_window_s=8", "measure.min_requests=1")
SHORT += ("telemetry.idle_s=0", "telemetry.warm_max_s=0")
SHIM = """#!{python}
import sys
words = sys.argv[1:]
if words[:1] == ["run"] and "--help" not in words:
    searched = "--find" in words
    wanted = any("target_ci_frac" in word for word in words)
    last = "search.max_probes=3" if searched else "measure.max_seconds=6" if wanted else "measure.repeats=1"
    words += [word for each in ({short!r} + (last,)) for word in ("--set", each)]
sys.argv[1:] = words
sys.path.insert(0, {root!r})
from profiler.__main__ import main
main()
"""
# What stands for a run, or several, of the reader's own.
STANDS_FOR = {
    r"results/\*trio\*": "results/*advantage*",
    r"results/RUN\b": "interrupted/RUN",
    r"\bRUN…|\bRUN(?: RUN)+\b": "reference/*/",
    r"\bRUN\b": "reference/tiny-moe-*/",
    r"\bPREFILL DECODE SPLIT\b": "split",
    r"\bNEW…": "new",
    r"\bOLD…": "old",
}
# What lm_eval --output_path writes, of the simulated model.
HARNESS = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k",
            "exact_match,strict-match": 0.62,
            "exact_match_stderr,strict-match": 0.0134,
        }
    },
    "n-samples": {"gsm8k": {"original": 1319, "effective": 1319}},
    "higher_is_better": {"gsm8k": {"exact_match": True}},
    "date": 1700000000.0,
    "config": {"model": "hf", "model_args": "pretrained=sim"},
}


def prepare(page: Path, folder: Path, runs: Path) -> dict[str, str]:
    """Fill a folder for one page, with the runs of ``runs``; the environment its commands are run in."""
    for name in ("docs", "scenarios", "benchmarks", "tools", "profiler", "Makefile", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(runs, folder, dirs_exist_ok=True)
    (folder / "results").mkdir()
    (folder / "results" / "reference").symlink_to(folder / "reference")
    for run in (folder / "reference").iterdir():
        (folder / "results" / run.name).symlink_to(run)
    for block in blocks(page):
        if "file" in block.remarks:
            (folder / block.remarks["file"]).write_text("\n".join(block.lines) + "\n")
    (folder / "gsm8k.json").write_text(json.dumps(HARNESS))
    (folder / "day.csv").write_text("".join(f"{hour},{2 if hour < 8 else 1}\n" for hour in range(24)))
    for name in ("bin", ".venv/bin"):
        tools = folder / name
        tools.mkdir(parents=True)
        (tools / "profile").write_text(SHIM.format(python=sys.executable, short=SHORT, root=str(ROOT)))
        (tools / "profile").chmod(0o755)
        (tools / "python").symlink_to(sys.executable)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PROFILER_")}
    return kept | {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "MY_KEY": "a-key", "HF_HUB_OFFLINE": "1"}


def run(commands: list[Command], folder: Path, env: dict[str, str], limit_s: float) -> list[tuple[int, str]]:
    """Exit code and output of each, all in one shell, so that a variable one sets holds for the next."""
    script = ["set +e"]
    for n, command in enumerate(commands):
        script += [f"{{ {with_runs(command.text)}", f"}} >.out-{n} 2>&1 </dev/null", f"echo $? >.code-{n}"]
    process = subprocess.Popen(["bash", "-c", "\n".join(script)], cwd=folder, env=env, start_new_session=True)
    try:
        process.wait(limit_s)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return [
        (int((folder / f".code-{n}").read_text()), (folder / f".out-{n}").read_text(errors="replace"))
        for n in range(len(commands))
    ]


def with_runs(text: str) -> str:
    """A command of a page with real runs in the place of RUN and the like."""
    names = list(STANDS_FOR.values())
    either = "|".join(f"({placeholder})" for placeholder in STANDS_FOR)
    return re.sub(either, lambda found: names[(found.lastindex or 0) - 1], text)


def make_runs(folder: Path) -> None:
    """The runs that pages ask about: ``reference``, ``old`` and ``new``, ``split``, ``interrupted/RUN``."""
    shutil.copytree(REFERENCE, folder / "reference")
    quick = ("engine.args.itl_s=0.001", "engine.args.ttft_s=0.005", "engine.args.prefill_s_per_token=0.00002")
    with ThreadPoolExecutor(3) as pool:
        made = [
            pool.submit(interrupted, folder),
            pool.submit(
                simulated, folder, "prefill", "split", "load.concurrency=4", "measure.repeats=2", *quick
            ),
            pool.submit(
                simulated, folder, "decode", "split", "load.concurrency=4", "measure.repeats=2", *quick
            ),
            pool.submit(simulated, folder, "smoke", "old", "load.concurrency=1", "measure.repeats=2"),
            pool.submit(simulated, folder, "smoke", "new", "load.concurrency=1", "measure.repeats=2"),
        ]
        for each in made:
            each.result()


RUN = (sys.executable, "-m", "profiler", "run", "-m", "sim", "--engine", "simulated", "--quiet")


def simulated(folder: Path, scenario: str, out: str, *settings: str) -> None:
    words = [word for each in (*SHORT, *settings) for word in ("--set", each)]
    done = subprocess.run(
        [*RUN, "-s", scenario, "--out", out, *words], check=False, cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def interrupted(folder: Path) -> None:
    """A run of made-up speed that was stopped in its second window, as ``folder``/interrupted/RUN."""
    process = subprocess.Popen(
        [*RUN, "-s", "smoke", "--out", "stopped"], cwd=folder, stderr=subprocess.DEVNULL
    )
    due = time.perf_counter() + 60
    while not list(folder.glob("stopped/*/parts/requests-*")) and time.perf_counter() < due:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    (left,) = folder.glob("stopped/*")
    (folder / "interrupted").mkdir()
    left.rename(folder / "interrupted" / "RUN")
