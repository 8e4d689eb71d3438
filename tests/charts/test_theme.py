"""Colours that can be told apart and read, on light and dark paper, with and without colour vision."""

from __future__ import annotations

import itertools
import json

import pytest

from profiler.charts import theme

LOOKS = ("light", "dark")
LEAST_GRAPHIC, LEAST_TEXT = 3.0, 4.5  # WCAG 2.2, 1.4.11 and 1.4.3
# Dichromats' view of linear RGB: Viénot, Brettel & Mollon, Color Research & Application 24(4), 1999.
PROTAN = ((0.11238, 0.88762, 0.0), (0.11238, 0.88762, 0.0), (0.00401, -0.00401, 1.0))
DEUTAN = ((0.29275, 0.70725, 0.0), (0.29275, 0.70725, 0.0), (-0.02234, 0.02234, 1.0))


def linear(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]


def luminance(colour):
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def lab(rgb):
    """CIE L*a*b* (D65) of linear RGB."""
    weights = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    xyz = [
        sum(w * c for w, c in zip(row, rgb, strict=True)) / n for row, n in zip(weights, white, strict=True)
    ]
    x, y, z = (max(each, 0) ** (1 / 3) if each > 0.008856 else 7.787 * each + 16 / 116 for each in xyz)
    return (116 * y - 16, 500 * (x - y), 200 * (y - z))


def distance(a, b, view=None):
    """CIE 1976 difference, as a dichromat of this view sees it; 2.3 is just noticeable."""

    def seen(colour):
        rgb = linear(colour)
        return [sum(w * c for w, c in zip(row, rgb, strict=True)) for row in view] if view else rgb

    return sum((p - q) ** 2 for p, q in zip(lab(seen(a)), lab(seen(b)), strict=True)) ** 0.5


@pytest.mark.parametrize("look", LOOKS)
def test_models_stand_out_from_the_paper(look):
    for colour in theme.config(look)["range"]["category"]:
        assert contrast(colour, theme.paper(look)) >= LEAST_GRAPHIC, colour


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("view", [None, PROTAN, DEUTAN], ids=["all", "protan", "deutan"])
def test_the_first_models_are_told_apart_by_colour_alone(look, view):
    """Five; further ones by shape, dash and name as well."""
    first = theme.config(look)["range"]["category"][:5]
    assert min(distance(a, b, view) for a, b in itertools.combinations(first, 2)) > 10


@pytest.mark.parametrize("look", LOOKS)
def test_words_can_be_read(look):
    config = theme.config(look)
    told = [config["axis"]["labelColor"], config["axis"]["titleColor"], config["legend"]["labelColor"]]
    told += [config["style"][name]["color"] for name in ("note", "reference-label")]
    for colour in told:
        assert contrast(colour, theme.paper(look)) >= LEAST_TEXT, colour
    assert min(config["axis"]["labelFontSize"], config["legend"]["labelFontSize"], theme.SMALL_PX) >= 11


@pytest.mark.parametrize("look", LOOKS)
def test_a_ramp_goes_one_way_and_a_diverging_one_two(look):
    ranges = theme.config(look)["range"]
    ramp = [contrast(colour, theme.paper(look)) for colour in ranges["heatmap"]]
    assert ramp == sorted(ramp)
    away = [contrast(colour, theme.paper(look)) for colour in ranges["diverging"]]
    assert away[:4] == sorted(away[:4], reverse=True)
    assert away[3:] == sorted(away[3:])


def test_both_themes_name_the_same_things():
    def keys(value):
        return {name: keys(each) for name, each in value.items()} if isinstance(value, dict) else None

    assert keys(theme.config("light")) == keys(theme.config("dark"))
    assert (
        len(
            {len(theme.config(look)["range"]["category"]) for look in LOOKS}
            | {len(theme.SHAPES), len(theme.DASHES)}
        )
        == 1
    )


def test_a_page_gives_every_model_one_colour():
    spec = {"encoding": {"color": {"field": "model", "type": "nominal"} | theme.colours(["c", "a"])}}
    found = theme.in_order(spec, ["a", "b", "c"])
    assert found["encoding"]["color"]["scale"] == {"domain": ["a", "b", "c"]}
    assert found["encoding"]["color"]["legend"] == {"values": ["c", "a"]}
    assert theme.in_order(found, ["a", "b", "c"])["encoding"]["color"]["scale"] == {"domain": ["a", "b", "c"]}


def test_other_scales_and_hidden_legends_stay_as_they_are():
    spec = {
        "layer": [
            {"encoding": {"x": {"scale": {"domain": [1, 2]}}, "strokeDash": theme.dashes(["a"])}},
            {
                "encoding": {
                    "color": {"scale": {"domain": ["weights", "cache"]}},
                    "shape": {"scale": {"type": "log"}},
                }
            },
        ]
    }
    found = theme.in_order(spec, ["a", "b"])
    dash = found["layer"][0]["encoding"].pop("strokeDash")
    assert dash["scale"]["domain"] == ["a", "b"]
    assert dash["legend"] is None
    spec["layer"][0]["encoding"].pop("strokeDash")
    assert json.dumps(found) == json.dumps(spec)


def test_legends_have_as_many_columns_as_fit():
    legends = {width: theme.config("light", width)["legend"] for width in (200, 360, 760)}
    assert [legend["columns"] for legend in legends.values()] == [1, 1, 3]
    for width, legend in legends.items():
        assert legend["columns"] * legend["labelLimit"] < width
