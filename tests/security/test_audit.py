"""The audit of dependencies against a database that speaks OSV's protocol, and against none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools import audit

PINNED = "# tested\nharmless==1.0\nBad_One==2.0+cpu\nold-bad==0.1 ; python_version < '3.13'\nunpinned>=1\n"
ADVISORIES: dict[str, dict[str, Any]] = {
    "GHSA-aaaa": {"id": "GHSA-aaaa", "summary": "reads any file", "aliases": ["CVE-2026-0001"]},
    "PYSEC-2": {"id": "PYSEC-2", "details": "long\nstory"},
    "GHSA-gone": {"id": "GHSA-gone", "summary": "was none", "withdrawn": "2026-01-01T00:00:00Z"},
}
OF = {("bad-one", "2.0"): ["GHSA-aaaa", "GHSA-gone"], ("old-bad", "0.1"): ["PYSEC-2"]}


class Database(BaseHTTPRequestHandler):
    """One advisory a page."""

    def do_POST(self):
        assert self.path == "/v1/querybatch"
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))["queries"]
        self.server.asked += asked
        self.answer({"results": [self.result(query) for query in asked]})

    def result(self, query):
        assert query["package"]["ecosystem"] == "PyPI"
        ids = OF.get((query["package"]["name"], query["version"]), [])
        page = int(query.get("page_token", 0))
        more = {"next_page_token": str(page + 1)} if page + 1 < len(ids) else {}
        return (
            {"vulns": [{"id": each, "modified": ""} for each in ids[page : page + 1]], **more} if ids else {}
        )

    def do_GET(self):
        self.answer(ADVISORIES[self.path.removeprefix("/v1/vulns/")])

    def answer(self, what):
        body = self.server.instead if self.server.instead is not None else json.dumps(what).encode()
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        del words


@contextmanager
def database(monkeypatch, status: int = 200, instead: bytes | None = None) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Database)
    server.asked, server.status, server.instead = [], status, instead
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(audit.SOURCE_VARIABLE, f"http://127.0.0.1:{server.server_address[1]}/")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def files(tmp_path):
    (tmp_path / "constraints.txt").write_text(PINNED)
    (tmp_path / "accepted.toml").write_text("")
    return tmp_path / "constraints.txt", tmp_path / "accepted.toml"


def accept(file: Path, *ids: str, until: str = "2027-01-31") -> None:
    file.write_text(
        "".join(f'[[accepted]]\nid = "{each}"\nreason = "unused"\nuntil = {until}\n' for each in ids)
    )


def test_a_known_vulnerability_fails_the_build_and_is_named(files, monkeypatch, capsys):
    with database(monkeypatch) as server:
        assert audit.main(*files) == 1
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "bad-one 2.0: GHSA-aaaa reads any file",
        "old-bad 0.1: PYSEC-2 long",
        "audit: 3 packages, 2 known vulnerabilities",
    ]
    assert {each["package"]["name"] for each in server.asked} == {"harmless", "bad-one", "old-bad"}


def test_what_is_accepted_by_any_of_its_names_passes_until_its_day(files, monkeypatch, capsys):
    accept(files[1], "CVE-2026-0001", "PYSEC-2")
    with database(monkeypatch):
        assert audit.main(*files, today=date(2027, 1, 31)) == 0
        assert "accepted until 2027-01-31: bad-one 2.0" in capsys.readouterr().out
        assert audit.main(*files, today=date(2027, 2, 1)) == 1
        assert "(was accepted until 2027-01-31: unused)" in capsys.readouterr().out


def test_nothing_known_passes(files, monkeypatch, capsys):
    files[0].write_text("harmless==1.0\n")
    with database(monkeypatch):
        assert audit.main(*files) == 0
    assert capsys.readouterr().out == "audit: 1 packages, no known vulnerabilities\n"


@pytest.mark.parametrize(
    "text",
    [
        '[[accepted]]\nid = "A"\nuntil = 2027-01-31\n',
        '[[accepted]]\nid = "A"\nreason = "  "\nuntil = 2027-01-31\n',
        '[[accepted]]\nid = "A"\nreason = "r"\n',
        '[[accepted]]\nid = "A"\nreason = "r"\nuntil = "some day"\n',
        "[[accepted",
    ],
)
def test_nothing_is_accepted_without_a_reason_and_a_day(files, capsys, text):
    files[1].write_text(text)
    assert audit.main(*files) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(("needed", "code"), [(None, 0), ("1", 1)])
def test_a_database_that_is_not_there_is_said_in_a_line_and_fails_nothing_unless_asked(
    files, monkeypatch, capsys, needed, code
):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv(audit.SOURCE_VARIABLE, f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        if needed:
            monkeypatch.setenv(audit.NEEDED_BY, needed)
        assert audit.main(*files) == code
    said = capsys.readouterr().err
    assert "audit: skipped" in said
    assert "Connection refused" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "instead", "why"),
    [
        (503, b"", "HTTP 503"),
        (200, b"<html>", "no JSON object"),
        (200, b"[]", "no JSON object"),
        (200, b'{"results": []}', "not one result a package"),
        (200, b'{"results": [1, 2, 3]}', "cannot be read"),
        (200, b'{"results": [{"vulns": [{"id": "../x"}]}, {}, {}]}', "has no id"),
        (200, b'{"results": [{"next_page_token": "1"}]}', "more than"),
    ],
)
def test_an_answer_that_is_none_is_no_clean_bill(files, monkeypatch, capsys, status, instead, why):
    if b"next_page" in instead:
        files[0].write_text("harmless==1.0\n")
    with database(monkeypatch, status, instead):
        assert audit.main(*files) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "audit: skipped" in said.err
    assert why in said.err


def test_a_database_that_never_answers_costs_no_more_than_the_limit(files, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv(audit.SOURCE_VARIABLE, f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        began = time.monotonic()
        assert audit.main(*files, limit_s=0.5) == 0
        assert time.monotonic() - began < 5
    assert "no whole answer in 0.5 s" in capsys.readouterr().err


def test_every_constraint_is_looked_up():
    text = audit.PINNED.read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(audit.pins(text)) == len(lines) > 100
    assert audit.accepted(audit.ACCEPTED.read_text()) is not None


def test_it_is_part_of_make_check():
    makefile = (audit.ROOT / "Makefile").read_text()
    check = makefile.partition("\ncheck:")[2].partition("\n\n")[0]
    assert "tools.audit" in check


def test_it_runs_in_ci_without_anything_installed():
    workflow = yaml.safe_load((audit.ROOT / ".github" / "workflows" / "audit.yml").read_text())
    [job] = workflow["jobs"].values()
    assert "python -m tools.audit" in [step.get("run") for step in job["steps"]]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", "import runpy, sys; sys.path.insert(0, '.'); import tools.audit"],
        cwd=audit.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
