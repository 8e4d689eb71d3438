"""A ruling as a record: the same runs give the same bytes and verdicts, anything else is told."""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from profiler import __version__, store
from profiler.claims import docket, ledger, recheck, record
from profiler.claims.ledger import Block, Held, Leg, Look, Takes, Trial
from profiler.claims.nouns import Conditions, Grid, Models, Source
from profiler.errors import InputError
from profiler.report import record as report
from profiler.schema import Estimate
from tests.claims.cases import claim as base_claim
from tests.claims.test_evidence import sealed

COMMAND = "profile claims results --claim sparse"
FASTER = base_claim(
    id="sparse",
    text="sparse & {thick} are 100 % unlike",
    source=Source(name="a | test", date="2026-01-01", url="https://example.org/a"),
    subject=Models(names=("sparse",)),
    baseline=Models(names=("thick",)),
    cells=(Grid(batch=(1, 4), input_tokens=(10,), output_tokens=(5,)),),
)
SMALLER = base_claim(
    id="smaller",
    subject=Models(names=("Qwen3-30B-A3B",)),
    baseline=Models(names=("Qwen3-32B",)),
    metric="active_params",
    relation="less",
)
STARTS = 4
NOBODYS = base_claim(id="nobodys", untestable="it is of training")


def four(out: Path, **changes: object) -> list[store.RunResult]:
    """Starts of a side, in runs of their own, a little slower each."""
    return [
        sealed(out, f"{model}-{n}", model, speed * (1 - n / 200), **changes)
        for n in range(STARTS)
        for model, speed in (("sparse", 2.0), ("thick", 1.0))
    ]


@pytest.fixture
def runs(tmp_path):
    return four(tmp_path / "results")


@pytest.fixture
def written(runs, tmp_path):
    path = tmp_path / "record.json"
    rulings = docket.docket([FASTER, SMALLER, NOBODYS], runs)
    record.write(path, record.of(rulings, runs, COMMAND))
    return path


def again(runs):
    """As another process reads them."""
    return [store.load(run.folder) for run in runs]


def test_a_record_names_what_it_rests_on(written, runs, tmp_path):
    found = record.read(written)
    assert (found.tool_version, found.command) == (__version__, COMMAND)
    assert [each.verdict for each in found.rulings] == ["supported", "supported", "not testable here"]
    assert [each.claim for each in found.rulings] == [FASTER, SMALLER, NOBODYS]
    assert found.rulings[0].claim_sha256 == ledger.digest(FASTER)
    assert {run.folder for run in found.runs} == {run.folder.name for run in runs}
    first = next(run for run in found.runs if run.folder == runs[0].folder.name)
    manifest = (runs[0].folder / "manifest.json").read_bytes()
    assert first.sha256["manifest.json"] == sha256(manifest).hexdigest()
    assert set(first.sha256) == {"manifest.json", "requests.parquet", "telemetry.parquet"}
    assert first.machine["CPU"] == "cpu"
    cell = found.rulings[0].cells[0]
    assert cell.ratio is not None
    assert cell.ratio.value == pytest.approx(2, rel=0.02)
    assert len(cell.subject.values) == STARTS
    assert str(tmp_path) not in written.read_text()  # where runs lay is nobody's business


def test_the_same_runs_give_the_same_bytes(written, runs):
    rulings = docket.docket([FASTER, SMALLER, NOBODYS], again(runs))
    found = record.of(rulings, again(runs), COMMAND)
    assert record.encoded(found) == written.read_bytes()
    assert record.digest(found) == sha256(written.read_bytes()).hexdigest()


def test_the_same_runs_are_found_to_be_the_same(written, runs):
    assert recheck.verify(written, again(runs)) == recheck.Check(())


def test_a_changed_file_is_told(written, runs):
    shutil.copy(runs[1].folder / "requests.parquet", runs[0].folder / "requests.parquet")
    (runs[1].folder / "engine.log").write_text("was not there\n")
    found = recheck.verify(written, again(runs)).differences
    assert (
        f"run {runs[0].folder.name}: requests.parquet is another file than the one that was judged" in found
    )
    assert f"run {runs[1].folder.name}: engine.log is new" in found


def test_a_damaged_run_is_told(written, runs):
    with (runs[0].folder / "requests.parquet").open("ab") as file:
        file.write(b" ")
    found = recheck.verify(written, again(runs)).differences
    assert "another file" in found[0]
    assert found[1].startswith("these runs cannot be judged: ")


def test_a_run_that_is_gone_is_told_with_what_it_changes(written, runs):
    found = recheck.verify(written, again(runs)[1:]).differences
    assert f"run {runs[0].folder.name} is not at hand" in found
    assert any("the record says" in line for line in found)
    assert any("the figures of the subject are others" in line for line in found)


