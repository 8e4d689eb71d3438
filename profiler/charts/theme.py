"""How every chart looks: colours that the colour-blind tell apart, light and dark, and the names of styles.

A drawing names roles and no colours: marks take a style of ``STYLES`` (``{"type": "rule", "style":
"reference"}``), scales of models come from :func:`colours`, and the config of the theme gives both their
looks.  So one spec serves both themes, and a page may change the theme of a chart that is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

Theme = Literal["light", "dark"]
Spec = dict[str, Any]

# Metrics of Helvetica, so that text fits alike wherever a figure is opened.
FONT = "Liberation Sans, Helvetica, Arial, sans-serif"
TEXT_PX = 12
SMALL_PX = 11
TITLE_PX = 16
LEGEND_PX = 240  # that an entry of a legend may take
KEY_PX = 40  # of these without words: its symbol and the space to the next
AXIS_PX = 60  # beside a legend, below the words of the y axis
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "stroke")
DASHES = ([1, 0], [7, 3], [2, 2], [8, 3, 2, 3], [12, 3], [4, 2], [1, 2], [8, 2, 2, 2, 2, 2])

# Okabe & Ito, "Color Universal Design" (2008), begun at the blue and darkened, or for the dark theme
# lightened, until each has a contrast of 3 to its background; yellow and black are told from no background.
_CATEGORY: dict[Theme, tuple[str, ...]] = {
    "light": ("#0072b2", "#d55e00", "#00875f", "#c46a9b", "#755200", "#3d8fc4", "#5b6570", "#8a5a2b"),
    "dark": ("#4ba3dd", "#ff8b52", "#2dbd91", "#e29bc6", "#efb536", "#8ed1f7", "#b4bcc6", "#d3a06b"),
}
# Dark means more; both ends are told from the background.
_RAMP: dict[Theme, tuple[str, ...]] = {
    "light": ("#eaf2f8", "#b5d3e7", "#74aed3", "#3583b5", "#0b5a8c", "#06375a"),
    "dark": ("#1d2a36", "#214a68", "#2b6f9b", "#4a97c8", "#8ac2e6", "#d6ebf9"),
}
# Below and above the middle: the vermilion and the blue of the palette.
_DIVERGING: dict[Theme, tuple[str, ...]] = {
    "light": ("#a84300", "#d9762e", "#efb78f", "#e8e8e3", "#9cc6e3", "#3f8dc0", "#005687"),
    "dark": ("#ff9a62", "#c4652f", "#70442c", "#363b42", "#27506e", "#3586bd", "#7cc2f0"),
}
_INK: dict[Theme, dict[str, str]] = {
    "light": {"paper": "#ffffff", "ink": "#1c2127", "muted": "#59626d", "line": "#9aa3ad", "grid": "#e7e9ec",
              "good": "#00875f", "bad": "#c24a00", "open": "#6b7580"},
    "dark": {"paper": "#15181d", "ink": "#e8eaed", "muted": "#a3abb5", "line": "#6d7681", "grid": "#2a2f36",
             "good": "#2dbd91", "bad": "#ff8b52", "open": "#98a1ac"},
}  # fmt: skip


def colours(models: Sequence[str]) -> Spec:
    """The scale of a channel for models, of ``color`` or ``shape``:
    ``{"field": "model", "type": "nominal"} | colours(names)``.

    Models keep the order they are given in; :func:`in_order` makes that of a whole page of it.
    """
    return {"scale": {"domain": list(models)}}


def dashes(models: Sequence[str]) -> Spec:
    """The same of the ``strokeDash`` channel, so that lines are told apart without colour as well."""
    return {"scale": {"domain": list(models), "range": [list(each) for each in DASHES]}, "legend": None}


def in_order(spec: Spec, models: Sequence[str]) -> Spec:
    """The spec with every scale of models over all ``models`` of a page, in that order: one model has one
    colour on it.  Legends go on naming the models of this chart alone."""
    return {name: _in_order(value, list(models)) for name, value in spec.items()}


def _in_order(value: Any, models: list[str]) -> Any:
    if isinstance(value, list):
        return [_in_order(each, models) for each in value]
    if not isinstance(value, dict):
        return value
    found = in_order(value, models)
    scale = found.get("scale")
    domain = scale.get("domain") if isinstance(scale, dict) else None
    if isinstance(scale, dict) and isinstance(domain, list) and domain and set(domain) <= set(models):
        legend = found.get("legend", {})
        named = {} if legend is None else {"legend": {**legend, "values": domain}}
        return found | named | {"scale": scale | {"domain": models}}
    return found


def paper(theme: Theme) -> str:
    """The background a figure stands on by itself; on a page it is the page's."""
    return _INK[theme]["paper"]


