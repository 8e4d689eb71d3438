"""Planted secrets: what is given to a run turns up nowhere, whatever goes wrong with it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from profiler import secret
from profiler.engines.sse_server import App, HttpError, serve
from tests.security import canaries

SECRETS = {
    "OPENAI_API_KEY": canaries.API_KEY,
    "HF_TOKEN": canaries.HF_TOKEN,
    "HUGGING_FACE_HUB_TOKEN": canaries.HF_TOKEN,
    "AWS_SECRET_ACCESS_KEY": canaries.AWS_SECRET,
    "MLFLOW_TRACKING_URI": f"https://me:{canaries.PASSWORD}@tracking.invalid",
    "HTTPS_PROXY": f"http://me:{canaries.PASSWORD}@proxy.invalid:3128",
}
SHORT = [
    f"--set={each}"
    for each in (
        "load.concurrency=2",
        "measure.repeats=1",
        "measure.window_s=1",
        "measure.warmup_s=0.2",
        "measure.min_requests=0",
    )
]
# An engine that tells everything it knows, as a crash report may.
TELLTALE = """
import os, sys
if sys.orig_argv[1:3] == ["-m", "profiler.engines.simulated"]:
    print("argv", sys.orig_argv, file=sys.stderr)
    print("environment", dict(os.environ), file=sys.stderr)
    print(*(f"{name}={value}" for name, value in os.environ.items()), sep="\\n", file=sys.stderr)
    print("Authorization: Bearer", os.environ.get("PROFILER_API_KEY"), file=sys.stderr)
    if os.environ.get("DIES"):
        sys.exit("ValueError: no login with " + os.environ["ENGINE_PASSWORD"])
"""
# Commands that end at once, in one process.
ONE_AFTER_ANOTHER = """
import json, sys, traceback
from profiler import cli
for words in json.load(sys.stdin):
    sys.argv = ["profile", *words]
    code = None
    try:
        cli.entry()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    print(f"exit {code} of {words[0]} {words[1][:7]}", file=sys.stderr, flush=True)
"""


class Echo(App):
    """Answers most requests; in what it says of the others is the key it was sent, as some gateways do."""

    model = "echo"

    def __init__(self) -> None:
        self.asked = 0

    async def completions(self, request: dict[str, Any], stream: Any) -> None:
        self.asked += 1
        if self.asked > 4 and self.asked % 4 == 0:
            raise HttpError(500, "x" * 200 + f" upstream refused Authorization: Bearer {canaries.API_KEY}")
        count = request["max_tokens"]
        for _ in range(count):
            stream.tokens([7], text="x")
            await asyncio.sleep(0.005)
        if self.asked > 4 and self.asked % 4 == 1:
            said = {"error": {"message": f"{'y' * 255} {canaries.API_KEY}"}}  # to be cut off in its middle
            stream.event(json.dumps(said).encode())
            return
        stream.finish("length", prompt_tokens=len(request["prompt"]), completion_tokens=count)


@contextmanager
def echoing(key: str = canaries.API_KEY) -> Iterator[int]:
    """Its port, served from a thread."""
    loop, port, is_up = asyncio.new_event_loop(), [], threading.Event()

    def ready(found: int) -> None:
        port.append(found)
        is_up.set()

    task = loop.create_task(serve(Echo(), api_key=key, ready=ready))

    def run() -> None:
        asyncio.set_event_loop(loop)
        with suppress(asyncio.CancelledError):
            loop.run_until_complete(task)

    thread = threading.Thread(target=run)
    thread.start()
    assert is_up.wait(10)
    try:
        yield port[0]
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()


def environment(cwd: Path, **more: str) -> dict[str, str]:
    (cwd / "tmp").mkdir(exist_ok=True)
    return {**os.environ, **SECRETS, "TMPDIR": str(cwd / "tmp"), "XDG_CACHE_HOME": str(cwd / "cache"), **more}


def profile(*words: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """One command, watched: in no process list, file, output."""
    with canaries.watched(cwd) as watched:
        done = subprocess.run(
            [sys.executable, "-m", "profiler", *words],
            check=False,
            capture_output=True,
            text=True,
            cwd=cwd,
            env=environment(cwd, **env),
            timeout=120,
        )
    assert watched.looks
    assert not watched.found
    check(done.stdout, done.stderr, cwd)
    return done


def check(stdout: str, stderr: str, cwd: Path) -> None:
    assert not canaries.seen(stdout), stdout
    assert not canaries.seen(stderr), stderr
    assert "Traceback" not in stderr, stderr
    assert not canaries.in_files(cwd)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run against a server that echoes the key in every fourth refusal and stream."""
    cwd = tmp_path_factory.mktemp("endpoint")
    with echoing() as port:
        url = f"http://127.0.0.1:{port}/v1"
        words = (
            "--url",
            url,
            "--key-env",
            "OPENAI_API_KEY",
            "--scenario",
            "smoke",
            "--max-failed=100%",
            "--json",
        )
        done = profile("run", *words, *SHORT, cwd=cwd)
    return cwd, done


