"""What an error prints."""

from __future__ import annotations

import pytest

from profiler.errors import LONGEST_LINE, InputError, damaged, together


@pytest.mark.parametrize(
    "make", [lambda text: InputError(f"a.toml: {text}; do that"), lambda t: damaged("a.toml", t)]
)
def test_a_line_that_repeats_a_file_keeps_where_it_was_and_what_to_do(make):
    said = str(make("[" * 100_000))
    assert len(said) <= LONGEST_LINE + 3
    assert said.startswith("a.toml")
    assert said.endswith(("; do that", "or measure anew"))
    assert " … " in said
    assert "…" not in str(make("["))


def test_of_several_lines_each_may_be_long():
    said = str(together([InputError("a" * 2000), InputError("b" * 2000), InputError("c" * 5000)]))
    assert [len(line) for line in said.split("\n")] == [2000, 2000, LONGEST_LINE + 3]
