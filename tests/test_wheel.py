"""A built wheel, installed elsewhere, carries scenarios, catalog and help, and reads runs without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import make

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """The wheel unpacked in a folder of its own, as ``pip install --target`` leaves it."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = folder.glob("moe_profiler-*.whl")
    target = folder / "site"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(target),
            str(wheel),
        ],
        check=True,
    )
    return target


def elsewhere_run(site: Path, *words: str) -> str:
    """Run the installed command away from the source tree, with torch and the engines made unimportable."""
    block = "import sys\nfor name in ('torch', 'transformers', 'vllm'): sys.modules[name] = None\n"
    code = f"{block}sys.path.insert(0, {str(site)!r})\nimport profiler\n"
    code += f"assert profiler.__file__.startswith({str(site)!r})\n"
    code += f"sys.argv = {['profile', *words]!r}\nfrom profiler.__main__ import main\nmain()"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, cwd=site)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_catalog_and_scenarios_travel(elsewhere):
    assert "Qwen/Qwen2.5-72B" in elsewhere_run(elsewhere, "list", "models")
    assert "tiny-moe" in elsewhere_run(elsewhere, "list", "models")
    assert "smoke" in elsewhere_run(elsewhere, "list", "scenarios")
    assert "H200" in elsewhere_run(elsewhere, "list", "gpus")
    assert "tiny-moe-vs-tiny-dense-alone" in elsewhere_run(elsewhere, "list", "claims")
    assert elsewhere_run(elsewhere, "run", "--help").startswith("Usage: profile run")


def test_the_reading_half_works_without_torch(elsewhere, tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0)])
    run.seal()
    (row,) = json.loads(elsewhere_run(elsewhere, "compare", str(run.folder), "--format", "json"))
    assert row["output_tokens_per_s"] == pytest.approx(25)


def test_a_report_finds_its_templates_and_scripts(elsewhere, tmp_path):
    run = make.writer(tmp_path, [make.steady(0, 10.0)])
    run.seal()
    page = tmp_path / "report.html"
    assert "figures" in elsewhere_run(elsewhere, "report", str(run.folder), "-o", str(page))
    assert "</html>" in page.read_text()