@pytest.fixture
def engine(tmp_path):
    """A scenario whose engine tells all, and the folder it is in."""
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "sitecustomize.py").write_text(TELLTALE)
    return tmp_path


def scenario(cwd: Path, more: str = "") -> str:
    """The file itself holds the secrets of the engine, and is outside of the folder that is searched."""
    root = Path(__file__).resolve().parents[2]
    file = cwd.parent / f"{cwd.name}-telling.toml"
    file.write_text(
        (root / "scenarios" / "smoke.toml").read_text()
        + f"""
kind = "simulated"
[engine.env]
PYTHONPATH = "{cwd / "told"}:{root}"
ENGINE_PASSWORD = {json.dumps(canaries.ENGINE_PASSWORD)}
DOWNLOAD_FROM = "https://me:{canaries.PASSWORD}@mirror.invalid/x?X-Amz-Signature={canaries.SIGNATURE}"
{more}
"""
    )
    return str(file)


# --------------------------------------------------------------------------------------------- a server's key


def test_the_key_of_a_server_that_echoes_it(measured):
    cwd, done = measured
    assert done.returncode == 0, done.stderr
    [run] = (cwd / "results").glob("*-smoke-*")
    told = canaries.content(run / "requests.parquet").decode(errors="replace")
    assert f"Bearer {secret.HIDDEN}" in told
    assert f"yyy {secret.HIDDEN}" in told


def test_nor_is_it_in_what_is_made_of_the_run(measured):
    cwd, _ = measured
    [run] = (cwd / "results").glob("*-smoke-*")
    words = [
        ["report", str(run), "--output", "report.html"],
        ["export", str(run), "--to", "mlflow", "--out", "mlruns"],
    ]
    done = one_after_another(words, cwd)
    assert [line for line in done.stderr.splitlines() if line.startswith("exit ")] == [
        f"exit 0 of {each[0]} {each[1][:7]}" for each in words
    ]


def test_a_key_that_is_refused_and_servers_that_are_not_there(tmp_path):
    key = ("--key-env", "OPENAI_API_KEY", "--scenario", "smoke")
    with echoing("another") as port, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        hosts = (f"127.0.0.1:{port}", f"127.0.0.1:{nobody.getsockname()[1]}", "nobody.invalid")
        words = [["run", "--url", f"http://{host}/v1", *key] for host in hosts]
        done = one_after_another(words, tmp_path)
    said = [line for line in done.stderr.splitlines() if not line.startswith("exit 2 ")]
    assert [each.partition(": ")[0] for each in said] == ["error"] * 3
    assert "the API key was refused (HTTP 401)" in said[0]
    assert not (tmp_path / "results").exists()


# ---------------------------------------------------------------------------------------- an engine's secrets


def test_an_engine_that_dies_and_prints_all_it_knows(engine):
    done = profile("run", "--model", "sim", "--scenario", scenario(engine, 'DIES = "1"'), *SHORT, cwd=engine)
    assert done.returncode == 4, done.stderr
    assert f"ValueError: no login with {secret.HIDDEN}" in done.stderr
    [run] = (engine / "results").glob("sim-*")
    log = (run / "engine.log").read_text()
    assert f"HF_TOKEN={secret.HIDDEN}" in log
    assert f"'HF_TOKEN': '{secret.HIDDEN}'" in log
    assert f"Bearer {secret.HIDDEN}" in log
    assert "argv [" in log


def test_an_engine_that_prints_all_it_knows_and_serves_a_run_that_is_interrupted_and_resumed(engine):
    file = scenario(engine)
    words = ("run", "--model", "sim", "--scenario", file, *SHORT, "--set=measure.repeats=2")
    with canaries.watched(engine) as watched:
        process = subprocess.Popen(
            [sys.executable, "-m", "profiler", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=engine,
            env=environment(engine),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
        )
        until(lambda: any((engine / "results").glob("*/parts/requests-00000.parquet")))
        process.send_signal(signal.SIGINT)
        check(*process.communicate(timeout=60), engine)
    assert not watched.found
    assert process.returncode == 130
    [run] = (engine / "results").glob("sim-*")
    done = profile("resume", str(run), cwd=engine)
    assert done.returncode == 0, done.stderr
    assert "environment {" in (run / "engine.log").read_text()
    settings = json.loads((run / "manifest.json").read_text())["settings"]
    assert "PYTHONPATH" in settings["env"]
    assert not {"ENGINE_PASSWORD", "DOWNLOAD_FROM"} & settings["env"].keys()


def test_a_sweep_of_such_engines(engine):
    file = engine.parent / f"{engine.name}-sweep.toml"
    file.write_text(
        f'name = "canary"\nstarts = 1\nscenario = "{scenario(engine)}"\n[axes]\nmodel = ["sim"]\n'
        f"[set]\nengine.env.WANDB_API_KEY = '{canaries.API_KEY}'\nload.concurrency = [2]\n"
        "measure.window_s = 1\nmeasure.repeats = 1\nmeasure.warmup_s = 0.2\nmeasure.min_requests = 0\n"
    )
    done = profile("sweep", str(file), "--json", cwd=engine)
    assert done.returncode == 0, done.stderr
    assert (engine / "results" / "sweeps" / "canary.json").exists()


def until(reached: Any) -> None:
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


# --------------------------------------------------------------------------------------- words with secrets


def one_after_another(words: list[list[str]], cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_ANOTHER],
        input=json.dumps(words),
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(cwd, HF_ENDPOINT=f"http://me:{canaries.PASSWORD}@127.0.0.1:9/"),
        timeout=120,
    )
    check(done.stdout, done.stderr, cwd)
    return done


