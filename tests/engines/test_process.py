"""Engine processes with real children: nothing survives, whoever dies first; waiting ends, always."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from profiler.engines import supervise
from profiler.engines.process import (
    STOP_LIMIT_S,
    EngineProcess,
    Launch,
    current_phase,
    free_port,
    get,
    start_server,
)
from profiler.errors import EngineError

SERVER = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
        self.wfile.write(os.environ.get("SAY", "").encode())
    def log_message(self, *args): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
print(f"listening {server.server_address[1]}", flush=True)
server.serve_forever()
"""

# A command with an orphan below it: a process in a session of its own whose parent has ended.
STRAY = """
import os, subprocess, sys, time
from pathlib import Path
middle = f'''
import subprocess, sys
argv = [sys.executable, "-c", {sys.argv[2]!r}]
child = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
'''
orphan = subprocess.run([sys.executable, "-c", middle], stdout=subprocess.PIPE, text=True).stdout.strip()
Path(sys.argv[1]).write_text(f"{os.getpid()} {orphan}")
time.sleep(float(sys.argv[3]))
"""
SLEEPER = "import time; print('on', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


def python(code: str, *args: object) -> list[str]:
    return [sys.executable, "-c", code, *(str(arg) for arg in args)]


def until(what: Callable[[], object], limit_s: float = 15.0) -> None:
    end = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "engine.log"


@pytest.fixture
def start(log: Path) -> Iterator[Callable[[list[str]], EngineProcess]]:
    with contextlib.ExitStack() as stack:

        def begin(argv: list[str]) -> EngineProcess:
            process = EngineProcess(argv, {}, log)
            stack.callback(process.stop)
            return process

        yield begin


def stray_pids(folder: Path) -> list[int]:
    note = folder / "pids"
    until(lambda: note.exists() and note.read_text().count(" ") == 1)
    return [int(pid) for pid in note.read_text().split()]


def test_pid_is_the_command_itself_in_its_own_session(start):
    process = start(python("import time; time.sleep(600)"))
    assert psutil.Process(process.pid).cmdline()[1] == "-c"
    assert os.getsid(process.pid) == process.pid != os.getsid(0)


def test_the_log_goes_on_where_its_file_was_moved_and_copies_of_it_stand_still(start, log, tmp_path):
    wait = "print('first', flush=True)\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
    process = start(
        python(f"import os, sys, time\n{wait}print('second', flush=True)\ntime.sleep(60)", tmp_path / "go")
    )
    until(lambda: "first" in process.log())
    process.part_with_log(tmp_path)
    log.rename(tmp_path / "moved.log")
    (tmp_path / "go").touch()
    until(lambda: "second" in process.log())
    process.part_with_log(tmp_path)
    assert process.log() == "first\nsecond\n"
    assert process.log_path.read_text() == "first\nsecond\n"
    assert (tmp_path / "moved.log").read_text() == "first\n"


def test_exit_code_of_the_command_is_known(start):
    process = start(python("raise SystemExit(3)"))
    until(lambda: process.exit_code() is not None)
    assert process.exit_code() == 3


def test_death_by_signal_is_known_and_explained(start):
    process = start(python("import os; os.kill(os.getpid(), 9)"))
    until(lambda: process.exit_code() is not None)
    assert process.exit_code() == -signal.SIGKILL
    assert "memory" in str(process.failure("the engine died"))


def test_missing_command_is_an_exit_with_a_reason(start):
    process = start(["/no/such/engine"])
    assert process.pid is None
    assert process.exit_code() == 127
    assert "cannot run /no/such/engine" in process.tail(1)[0]


def test_output_and_errors_are_appended_and_only_this_start_is_read(start, log):
    log.write_text("of an earlier start\n")
    process = start(python("import sys; print('out', flush=True); print('err', file=sys.stderr)"))
    until(lambda: process.exit_code() is not None)
    assert process.tail(5) == ["out", "err"]
    assert log.read_text().startswith("of an earlier start\n")


def test_stop_takes_orphans_in_other_sessions_and_those_that_ignore_sigterm(start, tmp_path):
    process = start(python(STRAY, tmp_path / "pids", STUBBORN, 600))
    root, orphan = stray_pids(tmp_path)
    assert os.getsid(orphan) != os.getsid(root)
    began = time.monotonic()
    process.stop()
    assert time.monotonic() - began < STOP_LIMIT_S
    assert not running(root)
    assert not running(orphan)
    assert process.exit_code() == -signal.SIGTERM
    process.stop()


def test_orphans_of_a_command_that_ended_by_itself_are_ended(start, tmp_path):
    process = start(python(STRAY, tmp_path / "pids", SLEEPER, 0))
    _, orphan = stray_pids(tmp_path)
    until(lambda: process.exit_code() == 0)
    until(lambda: not running(orphan))


