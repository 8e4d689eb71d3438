"""A Chart → a complete Vega-Lite spec, an SVG, a PNG, its rows as CSV.  No browser, no network; the same
chart gives the same bytes."""

from __future__ import annotations

import csv as csv_module
import io
import re
import textwrap
from typing import Any
from xml.sax.saxutils import escape

from profiler.charts import theme as looks
from profiler.charts.nouns import DATA, Chart
from profiler.charts.theme import Theme

SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
VERSION = "6.4"
WIDTH_PX = 760
SUFFIXES = (".svg", ".png", ".csv")
# Of a sans-serif's letters, over its size: mean width, so that lines are broken before they run out.
_LETTER = 0.51
_HANGING = "\N{EN SPACE}"  # SVG drops plain spaces at the beginning of a text
_MARGIN_PX = 12
_LINE_PX = 16
_ID = re.compile(r'<(?:clipPath|linearGradient|radialGradient) id="(\w+)"')
_SIZE = re.compile(r'<svg ([^>]*?)width="([\d.]+)" height="([\d.]+)" viewBox="0 0 [\d.]+ [\d.]+"')


def full_spec(chart: Chart, theme: Theme = "light", width: int | None = None) -> dict[str, Any]:
    """Vega-Lite with the data in it; ``width`` in pixels, None: as wide as what holds it."""
    return {
        "$schema": SCHEMA,
        **chart.spec,
        "data": {"name": DATA},
        "datasets": {DATA: list(chart.rows)},
        "width": width or "container",
        "height": chart.height,
        "config": looks.config(theme, width or WIDTH_PX),
    }


def svg(chart: Chart, theme: Theme = "light", width: int = WIDTH_PX) -> str:
    """A figure that stands by itself: its title above, its notes below, its summary as the description."""
    import vl_convert

    spec = full_spec(chart, theme, width - 2 * _MARGIN_PX)
    spec["title"] = _title(chart, width)
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=VERSION)
    return _framed(_renumbered(drawn), chart, theme, width)


def png(chart: Chart, theme: Theme = "light", width: int = WIDTH_PX, scale: float = 2.0) -> bytes:
    """The same in pixels, ``scale`` of them for each of the drawing's."""
    import vl_convert

    found: bytes = vl_convert.svg_to_png(svg(chart, theme, width), scale=scale)
    return found


def csv(chart: Chart) -> str:
    """The rows under the names of their columns, unrounded; what was not measured is empty."""
    names = [column.name for column in chart.columns]
    text = io.StringIO()
    out = csv_module.writer(text, lineterminator="\n")
    out.writerow(names)
    out.writerows([row.get(name) for name in names] for row in chart.rows)
    return text.getvalue()


def encoded(chart: Chart, suffix: str, theme: Theme, width: int) -> bytes:
    """What a file of this suffix, one of ``SUFFIXES``, holds."""
    if suffix == ".png":
        return png(chart, theme, width)
    return (csv(chart) if suffix == ".csv" else svg(chart, theme, width)).encode()


# ------------------------------------------------------------------------------------------ its frame


def _title(chart: Chart, width: int) -> dict[str, Any]:
    return {"text": _lines(chart.title, width, looks.TITLE_PX)}


def _framed(drawn: str, chart: Chart, theme: Theme, width: int) -> str:
    """With paper, margins, words for who cannot see it, and the notes below."""
    found = _SIZE.search(drawn)
    if found is None:
        raise ValueError("the drawing has no size")
    wide, top = max(width, float(found[2]) + 2 * _MARGIN_PX), float(found[3]) + 2 * _MARGIN_PX
    lines = [line for note in chart.notes for line in _lines(f"· {note}", width, looks.SMALL_PX, _HANGING)]
    high = top + len(lines) * _LINE_PX
    inner = drawn[found.end() :].partition(">")[2].rpartition("</svg>")[0]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'version="1.1" role="img" aria-labelledby="title desc" width="{wide:g}" height="{high:g}" '
            f'viewBox="0 0 {wide:g} {high:g}">',
            f'<title id="title">{escape(chart.title)}</title>',
            f'<desc id="desc">{escape(chart.summary)}</desc>',
            f'<rect width="100%" height="100%" fill="{looks.paper(theme)}"/>',
            f'<g transform="translate({_MARGIN_PX},{_MARGIN_PX})">{inner}</g>',
            *(_note(line, place, top, theme) for place, line in enumerate(lines)),
            "</svg>\n",
        ]
    )


def _renumbered(drawn: str) -> str:
    """Vega counts its clips and gradients from the start of the process; here from that of the drawing."""
    found = list(dict.fromkeys(_ID.findall(drawn)))
    names = {name: f"part{place}" for place, name in enumerate(found)}
    return re.sub(r'(id="|url\(#)(\w+)', lambda held: held[1] + names.get(held[2], held[2]), drawn)


def _note(line: str, place: int, top: float, theme: Theme) -> str:
    y = top + place * _LINE_PX
    return (
        f'<text x="{_MARGIN_PX + 6}" y="{y:g}" font-family="{looks.FONT}" font-size="{looks.SMALL_PX}" '
        f'fill="{looks.ink(theme, "muted")}">{escape(line)}</text>'
    )


def _lines(text: str, width: int, size: int, indent: str = "") -> list[str]:
    """Broken so that each line fits; ``indent`` begins all but the first."""
    letters = max(20, int((width - 3 * _MARGIN_PX) / (size * _LETTER)))
    return textwrap.wrap(text, letters, subsequent_indent=indent, break_on_hyphens=False) or [""]