def ink(theme: Theme, role: str = "ink") -> str:
    """A colour of text: ``ink``, ``muted``."""
    return _INK[theme][role]


def config(theme: Theme, width: int = 760) -> Spec:
    """The Vega-Lite config of a theme; legends have as many columns as ``width`` pixels have room for."""
    told = _INK[theme]
    return {
        "background": "transparent",
        "font": FONT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "padding": 6,
        "view": {"stroke": None},
        "axis": _axis(told),
        "axisX": {"grid": False, "domain": True, "ticks": True, "labelFlush": False},
        # What an axis shows stands upright above it: nobody turns the head.
        "axisY": {
            "titleAngle": 0, "titleAlign": "left", "titleBaseline": "bottom", "titleX": 0, "titleY": -10,
        },
        "legend": _legend(told, width),
        "title": {
            "color": told["ink"], "anchor": "start", "frame": "bounds", "fontSize": TITLE_PX,
            "fontWeight": 600, "offset": 14,
        },
        "range": {"category": list(_CATEGORY[theme]), "symbol": list(SHAPES), "heatmap": list(_RAMP[theme]),
                  "ramp": list(_RAMP[theme]), "ordinal": list(_RAMP[theme]),
                  "diverging": list(_DIVERGING[theme])},
        "line": {"strokeWidth": 2.25, "strokeCap": "round", "strokeJoin": "round"},
        "point": {"size": 48, "filled": True, "opacity": 1},
        "bar": {"cornerRadiusEnd": 2},
        "rule": {"color": told["ink"]},
        "text": {"color": told["ink"]},
        "style": _styles(told),
    }  # fmt: skip


def _axis(told: dict[str, str]) -> Spec:
    return {
        "labelColor": told["muted"], "labelFontSize": TEXT_PX, "labelPadding": 5,
        "titleColor": told["ink"], "titleFontSize": TEXT_PX, "titleFontWeight": "normal", "titlePadding": 10,
        "domain": False, "domainColor": told["line"], "ticks": False, "tickColor": told["line"],
        "tickSize": 5, "gridColor": told["grid"], "gridWidth": 1,
    }  # fmt: skip


def _legend(told: dict[str, str], width: int) -> Spec:
    columns = max(1, width // LEGEND_PX)
    return {
        "orient": "bottom", "direction": "horizontal", "title": None, "labelColor": told["ink"],
        "labelFontSize": TEXT_PX, "titleColor": told["muted"], "titleFontSize": TEXT_PX,
        "labelLimit": (width - AXIS_PX) // columns - KEY_PX,
        "titleFontWeight": "normal", "symbolStrokeWidth": 2, "symbolOpacity": 1,
        "columnPadding": 18, "offset": 12,
        "columns": columns,
    }  # fmt: skip


def _styles(told: dict[str, str]) -> Spec:
    """By name: the line at a value that matters and its words; what is computed and not measured; a band of
    an interval and its whiskers; a shaded region; what is beaten or of no weight; a point that failed, and
    the paper to put below it; words beside a mark and small ones; and what is good, bad or open.

    ``color`` and no ``fill`` or ``stroke``: Vega-Lite takes no other from a style.
    """
    words = {"fontSize": TEXT_PX, "font": FONT}
    return {
        "reference": {"color": told["muted"], "strokeWidth": 1.25},
        "reference-label": words | {"color": told["muted"]},
        "computed": {"color": told["line"], "strokeWidth": 1.5, "strokeDash": [5, 4]},
        "band": {"fillOpacity": 0.16, "strokeOpacity": 0},
        "whisker": {"strokeWidth": 1.5},
        "shade": {"color": told["muted"], "fillOpacity": 0.09, "strokeOpacity": 0},
        "faint": {"opacity": 0.4},
        "hollow": {"filled": False, "strokeWidth": 1.75},
        "paper": {"color": told["paper"], "filled": True},
        "label": words | {"fontWeight": 600},
        "note": words | {"fontSize": SMALL_PX, "color": told["muted"]},
        "good": {"color": told["good"]},
        "bad": {"color": told["bad"]},
        "open": {"color": told["open"]},
    }


STYLES = tuple(_styles(_INK["light"]))
