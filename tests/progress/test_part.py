"""A run that is part of something larger: named by its place, and what is left counts what comes after it."""

from __future__ import annotations

from profiler.progress import Quiet
from profiler.progress.part import Part
from tests.progress.telling import AHEAD, SLOT, held, progress


class Heard(Quiet):
    def __init__(self):
        self.models, self.left, self.windows = [], [], None

    def begin(self, ahead):
        self.windows = ahead.windows
        self.models.append(ahead.models[0])

    def phase(self, model, text):
        self.models.append(model)

    def progress(self, model, slot, progress):
        self.models.append(model)

    def window(self, model, slot, window, left, known):
        self.models.append(model)
        self.left.append(left)


def test_a_part_names_its_place_and_counts_the_runs_after_it():
    heard = Heard()
    part = Part(heard, "start 2 of 4", left=2)
    part.begin(AHEAD)
    part.phase("tiny-moe", "sealing")
    part.progress("tiny-moe", SLOT, progress())
    for left in (2, 1, 0):
        part.window("tiny-moe", SLOT, held(), left, None)
    assert set(heard.models) == {"start 2 of 4 · tiny-moe"}
    assert heard.windows == 27, "its own nine, and those of two runs like it"
    assert heard.left == [8, 7, 6], "of three windows, and six in the runs after it"


def test_a_run_that_does_not_know_how_long_it_is_says_so():
    heard = Heard()
    Part(heard, "start 1 of 2", left=1).window("tiny-moe", SLOT, held(), None, None)
    assert heard.left == [None]