def test_further_runs_change_nothing(written, runs, tmp_path):
    more = four(tmp_path / "more", host=replace(runs[0].manifest.host, cpu="another"))
    assert not recheck.verify(written, [*again(runs), *more]).differences


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda found: found["rulings"][0].update(verdict="refuted"), "supported, the record says refuted"),
        (
            lambda found: found["rulings"][0]["cells"][1]["ratio"].update(low=5.0),
            "batch 4, input 10, output 5: ratio",
        ),
        (
            lambda found: found["rulings"][0]["cells"][0].update(verdict="refuted"),
            "batch 1, input 10, output 5: supported, the record says refuted",
        ),
        (lambda found: found["rulings"][1]["claim"].update(metric="total_params"), "digest"),
        (
            lambda found: found["rulings"][1]["cells"][0]["subject"].update(exact=1.0),
            "figures of the subject",
        ),
        (lambda found: found["rulings"][0]["setting"].update(machine="another"), "no such case"),
        (lambda found: found["rulings"][0].update(looks=[0.5]), "outside of a trial, the record says at 50%"),
        (lambda found: found["runs"][0]["machine"].update(GPUs="8 × H100"), "its machine is another"),
        (lambda found: found["runs"][0].update(model="a/b"), "its model is another"),
        (lambda found: found["rulings"][0].update(region=["holds everywhere"]), "another region"),
        (lambda found: found["rulings"][0]["cells"][0].update(doubts=["none at all"]), "another doubts"),
        (lambda found: found["rulings"][0]["cells"][0].update(confidence=0.5), "another confidence"),
        (lambda found: found["rulings"][0]["cells"][0]["subject"].update(facts={}), "other facts"),
    ],
)
def test_an_edited_record_is_found_out(written, runs, edit, told):
    found = json.loads(written.read_text())
    edit(found)
    written.write_text(json.dumps(found))
    differences = recheck.verify(written, again(runs)).differences
    assert any(told in line for line in differences), differences


def test_a_trial_is_recorded_with_its_looks(runs, tmp_path):
    legs = [Leg(side="subject"), Leg(side="baseline")]
    blocks = tuple(
        Block(
            order=tuple(legs),
            held=tuple(
                Held(leg=leg, run=f"{name}-{n}", took_s=1.0)
                for leg, name in zip(legs, ("sparse", "thick"), strict=True)
            ),
        )
        for n in range(STARTS)
    )
    trial = Trial(
        id="sparse-trial",
        claim=FASTER,
        digest=ledger.digest(FASTER),
        subject="sparse",
        baseline="thick",
        engine="transformers",
        overrides=(),
        weights="auto",
        seed=1,
        looks_at=(4, 8),
        takes=Takes(starts=8, seconds=1.0),
        machine={},
        blocks=blocks,
        looks=(Look(starts=4, frac=0.5, verdict="undecided", why="", decision="go on"),),
    )
    ledger.write(tmp_path / "results", trial)
    path = tmp_path / "record.json"
    record.write(path, record.of(docket.docket([FASTER], runs), runs, COMMAND))
    found = record.read(path)
    assert found.rulings[0].looks == (0.5,)
    assert [each.id for each in found.trials] == ["sparse-trial"]
    assert {run.trial for run in found.runs} == {"sparse-trial"}
    assert not recheck.verify(path, again(runs)).differences
    ledger.write(tmp_path / "results", replace(trial, seed=2))
    assert "has changed" in recheck.verify(path, again(runs)).differences[0]
    ledger.path_of(tmp_path / "results", trial).unlink()
    told = recheck.verify(path, again(runs)).differences
    assert "not beside the runs" in told[0]
    assert any("looked at outside of a trial, the record says at 50%" in line for line in told)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no record"),
        ("[]", "no record"),
        ("[" * 100_000, "no record"),
        ('{"schema_version": 2}', "update it"),
        ('{"schema_version": 1, "tool_version": "0", "command": ""}', "no record"),
        ('{"schema_version": true}', "no record"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, why):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        recheck.verify(path, [])
    with pytest.raises(InputError, match="cannot be read"):
        record.read(tmp_path / "nowhere.json")


@given(st.lists(st.floats(allow_nan=True) | st.none(), max_size=4))
def test_figures_are_the_same_as_themselves(values):
    """Written to JSON an infinity is null."""
    written = [None if x is None else json.loads(record.msgspec.json.encode(x)) for x in values]
    assert recheck._same(values, written)
    assert not recheck._same([*values, 1.0], [*written, 1.0 + 1e-6])
    assert not recheck._same([*values, 1.0], [*written, None])


# ---------------------------------------------------------------------------------------- to cite


def test_the_text_names_the_record_and_every_cell(written):
    found = record.read(written)
    text = report.markdown(found)
    digest = record.digest(found)
    assert f"SHA-256 of the record: `{digest}`" in text
    assert "> sparse & {thick} are 100 % unlike" in text.replace("\\", "")
    assert "<https://example.org/a>" in text
    assert "| 4 | 10 | 5 |" in text
    assert "| exact / exact |" in text
    assert COMMAND in text
    for run in found.runs:
        assert run.sha256["manifest.json"] in text
    assert f"@misc{{claims-{digest[:8]}," in text


def test_a_citation_of_one_claim(runs):
    found = record.of(docket.docket([FASTER], runs), runs, COMMAND)
    entry = report.markdown(found).partition("```bibtex")[2]
    assert r"title = {On trial: sparse \& (thick) are 100 \% unlike (supported)}" in entry
    assert "@misc{sparse-" in entry
    assert "year = {2026}" in entry
    assert entry.count("{") == entry.count("}")


def test_a_citation_without_runs_has_no_year():
    found = record.of(docket.docket([SMALLER], []), [], COMMAND)
    assert "year" not in report.markdown(found)
    assert not found.runs


def test_nothing_in_a_claim_breaks_the_page(runs):
    nasty = replace(
        FASTER,
        text="a\n# b | c",
        source=Source(name="x", date="y", url="javascript:alert(1)\n```"),
        conditions=Conditions(weights="any"),
    )
    text = report.markdown(record.of(docket.docket([nasty], runs), runs, COMMAND))
    assert "\n# b" not in text
    assert text.count("```") == 4
    assert Estimate(1.0).value == 1.0