def test_addresses_with_secrets_are_refused_without_being_repeated(tmp_path):
    user = f"me:{canaries.PASSWORD}"
    # What an argument refuses is not repeated where it names or looks like a credential.
    vllm = tmp_path.parent / f"{tmp_path.name}-args.toml"
    vllm.write_text(f'[engine]\nkind = "simulated"\n[engine.args]\napi_key = "{canaries.API_KEY}"\n')
    wrong = tmp_path.parent / f"{tmp_path.name}-wrong.toml"
    wrong.write_text(f'[engine]\nenv = ["HF_TOKEN={canaries.HF_TOKEN}"]\n')
    run = ["run", "--model", "m", "--scenario", "smoke"]
    words = [
        [*run, "--url", f"https://{user}@host.invalid/v1"],
        [*run, "--url", f"ftp://{user}@host.invalid/v1"],
        [*run, "--url", f"{user}@host.invalid"],
        [*run, "--url", f"https://host.invalid/v1?api_key={canaries.API_KEY}"],
        [*run, "--url", f"https://host.invalid:{canaries.PASSWORD}@/v1"],
        ["run", "--model", "sim", "--scenario", str(vllm)],
        ["run", "--model", "sim", "--scenario", str(wrong)],
        ["run", "--model", "nobody/nothing-at-all", "--scenario", "smoke"],
        ["compare", f"s3://AKIA:{canaries.AWS_SECRET}@bucket/runs"],
        ["compare", f"s3://bucket/runs?secret_key={canaries.AWS_SECRET}"],
        ["compare", f"s3://bucket/runs?X-Amz-Signature={canaries.SIGNATURE}"],
        ["sweep", str(wrong), "--ray", f"ray://{user}@head.invalid:10001"],
        ["compare", str(tmp_path / "nothing")],
        [*run, f"--api-key={canaries.API_KEY}"],
        ["import", "nothing.json", "--gpus", f"https://{user}@host.invalid"],
    ]
    done = one_after_another(words, tmp_path)
    ends = [line for line in done.stderr.splitlines() if line.startswith("exit ")]
    assert ends == [f"exit 2 of {each[0]} {each[1][:7]}" for each in words], done.stderr


def test_a_fault_of_ours_shows_where_it_was_and_no_secret(tmp_path):
    code = """
import os
from profiler import cli
def broken(**_):
    raise RuntimeError("https://me:password@host " + os.environ["OPENAI_API_KEY"])
cli.app = broken
cli.entry()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment(tmp_path)
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert f"RuntimeError: https://{secret.HIDDEN}@host {secret.HIDDEN}" in done.stderr
    assert not canaries.seen(done.stderr)


# ------------------------------------------------------------------------------------------------- the parts


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("GET https://me:pa@ss@host/x?api_key=abc&page=2", "GET https://***@host/x?api_key=***&page=2"),
        ("/x?X-Amz-Signature=00ff&X-Amz-Date=2026", "/x?X-Amz-Signature=***&X-Amz-Date=2026"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: Basic ***"),
        ("{'authorization': 'Bearer abcdef'}", "{'authorization': 'Bearer ***'}"),
        ("token hf_abcdefghijklmnopqrstuvwx is no good", "token *** is no good"),
        ("the bearer of good news, git+https://host/x@main, 5 tokens", None),
        ("mail me@host; a = b@c", None),
        ("HF_TOKEN=abc 'api_key': 'de', --hf-token: x1", "HF_TOKEN=*** 'api_key': '***', --hf-token: ***"),
        ("unexpected key: lm_head, eos_token: </s>, max_num_batched_tokens=8192, key_env: NAME", None),
    ],
)
def test_what_has_the_shape_of_a_secret_is_hidden(text, clean):
    assert secret.without(text) == (clean or text)
    assert secret.has(text) == (clean is not None)


def test_a_known_secret_is_hidden_however_it_is_written():
    text = " ".join(form.decode(errors="replace") for form in canaries.forms(canaries.ENGINE_PASSWORD))
    assert canaries.ENGINE_PASSWORD not in secret.without(text, [canaries.ENGINE_PASSWORD])
    assert secret.without("said kAnarienVog", [canaries.API_KEY]) == f"said {secret.HIDDEN}"
    assert secret.without("x", ["", None, "x"]) == "x"


def test_short_values_and_names_that_are_none_hide_nothing():
    assert secret.values({"HF_TOKEN": "1", "TOKENIZERS_PARALLELISM": "false", "HOME": "/home/me"}) == ()
    assert secret.values({"X_TOKEN": "abcdef", "PROXY": "http://me:abcdefgh@h"}) == (
        "me:abcdefgh",
        "abcdefgh",
        "abcdef",
    )
