"""What holds for every chart: it is valid Vega-Lite, the same each time, says of how many it is, and leaves
colours to the theme."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from jsonschema import ValidationError

from profiler import store
from profiler.charts import drawing, theme
from profiler.charts.kinds import KINDS, Asked
from profiler.charts.nouns import Absent, Chart
from profiler.cost.terms import Terms
from profiler.errors import InputError

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
ASKED = Asked(terms=Terms(price="2"), score="lmarena_text_elo")


def drawn_anew(kind):
    return list(KINDS[kind](store.find([REFERENCE]), ASKED))


@pytest.fixture(scope="module", params=KINDS)
def family(request):
    """All charts of a kind of the reference runs, of a real engine, and what cannot be drawn of them."""
    return drawn_anew(request.param)


def charts_of(family):
    return [each for each in family if isinstance(each, Chart)]


def test_a_family_draws_or_says_why_not(family, request):
    assert family
    for each in family:
        if isinstance(each, Absent):
            assert len(each.reason) > 10
            assert "\n" not in each.reason


def shape(value):
    """What a schema looks at, for the most part: two charts of one family differ in values alone."""
    if isinstance(value, dict):
        return tuple((name, shape(each)) for name, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(dict.fromkeys(map(shape, value)))
    return type(value)


def test_specs_are_valid_vega_lite(family):
    altair = pytest.importorskip("altair")
    for chart in {shape(each.spec): each for each in charts_of(family)}.values():
        spec = drawing.full_spec(chart)
        spec["datasets"] = {}  # their rows are checked below; a schema takes seconds for them
        try:
            altair.Chart.from_dict(spec)
        except ValidationError as error:
            pytest.fail(f"{chart.id} at {list(error.absolute_path)}: {error.message[:300]}")


def test_rows_are_plain_and_have_their_columns(family):
    for chart in charts_of(family):
        names = {column.name for column in chart.columns}
        assert chart.rows
        assert names <= {key for row in chart.rows for key in row}, chart.id
        for row in chart.rows:
            for value in row.values():
                assert value is None or isinstance(value, str | int | float | bool), chart.id
                assert not isinstance(value, float) or math.isfinite(value), chart.id


def test_colours_are_the_themes(family):
    for chart in charts_of(family):
        text = json.dumps(chart.spec)
        assert not re.search(r'"#[0-9a-fA-F]{3,8}"', text), chart.id
        assert set(re.findall(r'"style": "([^"]+)"', text)) <= set(theme.STYLES), chart.id


def test_text_is_large_enough_to_read(family):
    for chart in charts_of(family):
        for size in re.findall(
            r'"(?:fontSize|labelFontSize|titleFontSize)": ([\d.]+)', json.dumps(chart.spec)
        ):
            assert float(size) >= theme.SMALL_PX, chart.id


def test_words_say_how_many_and_stay_on_their_line(family):
    for chart in charts_of(family):
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", chart.id)
        assert re.search(r"\d", chart.summary + " ".join(chart.notes)), chart.id
        for line in (chart.title, *chart.notes):
            assert line
            assert "\n" not in line


def test_ids_are_one_of_a_kind_each(family):
    ids = [each.id for each in family]
    assert len(ids) == len(set(ids))


def test_the_same_runs_give_the_same_charts(family, request):
    assert drawn_anew(request.node.callspec.params["family"]) == family


def test_a_baseline_that_is_none_is_said():
    with pytest.raises(InputError, match=r"--baseline tiny-dens: .*did you mean 'tiny-dense'"):
        KINDS["advantage"](store.find([REFERENCE]), Asked(baseline="tiny-dens"))
