"""What is sealed of an import: what is known, what is not, and that a file counts once."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from profiler import alike, comparison, consumption, importing, memory, metrics, store
from profiler.cli import app
from profiler.errors import InputError, StoreError
from profiler.importing import Given, folder

PLAIN, DETAILED = "vllm_closed_plain.json", "vllm_closed_detailed.json"


def test_what_nobody_says_is_unknown(imported):
    (run,) = imported(DETAILED)
    host = run.manifest.host
    assert {host.hostname_hash, host.os, host.cpu, host.cores, host.memory_bytes, host.python} == {None}
    assert (run.manifest.model.weights, run.manifest.model.config) == ("unknown", None)
    assert (run.manifest.engine.kind, run.manifest.engine.version) == ("unknown", None)
    assert run.manifest.price is None
    assert run.manifest.status == "complete"
    assert (alike.gpu_name(run), alike.gpus(run)) == (None, None)
    account = memory.account(run)
    assert account.total_bytes is None
    assert account.bytes_of("weights") is None
    (row,) = comparison.rows([run])
    assert row["gpus"] is None
    assert row["mbu_frac"] is None
    assert row["host"] is None
    assert row["energy_j_per_output_token"] is None
    assert row["memory_weights_bytes"] is None
    assert "imported from vllm bench serve (vllm_closed_detailed.json)" in row["notes"]


def test_what_the_user_says_is_known(imported):
    (run,) = imported(
        DETAILED, model="Qwen/Qwen3-30B-A3B", gpu="h100", gpus=2, engine="vllm 0.32.0", price="2.5"
    )
    assert run.manifest.model.facts.kind == "moe"
    assert (alike.gpu_name(run), alike.gpus(run)) == ("H100 SXM5 80GB", 2)
    assert (run.manifest.engine.kind, run.manifest.engine.version) == ("vllm", "0.32.0")
    assert any("the file calls the model tiny-moe" in note for note in run.manifest.engine.notes)
    assert any("h100 was taken for H100 SXM5 80GB, not" in note for note in run.manifest.engine.notes)
    (row,) = comparison.rows([run])
    rate = row["output_tokens_per_s"]
    assert row["usd_per_m_output_tokens"] == pytest.approx(2 * 2.5 / 3600 / rate * 1e6)
    assert row["usd_per_m_output_tokens_low"] < row["usd_per_m_output_tokens"]
    assert row["mbu_frac"] is None
    assert row["memory_weights_bytes"] is None


@pytest.mark.parametrize("name", ["H100 NVL", "B200", "L4", "4090", "MI300X", "GB200"])
def test_the_catalog_knows_the_board_again(imported, name):
    from profiler import catalog

    (run,) = imported(PLAIN, gpu=name, gpus=1)
    (gpu,) = run.manifest.host.gpus
    assert catalog.match_gpu(gpu.name, gpu.memory_bytes) == catalog.find_gpus(name)[0]


def test_an_import_is_never_of_the_same_as_a_measurement_or_another_tool(imported, tmp_path):
    runs = [*imported(DETAILED, model="m"), *imported("guidellm_closed.json", model="m")]
    assert not alike.same_engine(*runs)
    measured = store.RunResult(runs[0].folder, folder.replace(runs[0].manifest, imported=None))
    assert not alike.same_engine(runs[0], measured)
    again = imported(PLAIN, model="m")[0]
    assert alike.same_engine(runs[0], again)


def test_what_the_requests_do_not_tell_the_tool_does(imported):
    (run,) = imported(DETAILED)
    told = run.manifest.imported
    from profiler.schema import Estimate

    more = folder.replace(
        told.points[0], figures={consumption.POWER: Estimate(300.0), "ttft_s_mean": Estimate(99.0)}
    )
    manifest = folder.replace(run.manifest, imported=folder.replace(told, points=(more,)))
    (point,) = metrics.points(store.RunResult(run.folder, manifest))
    assert point.estimates[consumption.POWER].value == 300.0
    assert point.estimates["ttft_s_mean"].value < 1
    assert consumption.POWER not in point.consumed.reasons
    assert consumption.GROSS in point.consumed.reasons


def test_a_file_counts_once(real, tmp_path):
    path, out = real(DETAILED), tmp_path / "out"
    (first,) = importing.run_folders(path, out, Given())
    (second,) = importing.run_folders(path, out, Given())
    assert (first.new, second.new) == (True, False)
    assert first.folder == second.folder
    assert len(list(out.iterdir())) == 1
    renamed = path.rename(path.with_name("other.json"))
    assert not importing.run_folders(renamed, out, Given())[0].new
    for other in (
        {"model": "x"},
        {"gpu": "L4", "gpus": 1},
        {"engine": "sglang"},
        {"whole": True},
        {"scenario": "chat"},
    ):
        with pytest.raises(InputError, match="imported before, with other words about it"):
            importing.run_folders(renamed, out, Given(**other))
    assert len(list(out.iterdir())) == 1


def test_nothing_half_written_stays(real, tmp_path, monkeypatch):
    def full(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(folder, "write_records", full)
    with pytest.raises(StoreError):
        importing.run_folders(real(DETAILED), tmp_path / "out", Given())
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("hello", "not a format that is known here"),
        ("{}", "not a format that is known here"),
        ("[1, 2]", "holds no results"),
        ('{"a": ', "damaged or cut short: line 1"),
        ('{"a": 1}\n{"b": ', "damaged or cut short: line 2"),
        ("a,b\n1,2\n", "not a format that is known here"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "a number too long"),
        ("a,b\n1\r2,3\n" + "x" * 200_000, "damaged: line"),
    ],
)
def test_what_is_no_result(tmp_path, text, said):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(said)) as error:
        importing.run_folders(path, tmp_path / "out", Given())
    assert str(error.value).count("\n") == 0
    assert str(path) in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [DETAILED, "guidellm_closed.json", "vllm_throughput.json"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.999])
def test_a_file_cut_short(real, tmp_path, name, part):
    path = real(name)
    text = path.read_text().rstrip()
    path.write_text(text[: int(len(text) * part)])
    with pytest.raises(InputError, match="damaged or cut short"):
        importing.run_folders(path, tmp_path / "out", Given())


def test_no_text_and_no_file(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file"):
        importing.run_folders(path, tmp_path, Given())
    with pytest.raises(InputError, match="No such file"):
        importing.run_folders(tmp_path / "y", tmp_path, Given())
    with pytest.raises(InputError, match="Is a directory"):
        importing.run_folders(tmp_path, tmp_path, Given())


def test_from_overrides_and_is_checked(real, tmp_path):
    path = real(PLAIN)
    (written,) = importing.run_folders(path, tmp_path / "out", Given(), "vllm")
    assert written.manifest.imported.tool == "vllm bench serve"
    with pytest.raises(InputError, match="not of guidellm"):
        importing.run_folders(path, tmp_path / "out", Given(), "guidellm")
    with pytest.raises(InputError, match=r"--from vlm: no such tool \(did you mean 'vllm'"):
        importing.run_folders(path, tmp_path / "out", Given(), "vlm")


def test_a_name_is_no_way_out_of_the_folder(real, imported, tmp_path):
    path = real(PLAIN)
    for name in ("../../x", "..", "\ud800"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_id": name}))
        (run,) = imported(path)
        assert run.folder.parent == tmp_path / "results"
        assert not run.folder.name.startswith(".")


def test_a_date_that_is_none_is_not_taken(real, imported):
    path = real("guidellm_closed.json")
    told = json.loads(path.read_text())
    told["benchmarks"][0]["start_time"] = 1e15
    path.write_text(json.dumps(told))
    (run,) = imported(path)
    assert any("does not say when" in note for note in run.manifest.engine.notes)


def test_gpus_need_a_kind_and_a_kind_a_number(imported):
    with pytest.raises(InputError, match="--gpus 2: of which kind"):
        imported(PLAIN, gpus=2)
    with pytest.raises(InputError, match="how many H100"):
        imported(PLAIN, gpu="H100")
    with pytest.raises(InputError, match="no run is known on more than"):
        imported(PLAIN, gpu="H100", gpus=10**9)
    with pytest.raises(InputError, match="--gpu H10: no such GPU"):
        imported(PLAIN, gpu="H10", gpus=1)


def test_the_folder_is_named_by_what_was_measured_and_when(real, imported):
    path = real(PLAIN)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_id": "/models/of mine/Qwen3-14B/"}))
    (run,) = imported(path)
    assert re.fullmatch(r"Qwen3-14B-vllm-bench-serve-20261122T\d{6}Z-[0-9a-f]{8}", run.folder.name)
    assert run.manifest.model.name == "Qwen3-14B"
    assert "/models" not in (run.folder / "manifest.json").read_text()


def test_the_command(real, tmp_path):
    out = str(tmp_path / "out")
    files = [str(real(DETAILED)), str(real("guidellm_closed.json"))]
    done = CliRunner().invoke(app, ["import", *files, "--out", out, "--gpu", "L4", "--gpus", "1"])
    assert done.exit_code == 0, done.output
    assert "imported, GuideLLM 0.8.1, 2 loads" in done.output
    assert "next: profile compare" in done.output
    folders = [line for line in done.output.splitlines() if line.startswith(out)]
    assert len(folders) == 2
    shown = CliRunner().invoke(app, ["compare", *folders, "--format", "json", "--price", "1"])
    assert [row["usd_per_m_output_tokens"] is not None for row in json.loads(shown.output)] == [True] * 3
    again = CliRunner().invoke(app, ["import", *files, "--out", out, "--gpu", "L4", "--gpus", "1"])
    assert again.exit_code == 0
    assert again.output.count("was imported before") == 2


def test_every_kind_stands_in_the_tables(real, tmp_path):
    out = str(tmp_path / "out")
    names = [
        PLAIN,
        "vllm_latency.json",
        "vllm_throughput.json",
        "vllm_all500_plain.json",
        "guidellm_all500.json",
    ]
    made = CliRunner().invoke(app, ["import", *(str(real(name)) for name in names), "--out", out])
    assert made.exit_code == 0, made.output
    shown = CliRunner().invoke(app, ["compare", out, "--price", "1"])
    assert shown.exit_code == 0, shown.output
    assert "0 (+24 failed)" in shown.output
    assert "before its first window" not in shown.output
    assert "imported, measured by another tool" in shown.output
    for view in (["--show", "memory"], ["--format", "csv"], ["--format", "md"]):
        assert CliRunner().invoke(app, ["compare", out, *view]).exit_code == 0