PARENT = """
import sys, time
from pathlib import Path
from profiler.engines.process import EngineProcess
EngineProcess(sys.argv[2:], {}, Path(sys.argv[1]))
print("started", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_survives_the_death_of_the_profiler(tmp_path, log, signum):
    argv = python(PARENT, log, *python(STRAY, tmp_path / "pids", SLEEPER, 600))
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout.readline() == b"started\n"
        pids = stray_pids(tmp_path)
        tree = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert set(pids) <= set(tree)
        parent.send_signal(signum)
        parent.wait(10)
    until(lambda: not any(running(pid) for pid in tree))


# A command with a child that holds shared memory; both are deaf to SIGTERM.  Says what it has.
HOLDER = """
import signal, sys, tempfile, time
from multiprocessing import get_context
from multiprocessing.shared_memory import SharedMemory
def hold(names):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    names.put(SharedMemory(create=True, size=64).name)
    time.sleep(600)
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context = get_context("spawn")
    names = context.Queue()
    context.Process(target=hold, args=[names]).start()
    print("has", names.get(), tempfile.mkdtemp(), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_shared_memory_and_temporary_files_go_with_the_engine(tmp_path, log, signum, monkeypatch):
    """Also of processes that have to be killed, also where the profiler is killed."""
    script, temporary = tmp_path / "holder.py", Path(f"/tmp/t{os.getpid()}-{signum}")
    script.write_text(HOLDER)
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with subprocess.Popen(python(PARENT, log, sys.executable, script), stdout=subprocess.DEVNULL) as parent:
        until(lambda: log.exists() and "has " in log.read_text())
        _, name, folder = log.read_text().split()[:3]
        shared = Path("/dev/shm", name.strip("/"))
        assert shared.exists()
        assert Path(folder).parent.parent == temporary
        parent.send_signal(signum)
    until(lambda: not shared.exists() and not any(temporary.iterdir()))
    temporary.rmdir()


def test_an_interrupt_while_it_stops_and_the_death_of_the_supervisor_leave_nothing(start, log, monkeypatch):
    """As of three Ctrl-C: the first ends the waiting, the third kills who would have removed the files."""
    temporary = Path(f"/tmp/t{os.getpid()}-i")
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it is asked for once and kept
    process = start(python(STUBBORN.replace("time.sleep", "print('deaf', flush=True); time.sleep")))
    supervisor = process._supervisor
    until(lambda: "deaf" in log.read_text())
    assert any(temporary.iterdir())

    def interrupt() -> None:
        until(lambda: supervisor.stdin.closed)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        supervisor.kill()  # the engine, deaf to SIGTERM, is nobody's now

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    beside = Thread(target=interrupt)
    try:
        beside.start()
        with pytest.raises(KeyboardInterrupt):
            process.stop()
    finally:
        signal.signal(signal.SIGINT, before)
        beside.join()
    assert not running(process.pid)
    assert not any(temporary.iterdir())
    temporary.rmdir()


def test_a_killed_supervisor_takes_the_engine_with_it(start):
    process = start(python("import time; time.sleep(600)"))
    psutil.Process(process.pid).parent().kill()
    until(lambda: not running(process.pid))
    assert process.exit_code() is not None
    assert "its supervisor was killed" in str(process.failure("it died"))


@pytest.mark.parametrize(("ends", "said"), [("kill -9 $$", "was killed before"), ("exit 1", "did not start")])
def test_a_supervisor_that_does_not_start_says_how(log, monkeypatch, tmp_path, ends, said):
    instead = tmp_path / "python"
    instead.write_text(f"#!/bin/sh\n{ends}\n")
    instead.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(instead))
    with pytest.raises(EngineError, match=f"supervisor {said}"):
        EngineProcess(["true"], {}, log)


