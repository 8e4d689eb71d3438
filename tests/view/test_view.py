"""``profile view``: what it answers, to whom, and that it only reads."""

from __future__ import annotations

import http.client
import json
import shutil
import signal
import socket
import subprocess
import sys
from urllib.parse import quote, urlsplit

import pytest

from profiler.view.folder import Folder
from tests.view.serving import reference, serving


def ask(address: str, path: str = "/", method: str = "GET", host: str | None = None) -> tuple[int, dict, str]:
    to = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
    to.request(method, path, headers={"Host": host} if host else {})
    answer = to.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    to.close()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return reference(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def address(folder):
    with serving(folder) as found:
        yield found


def names(folder):
    return Folder(folder).names()


def test_it_lists_the_runs_newest_first_with_what_they_reached(address, folder):
    status, headers, text = ask(address)
    assert status == 200
    assert headers["content-type"].startswith("text/html")
    for name in names(folder):
        assert f'value="{name}"' in text
    assert "3 runs of 3 models" in text


def test_it_listens_on_the_loopback_interface_only(address):
    port = urlsplit(address).port
    assert urlsplit(address).hostname == "127.0.0.1"
    own = socket.gethostbyname(socket.gethostname())
    if not own.startswith("127."):
        with socket.socket() as other:
            assert other.connect_ex((own, port)) != 0


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8321"])
def test_a_name_of_somebody_elses_that_leads_here_is_refused(address, host):
    """A page of another site may have its own name point to 127.0.0.1 (DNS rebinding)."""
    assert ask(address, host=host)[0] == 400


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_it_only_reads(address, folder, method):
    assert ask(address, method=method)[0] == 405
    assert ask(address, f"/report?run={names(folder)[0]}", method=method)[0] == 405


def test_no_other_site_can_read_or_frame_a_page(address):
    headers = ask(address)[1]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert "access-control-allow-origin" not in {name.lower() for name in headers}


def test_a_report_a_comparison_and_the_claims_of_what_was_picked(address, folder):
    one, two, _ = names(folder)
    status, _, text = ask(address, f"/report?run={one}")
    assert status == 200
    assert 'data-chart="' in text
    status, _, text = ask(address, f"/compare?run={one}&run={two}&price=3.6")
    assert status == 200
    assert 'data-chart="' not in text
    assert 'id="table-loads"' in text
    assert '"stated_usd":3.6' in text
    status, _, text = ask(address, "/claims")
    assert status == 200
    assert "tiny-moe" in text


@pytest.mark.parametrize(
    ("path", "telling"),
    [
        ("/report", "no run was picked"),
        ("/report?run=../etc", "no such run"),
        ("/report?run=" + quote("/etc/passwd", safe=""), "no such run"),
        ("/compare?run=nobody", "nobody: no such run"),
        ("/claims?run=nobody", "nobody: no such run"),
    ],
)
def test_what_is_not_there_is_said_in_a_line(address, path, telling):
    status, headers, text = ask(address, path)
    assert status == 400
    assert headers["content-type"].startswith("text/plain")
    assert telling in text
    assert len(text.splitlines()) == 1


def test_wrong_terms_are_said_in_a_line(address, folder):
    status, _, text = ask(address, f"/compare?run={names(folder)[0]}&utilization=7")
    assert status == 400
    assert "utilization" in text
    status, _, text = ask(address, f"/compare?run={names(folder)[0]}&prize=2")
    assert status == 400
    assert "prize: no such term of an address (did you mean 'price'?)" in text


def test_only_the_pages_own_files_are_given(address):
    for name in ("page.css", "page.js", "view.js", "view.css", "vega.js"):
        assert ask(address, f"/static/{name}")[0] == 200
    for name in ("..%2fapp.py", "%2e%2e/app.py", "nothing.js"):
        assert ask(address, f"/static/{name}")[0] == 404


def test_a_run_that_comes_or_changes_is_told(tmp_path):
    first = names(reference(tmp_path / "all"))[0]
    results = tmp_path / "results"
    results.mkdir()
    with serving(results) as address:
        assert "No runs in" in ask(address)[2]
        to = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        to.request("GET", "/events")
        events = to.getresponse()
        seen = stamp(events)
        shutil.copytree(tmp_path / "all" / first, results / first)
        assert (seen := other(events, seen)) is not None
        assert first in ask(address)[2]
        manifest = results / first / "manifest.json"
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"status": "failed"}))
        assert other(events, seen) is not None
        assert "failed" in ask(address)[2]
        to.close()


def stamp(events) -> str:
    while True:
        line = events.readline().decode()
        if line.startswith("data: "):
            return line


def other(events, than: str) -> str | None:
    """The next stamp that is another one."""
    for _ in range(20):
        if (found := stamp(events)) != than:
            return found
    return None


def test_a_damaged_run_is_named_and_the_others_shown(tmp_path):
    first, second, third = names(reference(tmp_path))
    (tmp_path / first / "manifest.json").write_text("{")
    (tmp_path / second / "requests.parquet").write_bytes(b"no table")
    with serving(tmp_path) as address:
        status, _, text = ask(address)
        judged, _, verdicts = ask(address, "/claims")
    assert status == judged == 200
    assert "cannot be read" in text
    assert first in text
    assert f'value="{third}"' in text
    assert "What 1 run in" in verdicts
    assert "cannot be read" in verdicts
    assert second in verdicts


def test_sigterm_ends_it_as_well(tmp_path):
    with serving(reference(tmp_path), stop=signal.SIGTERM) as address:
        assert ask(address)[0] == 200


def test_a_port_that_is_taken_and_a_folder_that_is_none(tmp_path, address):
    port = str(urlsplit(address).port)
    for words, telling in ((("--port", port, str(tmp_path)), f"--port {port}"), (("none",), "no folder")):
        command = [sys.executable, "-m", "profiler", "view", *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2
        assert telling in done.stderr
        assert len(done.stderr.splitlines()) == 1
