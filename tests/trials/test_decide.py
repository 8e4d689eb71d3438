"""What is done after a look."""

from __future__ import annotations

import pytest

from profiler.claims import judge
from profiler.claims.nouns import Cell
from profiler.trials.decide import FUTILE, chance, decide
from tests.claims import cases

PLAN = (3, 6, 8)


def looked(*cells, looks=(3 / 8,), **changes):
    return judge.ruling(cases.case(*cells, looks=looks, **changes))


def at(mean, spread=0.01, n=3, batch=1, **changes):
    return cases.evidence(
        cases.starts(mean, spread, n), cases.starts(1.0, spread, n), cell=Cell(batch=batch), **changes
    )


def test_a_trial_whose_cells_all_have_verdicts_is_decided():
    assert decide(looked(at(2.0), at(2.0, batch=2)), 3, PLAN) == "decided"
    assert decide(looked(at(0.5), at(2.0, batch=2)), 3, PLAN) == "decided"


def test_one_open_cell_keeps_a_trial_going():
    assert decide(looked(at(2.0), at(1.05, spread=0.03, batch=2)), 3, PLAN) == "go on"


def test_the_last_planned_start_ends_it_whatever_is_open():
    ruling = looked(at(1.03, spread=0.03, n=8), looks=(3 / 8, 6 / 8, 1.0))
    assert ruling.verdict == "undecided"
    assert decide(ruling, 8, PLAN) == "plan ended"


def test_a_cell_that_sits_on_its_bar_is_given_up_only_when_all_open_ones_are():
    on_the_bar = at(1.03, spread=0.02, n=6)
    clear = at(1.06, spread=0.02, n=6, batch=2)
    looks = (3 / 8, 6 / 8)
    assert decide(looked(on_the_bar, looks=looks), 6, PLAN) == "futile"
    assert decide(looked(on_the_bar, clear, looks=looks), 6, PLAN) != "futile"


def test_two_starts_are_too_few_to_give_up():
    ruling = looked(at(1.03, n=2, spread=0.02), looks=(0.25,))
    assert decide(ruling, 2, (2, 8)) == "go on"


def test_doubts_that_hold_for_all_cells_end_a_trial():
    ruling = looked(at(2.0, doubts=("other boards",)), at(2.0, batch=2, doubts=("other boards",)))
    assert decide(ruling, 3, PLAN) == "not comparable"
    assert decide(looked(at(2.0), doubts=("other hosts",)), 3, PLAN) == "not comparable"


def test_a_doubtful_cell_beside_decided_ones_does_not_keep_it_going():
    assert decide(looked(at(2.0), at(2.0, batch=2, doubts=("it throttled",))), 3, PLAN) == "decided"


def test_cells_without_any_figures_are_futile():
    nothing = cases.evidence((), (), cell=Cell(batch=1), missing=("n/a",))
    assert decide(looked(nothing), 3, PLAN) == "futile"
    assert decide(looked(), 3, PLAN) == "futile"


@pytest.mark.parametrize("relation", ["more", "less", "equal"])
def test_the_chance_is_high_off_the_bar_and_low_on_it(relation):
    off = {"more": 1.2, "less": 0.8, "equal": 1.0}[relation]
    on = {"more": 1.03, "less": 1 / 1.03, "equal": 1.03}[relation]
    looks = (3 / 8, 6 / 8)
    claim = cases.claim(relation=relation)
    chances = [
        chance(
            claim, looked(at(ratio, spread=0.01, n=6), looks=looks, relation=relation).findings[0], 6, PLAN
        )
        for ratio in (off, on)
    ]
    assert chances[0] > 0.9
    assert chances[1] < FUTILE


def test_sensors_that_may_be_off_count_in_the_chance():
    claim, looks = cases.claim(), (3 / 8, 6 / 8)
    plain, off = (
        chance(claim, looked(at(1.06, n=6, systematic_frac=s), looks=looks).findings[0], 6, PLAN)
        for s in (0.0, 0.02)
    )
    assert off < plain


def test_a_cell_about_to_be_refuted_has_a_chance_too():
    looks = (3 / 8, 6 / 8)
    ruling = looked(at(0.985, spread=0.03, n=6), looks=looks)
    assert ruling.verdict == "undecided"
    assert chance(cases.claim(), ruling.findings[0], 6, PLAN) > 0.5
