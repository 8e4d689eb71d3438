"""--where and --sort."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.comparison import Question, answer, choice, together
from profiler.cost.terms import Terms
from profiler.errors import InputError
from tests.comparison.lines import figures, of

FOUND = [
    figures("a", 100, model="Qwen/Qwen3-8B", concurrency=1, shared_gpu=True),
    figures("b", 300, model="Qwen/Qwen3-30B-A3B", concurrency=8, gpu="NVIDIA H100", shared_gpu=False),
    figures("c", 200, model="meta/Llama", concurrency=64, status="failed", energy_counter_j=5.5),
]


def runs(found):
    return "".join(line.found.run for line in found)


@pytest.mark.parametrize(
    ("where", "left"),
    [
        ("model~qwen", "ab"),
        ("model=meta/llama", "c"),
        ("model!=meta/Llama", "ab"),
        ("concurrency>=8", "bc"),
        ("concurrency > 8", "c"),
        ("concurrency<8", "a"),
        ("concurrency<=8.0", "ab"),
        ("concurrency=8", "b"),
        ("gpu=n/a", "ac"),
        ("gpu!=n/a", "b"),
        ("gpu~h100", "b"),
        ("gpu!=NVIDIA A100", "abc"),
        ("energy_counter_j>0", "c"),
        ("energy_counter_j<9e9", "c"),
        ("shared_gpu=true", "a"),
        ("shared_gpu=no", "b"),
        ("output_tokens_per_s>150", "bc"),
        ("usd_per_m_output_tokens<6", "bc"),  # 3.6 USD/h over 100, 300, 200 tokens/s: 10, 3.3, 5
        ("cost_basis=rented", "abc"),
        ("runs=1", "abc"),
    ],
)
def test_conditions(where, left):
    assert runs(choice.chosen(of(*FOUND), [where])) == left


def test_all_conditions_hold_together():
    assert runs(choice.chosen(of(*FOUND), ["model~qwen", "concurrency>1"])) == "b"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("modle~Q", "did you mean 'model'"),
        ("model", "expected COLUMN=VALUE"),
        ("=8", "expected COLUMN=VALUE"),
        ("concurrency>=eight", "'eight' is none"),
        ("concurrency=eight", "'eight' is none"),
        ("model>5", "holds words"),
        ("model~nothing", "no row is left by --where model~nothing"),
    ],
)
def test_what_cannot_hold_is_said(where, said):
    with pytest.raises(InputError, match=said):
        choice.chosen(of(*FOUND), [where])


@pytest.mark.parametrize(
    ("by", "order"),
    [
        ("output_tokens_per_s", "acb"),
        ("-output_tokens_per_s", "bca"),
        ("usd_per_m_output_tokens", "bca"),
        ("model", "bac"),
        ("energy_counter_j", "cab"),
        ("-energy_counter_j", "cab"),  # what is not known is last either way, in the order given
    ],
)
def test_order(by, order):
    assert runs(choice.sort(of(*FOUND), by)) == order


def test_an_unknown_column_to_sort_by_is_said():
    with pytest.raises(InputError, match=r"--sort.*did you mean 'output_tokens_per_s'"):
        choice.sort(of(*FOUND), "-output_token_per_s")


@given(st.lists(st.one_of(st.none(), st.floats(0.1, 1e6)), max_size=20), st.booleans())
def test_sorting_loses_nothing_and_orders_the_rest(values, falls):
    found = [figures(str(n), energy_counter_j=value) for n, value in enumerate(values)]
    lines = choice.sort(of(*found), f"{'-' * falls}energy_counter_j")
    assert sorted(line.found.run for line in lines) == sorted(each.run for each in found)
    known = [value for value in values if value is not None]
    ordered = [line.value("energy_counter_j") for line in lines]
    assert ordered == sorted(known, reverse=falls) + [None] * (len(values) - len(known))


def test_unsorted_lines_to_compare_stand_together():
    found = [figures(n, model=m, concurrency=c) for n, m, c in (("a", "x", 8), ("b", "y", 1), ("c", "x", 1))]
    lines = answer(found, Question(terms=Terms())).lines
    assert runs(lines) == "abc", "as data they stand as the runs do"
    assert runs(together(lines)) == "cba"


def test_a_line_and_its_row_agree_in_every_cell():
    (line,) = of(figures("a", 100, 3, notes="n"))
    row = line.row()
    assert {name: line.value(name) for name in row} == row
    assert (row["output_tokens_per_s_low"], row["output_tokens_per_s_high"]) == (97, 103)
