"""A disk that fills while a load is held: what was recorded by then is kept, and so is all from before."""

from __future__ import annotations

import contextlib
import resource
import shutil
import subprocess
import sys
import time
from collections import Counter

import pytest
from msgspec import structs

from profiler import store
from profiler.errors import LoadError
from profiler.loadgen.decode import decode
from profiler.loadgen.spill import Spill
from profiler.loadgen.worker import LoadWorker
from profiler.records import read_records, write_records
from profiler.schema import Endpoint
from tests.loadgen.test_spill import exchange
from tests.loadgen.test_worker import ignore
from tests.test_cli import ours, profile, wait_until

pytestmark = pytest.mark.timing

ROOM_BYTES = 700_000
HEAVY = {"n_out": 100, "concurrency": 4, "window_s": 30.0, "max_window_s": 60.0}  # some 25 kB a request
RUN = (
    *("run", "--engine", "simulated", "--model", "sim", "--scenario", "smoke", "--quiet"),
    *("--set", "measure.window_s=1", "--set", "measure.warmup_s=0.2", "--set", "measure.min_requests=0"),
    *(
        "--set",
        "engine.args.itl_s=0.002",
        "--set",
        "engine.args.ttft_s=0.01",
        "--set",
        "load.concurrency=1,48",
    ),
    *("--set", "workload.output_tokens=40"),
)


@contextlib.contextmanager
def limited(worker, folder):
    """The load process may write no file that is larger; the folder to write to."""
    pid = worker._processes[0].popen.pid
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (ROOM_BYTES, resource.RLIM_INFINITY))
    try:
        yield folder
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def tiny(_worker, folder):
    """A file system of its own, as small as that; filled to the brim once the load is over it."""
    small = folder / "small"
    small.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={ROOM_BYTES}", "tmpfs", str(small)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system may be mounted here: {error}")
    try:
        yield small
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.parametrize(
    ("disk", "why", "processes"),
    [(limited, "File too large", 1), (tiny, "No space left", 1), (tiny, "No space left", 2)],
)
def test_a_window_is_cut_short_and_keeps_its_requests(simulated, job, tmp_path, disk, why, processes):
    endpoint = simulated(ttft_s=0.001, itl_s=0.0)
    with LoadWorker() as worker:
        with disk(worker, tmp_path) as folder:
            plan = job(endpoint, load={"processes": processes}, **HEAVY)
            plan = structs.replace(plan, records_path=str(folder / "window.parquet"))
            began_s = time.monotonic()
            with pytest.raises(LoadError, match=f"cannot be kept in .*: {why}.*; free some space"):
                worker.run(plan, ignore, ignore)
            assert time.monotonic() - began_s < 15
            window, records = worker.cut_short, read_records(plan.records_path)
            left = [path.name for path in folder.iterdir()]
        assert left == ["window.parquet"]
        assert window.trouble is not None
        assert why in window.trouble
        outcomes = Counter(record.outcome for record in records)
        assert outcomes["cancelled"] == 4
        assert outcomes["ok"] == len(records) - 4
        assert sum(len(record.arrivals_ns) for record in records) * 250 > ROOM_BYTES  # more than fits, raw
        indices = sorted(record.index for record in records if record.outcome == "ok")
        assert len(set(indices)) == len(indices)
        again = job(endpoint, window=1, window_s=0.3, load={"processes": processes})
        assert worker.run(again, ignore, ignore).trouble is None


def test_what_is_read_makes_room_for_its_records(tmp_path):
    """… where a neighbour has taken all the rest."""
    with tiny(None, tmp_path) as small:
        spill = Spill(small / "raw")
        with contextlib.suppress(LoadError):
            for index in range(1000):
                spill.add(exchange(index, [(1, bytes(10_000))]))
        with contextlib.suppress(OSError):
            (small / "neighbour").write_bytes(bytes(ROOM_BYTES))
        assert shutil.disk_usage(small).free == 0
        endpoint = Endpoint(base_url="http://h/v1", model="m")
        records = (decode(each, endpoint, 0) for each in spill.read())
        assert write_records(small / "r.parquet", records) > 50
        spill.close()


def test_where_nothing_fits_the_error_says_so_and_nothing_half_written_stays(simulated, job, tmp_path):
    with LoadWorker() as worker:
        pid = worker._processes[0].popen.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (500, resource.RLIM_INFINITY))
        plan = job(simulated(ttft_s=0.001, itl_s=0.0), **HEAVY)
        with pytest.raises(LoadError, match=r"window are lost, .*parquet cannot be written: File too"):
            worker.run(plan, ignore, ignore)
        assert worker.cut_short is None
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_finished_windows_and_goes_on_once_there_is_room(tmp_path):
    """As a user meets it.  A limit on file sizes, which all of the run's processes inherit, is the disk."""
    code = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))\n"
        f"sys.argv = ['profile', *{RUN!r}]\n"
        "from profiler.__main__ import main\nmain()"
    )
    full = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=tmp_path, timeout=60
    )
    assert full.returncode == 4, full.stderr
    assert "Traceback" not in full.stderr
    assert "File too large; free some space there" in full.stderr
    assert "kept 1 finished windows, and the requests of the one that was under way," in full.stderr
    wait_until(lambda: not ours(tmp_path))
    (run,) = store.find([tmp_path / "results"])
    (finished,), (cut,) = run.manifest.windows, run.manifest.cut_short
    assert (finished.point.concurrency, cut.point.concurrency) == (1, 48)
    assert "File too large" in cut.trouble
    kept = Counter(run.requests["window"].to_pylist())
    assert kept[0] > 5
    assert kept[1] > 20
    resumed = profile("resume", str(run.folder), "--quiet", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    (sealed,) = store.find([tmp_path / "results"])
    assert sealed.manifest.status == "complete"
    again = Counter(sealed.requests["window"].to_pylist())
    assert {window: again[window] for window in kept} == kept
