"""The workflows: their shell parses, their commands and options exist, and the gate step works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from profiler.cli import app
from tests.test_gate import sealed

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
BLOCK = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
IN_DOCS = BLOCK.findall((ROOT / "docs" / "gate.md").read_text())
GATE = ROOT / ".github" / "workflows" / "gate.yml"
TEXTS = [GATE.read_text(), *IN_DOCS]


def steps(text):
    return [step for job in yaml.safe_load(text)["jobs"].values() for step in job["steps"]]


def shell(text):
    return [step["run"] for step in steps(text) if "run" in step]


def commands(block):
    """The words of every ``profile`` command in a block, however the tool is called."""
    whole = block.replace("\\\n", " ")
    for line in whole.splitlines():
        found = re.search(r"(?:bin/profile|\bprofile|-m profiler) +([a-z]+ .*)", line)
        if found and not line.strip().startswith("echo"):
            yield shlex.split(re.split(r"\|\||>>|;", found[1])[0])


def test_there_is_one_and_the_docs_show_one():
    assert GATE in WORKFLOWS
    assert len(IN_DOCS) >= 1


@pytest.mark.parametrize("text", TEXTS)
def test_the_shell_parses_and_names_real_options(text):
    known = {
        name: {option for parameter in command.params for option in parameter.opts}
        for name, command in get_command(app).commands.items()
    }
    seen = 0
    for block in shell(text):
        subprocess.run(["bash", "-n", "-c", block], check=True)
        for words in commands(block):
            options = {word.partition("=")[0] for word in words if word.startswith("-")}
            assert options <= known[words[0]], words
            seen += 1
    assert seen >= 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_files_and_targets_exist(path):
    blocks = "\n".join(shell(path.read_text()))
    for name in re.findall(r"(?:base|head)/([\w/.-]+\.(?:toml|txt|py))", blocks):
        assert (ROOT / name).exists(), name
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make -C head \.venv/(\S+)", blocks):
        assert f"$(VENV)/{target}:" in makefile


@pytest.mark.parametrize(("pace", "code"), [(1.0, 0), (1.6, 1)])
def test_the_gate_step_of_this_repository(tmp_path, pace, code):
    """As the job runs it, on runs that are made here."""
    for n in range(4):
        sealed(tmp_path / "runs" / "base", f"b{n}", paces=(1 + n / 500,) * 2)
        sealed(tmp_path / "runs" / "head", f"h{n}", paces=(pace + n / 500,) * 2)
    python = tmp_path / "head" / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    (block,) = [step["run"] for step in steps(GATE.read_text()) if step.get("name") == "Gate"]
    block = block.replace("--metric memory_peak_bytes=10%", "")  # these runs have no samples
    summary = tmp_path / "summary.md"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", block],
        cwd=tmp_path,
        env=os.environ | {"GITHUB_STEP_SUMMARY": str(summary), "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert summary.read_text().startswith("### gate: " + ("FAIL" if code else "PASS"))
    assert (tmp_path / "gate.xml").exists()
