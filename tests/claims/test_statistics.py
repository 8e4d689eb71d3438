"""The judge on simulated truths: does its interval cover, how often is a verdict wrong, is truth found?

A small, seeded part of ``python -m benchmarks.statistics``, whose figures are in docs/statistics.md.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.statistics import court, experiments, stopping
from benchmarks.statistics.__main__ import ADVERSE, TABLES
from benchmarks.statistics.stopping import Load
from benchmarks.statistics.worlds import World, draw
from profiler.settings import Measure

ROOT = Path(__file__).parents[2]

TRIALS = 800
TURNS = [name for name in ADVERSE if "subject first" not in name]


@pytest.fixture(autouse=True)
def quick():
    with court.without_advice():
        yield


@pytest.fixture
def rng(request):
    """Another one for each test, the same each time."""
    return np.random.default_rng([ord(letter) for letter in request.node.name])


def chance(share, trials=TRIALS):
    """How far beyond its true value a share may be counted in one of some thousand such counts."""
    return 3.3 * experiments.error(share, trials)


def at_most(share, trials=TRIALS):
    return share + chance(share, trials)


@pytest.mark.parametrize("starts", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.0, 0.01, 0.03])
def test_the_95_percent_interval_covers_93_to_97_percent(rng, starts, spread):
    found = experiments.coverage(rng, TRIALS, World(start_sd=spread), starts)
    for share in (found.judge, found.fieller):
        assert 0.93 - chance(0.93) <= share <= 0.97 + chance(0.97)
    assert found.of_no_trial >= 0.975 - chance(0.975)


def test_windows_taken_for_starts_would_cover_next_to_nothing(rng):
    assert experiments.pooled_coverage(rng, TRIALS, World(start_sd=0.02), 5) < 0.6


@pytest.mark.parametrize("starts", [3, 6])
@pytest.mark.parametrize(
    ("relation", "factor", "level"),
    [
        ("more", None, 0.025),
        ("more", 1.74, 0.025),
        ("less", 2.0, 0.025),
        ("equal", None, 0.05),
        ("about", 0.4, 0.05),
    ],
)
def test_on_the_margin_a_verdict_is_rare(rng, starts, relation, factor, level):
    asked = court.claim(relation, factor, margin=0.05)
    found = experiments.wrong(rng, TRIALS, asked, World(), starts)
    assert found.supported <= at_most(level)
    assert found.refuted <= at_most(0.025)


@pytest.mark.parametrize("looks", [(8,), (4, 8), (3, 6, 8), (2, 3, 4, 5, 6, 7, 8)], ids=str)
def test_planned_looks_share_one_error(rng, looks):
    asked = court.claim()
    margin = court.on_the_margin(asked)[0]
    found = experiments.trial(rng, TRIALS, asked, World(), margin, looks)
    assert found.supported <= at_most(0.025)
    assert found.refuted <= at_most(0.025)
    assert found.covered >= 0.95 - chance(0.95)


def test_whoever_looks_after_every_start_is_not_fooled_in_more_than_one_of_twenty(rng):
    assert experiments.peeking(rng, TRIALS // 2, World(), 20) <= at_most(0.05, TRIALS // 2)


@pytest.mark.parametrize(("null", "true"), [(1, 5), (6, 0), (3, 3)])
def test_many_cells_share_one_error(rng, null, true):
    found = experiments.family(rng, TRIALS // 2, World(start_sd=0.01), 5, null, true)
    assert found.cell <= at_most(0.025, TRIALS // 2)
    assert found.overall <= at_most(0.025, TRIALS // 2)
    assert not true or found.found > 0.9


@pytest.mark.parametrize("starts", [(3, 3), (3, 10), (10, 3)], ids=str)
@pytest.mark.parametrize("spreads", [(0.02, 0.02), (0.05, 0.01), (0.01, 0.05)], ids=str)
def test_unlike_sides_are_judged_no_less_strictly(rng, starts, spreads):
    world = World(start_sd=spreads[0], baseline_sd=spreads[1], window_sd=0.0)
    found = experiments.unlike(rng, 200, world, starts)
    assert found.judge >= 0.93 - chance(0.93, 200)
    assert found.one <= at_most(0.03, 200)
    assert found.any_of_many <= at_most(0.06, 200)


def test_what_the_sensors_may_be_off_is_not_taken_for_a_difference(rng):
    """Each board's meter is off by as much as it may be, in the claim's favour."""
    asked = court.claim(margin=0.05)
    sides = draw(World(start_sd=0.01), rng, TRIALS, 5, 1.05 * 1.03)
    assert court.judged(asked, *sides, systematic_frac=0.03).share("supported") <= at_most(0.025)
    assert court.judged(asked, *sides).share("supported") > 0.2


@pytest.mark.parametrize(("spread", "distance"), [(0.01, 0.1), (0.02, 0.05), (0.03, 0.05)])
def test_as_many_starts_as_planned_find_what_they_were_planned_for(rng, spread, distance):
    found = experiments.power(rng, TRIALS // 2, World(start_sd=spread), distance)
    assert 0.8 - chance(0.8, TRIALS // 2) <= found.found <= 0.93


def test_looks_end_a_clear_trial_early_and_give_a_hopeless_one_up(rng):
    asked = court.claim()
    clear = experiments.trial(rng, 300, asked, World(start_sd=0.01), 1.25, (3, 6, 8))
    hopeless = experiments.trial(rng, 300, asked, World(), 1.03, (3, 6, 8))
    assert clear.supported > 0.99
    assert clear.starts < 6.5
    assert hopeless.undecided > 0.9
    assert hopeless.starts < 7


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("starts", [3, 5])
def test_an_adverse_world_makes_no_false_support_while_the_sides_take_turns(rng, name, starts):
    found = experiments.wrong(rng, TRIALS // 2, court.claim(), ADVERSE[name], starts)
    assert found.supported <= at_most(0.025, TRIALS // 2)
    assert found.refuted <= at_most(0.025, TRIALS // 2)


def test_one_side_after_the_other_makes_a_drift_a_difference(rng):
    """Why a trial holds its sides in turns: no statistics can see this."""
    drifting = World(start_sd=0.005, drift=-0.05, blocks=False)
    assert experiments.wrong(rng, 300, court.claim(), drifting, 8).supported > 0.3


@pytest.mark.parametrize("starts", [3, 8])
def test_a_crossover_inside_the_grid_refutes_the_claim_and_is_found(rng, starts):
    found = experiments.crossing(rng, 150, World(start_sd=0.02), starts)
    assert found.supported == 0
    assert found.refuted > 0.99
    assert found.reported > 0.99
    assert found.covered >= 0.95 - chance(0.95, 150)
    assert found.width < 2


@pytest.mark.parametrize(
    "load", [Load(0.01, 0.0), Load(0.03, 0.0), Load(0.014, 0.014), Load(0.0, 0.03)], ids=str
)
def test_a_run_that_ends_when_its_interval_is_narrow_still_covers(rng, load):
    measure = Measure(window_s=10, warmup_s=5, target_ci_frac=0.02, max_seconds=300)
    found = stopping.stopped(rng, TRIALS // 2, load, measure)
    assert found.covered >= 0.95 - chance(0.95, TRIALS // 2)
    assert found.error < 0.02 + 0.1 * max(load)


@pytest.mark.parametrize(
    "world", [World(), World(start_sd=0.0, phi=0.9), World(start_sd=0.03, window_sd=0.0)]
)
def test_the_worlds_are_as_they_say(rng, world):
    subject, baseline = draw(world, rng, 4000, 4, 1.5)
    assert np.log(baseline).std() == pytest.approx(world.sd, rel=0.05)
    assert math.exp(np.log(subject / baseline).mean()) == pytest.approx(1.5, rel=0.005)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.__name__)
def test_every_table_is_in_the_document(rng, table):
    lines = [line for line in table(rng, 8) if line.strip()]
    document = (ROOT / "docs" / "statistics.md").read_text()
    assert lines[0].strip() in document
    assert all(line in document for line in lines if line.startswith(("| start", "| claim", "|--")))
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert rows
    for row in rows:
        assert row.split(" | ")[0] + " | " in document