def test_a_server_that_cannot_write_its_log_is_not_waited_for(log, monkeypatch):
    def is_full(_path, _data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", is_full)
    with pytest.raises(EngineError, match=r"toy cannot write its log .*: No space left on device; make room"):
        start_server(server(code="import time; time.sleep(600)", timeout_s=60.0), log, lambda _: None)


def test_ctrl_c_in_the_terminal_does_not_reach_the_engine(tmp_path, log):
    code = """
import os, signal, sys, time
from pathlib import Path
from profiler.engines.process import EngineProcess
process = EngineProcess(sys.argv[2:], {}, Path(sys.argv[1]))
signal.signal(signal.SIGINT, lambda *_: None)
os.killpg(0, signal.SIGINT)
time.sleep(0.3)
print(process.exit_code(), flush=True)
process.stop()
"""
    sleeper = python("import time; time.sleep(600)")
    done = subprocess.run(
        python(code, log, *sleeper),
        capture_output=True,
        text=True,
        timeout=30,
        start_new_session=True,
        check=False,
    )
    assert done.stdout == "None\n", done.stderr


def test_an_engine_that_says_more_than_can_be_cleaned_keeps_the_supervisor_from_nothing():
    says_fd, said_fd = os.pipe()
    with (
        subprocess.Popen(["yes", "HF_TOKEN=abcdefgh"], stdout=said_fd) as engine,
        open(os.devnull, "w") as log,
    ):
        os.close(said_fd)
        once = Thread(target=supervise.Log(says_fd, log.fileno()).take)
        once.start()
        once.join(20)
        is_at_it = once.is_alive()
        engine.kill()
        once.join()
    os.close(says_fd)
    assert not is_at_it


def test_what_an_engine_said_last_is_whole_however_much_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "READS_AT_ONCE", 2)
    monkeypatch.setattr(supervise, "LONGEST_LINE_BYTES", 8)
    says_fd, said_fd = os.pipe()
    os.write(said_fd, b"line\n" * 5 + b"no end")
    with open(tmp_path / "log", "w") as log:
        taking = supervise.Log(says_fd, log.fileno())
        assert all(taking.take(is_all=True) for _ in range(3))
        os.close(said_fd)
        assert not taking.take()
    os.close(says_fd)
    assert (tmp_path / "log").read_bytes() == b"line\n" * 5 + b"no end"


def test_the_supervisor_imports_nothing_of_the_package():
    from profiler.engines import supervise

    code = f"""
import runpy, sys
runpy.run_path({supervise.__file__!r})
print(sorted(name for name in sys.modules if name.split(".")[0] in ("profiler", "msgspec", "numpy", "torch")))
"""
    assert subprocess.run(python(code), capture_output=True, text=True, check=True).stdout == "[]\n"


def server(
    name: str = "toy", *, announces: bool = False, timeout_s: float = 20.0, code: str = SERVER
) -> Launch:
    return Launch(
        name=name,
        argv=lambda port: python(code, 0 if announces else port),
        timeout_s=timeout_s,
        env={"SAY": "hello"},
        announces_port=announces,
        phase=lambda line: line if line.startswith("load") else None,
    )


@pytest.mark.parametrize("announces", [False, True])
def test_server_is_ready_when_it_answers(log, announces):
    started = start_server(server(announces=announces), log, lambda _: None)
    try:
        assert get(started.port, "/health") == (200, b"hello")
        assert started.start_s > 0
        assert started.process.exit_code() is None
    finally:
        started.process.stop()
    assert get(started.port, "/health") == (None, b"")


def test_a_port_taken_in_between_is_replaced(log, monkeypatch):
    first = start_server(server(), log, lambda _: None)
    try:
        ports = iter([first.port, free_port()])
        monkeypatch.setattr("profiler.engines.process.free_port", lambda: next(ports))
        second = start_server(server(), log, lambda _: None)
        second.process.stop()
        assert second.port != first.port
    finally:
        first.process.stop()


def test_a_server_that_dies_says_why(log):
    code = "import sys, time; sys.exit('torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB')"
    with pytest.raises(
        EngineError, match=r"toy ended while starting \(exit 1\): out of GPU memory"
    ) as caught:
        start_server(server(code=code), log, lambda _: None)
    assert caught.value.log_lines == ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB",)


def test_a_server_that_never_answers_is_stopped_and_progress_is_timed(log, tmp_path):
    code = f"""
import os, time
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
print("loading weights", flush=True)
print("some noise", flush=True)
time.sleep(600)
"""
    said: list[str] = []
    with pytest.raises(EngineError, match=r"not ready after 2\.5 s \(engine\.start_timeout_s\)") as caught:
        start_server(server(code=code, timeout_s=2.5), log, said.append)
    assert said == ["toy: loading weights · 1 s", "toy: loading weights · 2 s"]
    assert caught.value.log_lines == ("loading weights", "some noise")
    assert not running(int((tmp_path / "pid").read_text()))


def test_phase_is_that_of_the_last_telling_line():
    lines = ["load a", "load b", "noise"]
    assert current_phase(lines, lambda line: line if line.startswith("load") else None) == "load b"
    assert current_phase(["noise"], lambda _: None) == "starting"


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is of Linux")
def test_an_engine_whose_supervisor_is_gone_before_it_begins_does_not_begin():
    """Killed between fork and prctl, it could not tell the engine any more."""
    child = os.fork()
    if child == 0:
        supervise._end_with(1, lambda _option, _value: 0)  # our parent is not process 1
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
