"""Charts as files: the same bytes each time, the right size, words for who cannot see, and text as text."""

from __future__ import annotations

import csv
import io
import struct
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.charts import drawing, theme
from profiler.charts.nouns import DATA, Chart, Column

ROWS = tuple(
    {"model": model, "batch": batch, "rate": None if batch == 8 else batch * scale}
    for model, scale in (("a", 1.0), ("b", 2.5))
    for batch in (1, 8, 64)
)
COLUMNS = tuple(Column(name=name, label=name) for name in ("model", "batch", "rate"))


def chart(**changes):
    colour = {"field": "model", "type": "nominal"} | theme.colours(["a", "b"])
    base = {
        "id": "test",
        "title": "Rate by batch",
        "summary": "a and b at 1 to 64: n = 6",
        "columns": COLUMNS,
        "rows": ROWS,
        "notes": ("n = 6", "a note"),
        "spec": {
            "mark": "line",
            "encoding": {
                "x": {"field": "batch", "type": "quantitative"},
                "y": {"field": "rate", "type": "quantitative"},
                "color": colour,
            },
        },
    }
    return Chart(**base | changes)


def size(svg):
    root = ElementTree.fromstring(svg)
    return float(root.get("width")), float(root.get("height"))


@pytest.mark.parametrize("look", ["light", "dark"])
def test_the_same_chart_is_the_same_bytes(look):
    assert drawing.svg(chart(), look) == drawing.svg(chart(), look)
    assert drawing.png(chart(), look) == drawing.png(chart(), look)
    assert drawing.svg(chart(), "light") != drawing.svg(chart(), "dark")


def test_what_was_drawn_before_leaves_no_trace():
    """Vega counts clip paths over all drawings of a process."""
    clipped = chart(spec=chart().spec | {"mark": {"type": "line", "clip": True}})
    first = drawing.svg(clipped)
    assert first.count('clip-path="url(#part0)"') >= 1
    assert '<clipPath id="part0">' in first
    assert drawing.svg(clipped) == first


@pytest.mark.parametrize("width", [360, 760, 1200])
def test_a_figure_is_as_wide_as_asked(width):
    assert size(drawing.svg(chart(), width=width))[0] == width
    data = drawing.png(chart(), width=width, scale=2)
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">I", data[16:20])[0] == 2 * width


def test_an_svg_tells_its_title_and_summary_and_prints_its_notes():
    root = ElementTree.fromstring(drawing.svg(chart()))
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert root.get("role") == "img"
    assert root.find("svg:title", space).text == "Rate by batch"
    assert root.find("svg:desc", space).text == "a and b at 1 to 64: n = 6"
    printed = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "· n = 6" in printed
    assert "Rate by batch" in printed


def test_a_narrow_figure_breaks_its_lines_and_grows():
    long = chart(notes=("a note of many words that goes on and on " * 5,), title="many words " * 10)
    assert size(drawing.svg(long, width=360))[1] > size(drawing.svg(long, width=1200))[1] + 50


def test_hostile_words_are_text():
    word = "</desc><script>alert(1)</script>&\"'"
    rows = tuple(row | {"model": word} for row in ROWS)
    text = drawing.svg(chart(title=word, summary=word, notes=(word,), rows=rows))
    assert "<script" not in text
    assert ElementTree.fromstring(text).find("{http://www.w3.org/2000/svg}desc").text == word


def test_a_spec_for_a_page_is_as_wide_as_what_holds_it():
    spec = drawing.full_spec(chart())
    assert spec["width"] == "container"
    assert spec["data"] == {"name": DATA}
    assert spec["datasets"][DATA] == list(ROWS)
    assert drawing.full_spec(chart(), width=500)["width"] == 500
    assert "data" not in chart().spec


def test_csv_has_all_rows_unrounded_and_nothing_for_what_was_not_measured():
    precise = chart(rows=(*ROWS, {"model": 'x,"y"\nz', "batch": 3, "rate": 1 / 3}))
    read = list(csv.DictReader(io.StringIO(drawing.csv(precise), newline="")))
    assert len(read) == 7
    assert read[1]["rate"] == ""
    assert float(read[-1]["rate"]) == 1 / 3
    assert read[-1]["model"] == 'x,"y"\nz'


@given(
    st.lists(st.tuples(st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False)), min_size=1)
)
def test_csv_is_read_back_as_it_was(values):
    rows = tuple({"model": word.replace("\r", " "), "batch": 1, "rate": rate} for word, rate in values)
    read = list(csv.DictReader(io.StringIO(drawing.csv(chart(rows=rows)), newline="")))
    assert [each["model"] for each in read] == [row["model"] for row in rows]
    assert [float(each["rate"]) if each["rate"] else None for each in read] == [row["rate"] for row in rows]


@settings(max_examples=25, deadline=None)
@given(st.text(max_size=300), st.integers(240, 1600))
def test_any_title_can_be_drawn(title, width):
    lines = drawing._lines(title, width, theme.TITLE_PX)
    assert lines
    longest = max(map(len, lines))
    assert longest * theme.TITLE_PX * drawing._LETTER <= max(width, 20 * theme.TITLE_PX)


def test_files_go_by_their_ending():
    assert drawing.encoded(chart(), ".csv", "light", 760).startswith(b"model,batch,rate\n")
    assert drawing.encoded(chart(), ".svg", "light", 760).startswith(b"<svg")
    assert drawing.encoded(chart(), ".png", "dark", 760).startswith(b"\x89PNG")
