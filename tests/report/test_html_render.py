"""A document as HTML: nothing in it is markup but ours, and its policy allows what is in it and no more."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profiler.charts.nouns import Chart, Column
from profiler.report.html import nouns as n
from profiler.report.html import render

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "${alert(1)} {{7*7}} {% raw %}",
    "' onload='x",
    "&lt;b&gt; & \u2028 \u2029 ]]>",
)
VOID = {"meta", "link", "input", "img", "br", "hr"}


class Page(HTMLParser):
    """What a parser makes of a page: its elements, its raw scripts and styles, its texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.styles: list[str] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "script":
            self.raw.append((dict(attrs), ""))
        if tag == "style":
            self.styles.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            attrs, text = self.raw[-1]
            self.raw[-1] = (attrs, text + data)
        elif self.open and self.open[-1] == "style":
            self.styles[-1] += data
        else:
            self.texts.append(data)

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        return [(tag, tuple(attrs)) for tag, attrs in self.elements]

    def islands(self) -> dict[str, object]:
        return {attrs["id"]: json.loads(text) for attrs, text in self.raw if "type" in attrs}

    def scripts(self) -> list[str]:
        return [text for attrs, text in self.raw if "type" not in attrs]


def chart(text: str = "a", name: str = "c") -> Chart:
    return Chart(
        id=name,
        title=text,
        summary=text,
        columns=(Column(name="model", label=text), Column(name="y", label=text, unit=text)),
        rows=({"model": text, "y": 1.5}, {"model": text, "y": None}),
        spec={"mark": "point", "encoding": {"x": {"field": "model", "title": text}}},
        notes=(text,),
    )


def document(text: str = "a") -> n.Document:
    """One of everything, whatever is written in it."""
    table = n.Table(
        id="t",
        caption=text,
        heads=(n.Head(label=text, is_number=False), n.Head(label=text, key="k", unit=text)),
        lines=(
            n.Line((n.Cell(text, text), n.Cell("1.5", 1.5, text, money="k")), key=text),
            n.Line((n.Cell("n/a"), n.Cell(text, 2.0, is_best=True))),
        ),
        notes=(text,),
        more=text,
        data=n.Data(fields=("a", text), rows=((text, 1.5),), keys=(text,)),
    )
    evidence = n.Evidence(
        id="e", text=text, verdict=text, mark="good", why=text, about=text, lines=(text,), table=None
    )
    return n.Document(
        title=text,
        kicker=text,
        lead=text,
        findings=(text,),
        warnings=(text,),
        facts=(n.Item(text, text),),
        sections=(
            n.Section(
                id="one",
                title=text,
                blocks=(
                    n.Paragraph(text, is_warning=True),
                    n.Figure(chart(text), 1, (text,)),
                    n.Gaps((n.Item(text, text),)),
                    n.Docket((evidence,)),
                ),
            ),
            n.Section(
                id="two",
                title=text,
                blocks=(table, n.Notes((text,), text), n.Facts((n.Item(text, text),))),
                parts=(n.Section(id="part", title=text),),
            ),
        ),
        links=(n.Item(text, "/runs"),),
    )


@pytest.fixture(scope="module")
def plain() -> Page:
    return Page(render.html(document()))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_words_are_words(text, plain):
    page = Page(render.html(document(text)))
    assert page.shape == plain.shape
    assert page.scripts() == plain.scripts()
    assert page.islands()["chart-c"]["rows"][0] == [text, 1.5]
    assert page.islands()["data-t"]["rows"] == [[text, 1.5]]
    assert text in page.texts or text in "".join(page.texts)
    assert {attrs.get("aria-label") for tag, attrs in page.elements if tag == "div"} >= {text}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(min_size=1))
def test_any_text_leaves_the_page_as_it_is(plain, text):
    raw = render.html(document(text))
    page = Page(raw)
    assert page.shape == plain.shape
    assert page.islands()["chart-c"]["spec"]["encoding"]["x"]["title"] == text
    inside = [text for attrs, text in page.raw if "type" in attrs]
    assert not any(set("<>&\u2028\u2029") & set(each) for each in inside)


def test_the_policy_names_the_hash_of_every_script_and_style_and_nothing_else(plain):
    (policy,) = (
        attrs["content"]
        for tag, attrs in plain.elements
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["connect-src"] == "'none'"

    def hashes(texts):
        found = (base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in texts)
        return [f"'sha256-{each}'" for each in found]

    assert rules["script-src"].split() == hashes(plain.scripts())
    assert rules["style-src"].split() == hashes(plain.styles)
    assert len(plain.scripts()) == 1 + len(render.SCRIPTS)


def test_a_page_asks_for_nothing_and_styles_nothing_inline(plain):
    for tag, attrs in plain.elements:
        assert not {"src", "style", "srcset"} & set(attrs), tag
        assert not any(name.startswith("on") for name in attrs), tag
        assert tag not in ("link", "img", "iframe", "object", "base")
        if tag == "a":
            assert (attrs["href"] or "").startswith(("#", "/runs"))


def test_ids_are_unique_and_every_link_inside_leads_somewhere(plain):
    ids = [attrs["id"] for _, attrs in plain.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = [attrs["href"][1:] for tag, attrs in plain.elements if tag == "a" and attrs["href"][0] == "#"]
    assert {*targets} <= {*ids}
    described = [attrs["aria-describedby"] for _, attrs in plain.elements if "aria-describedby" in attrs]
    assert {*described} <= {*ids}


def test_the_same_document_gives_the_same_bytes():
    assert render.html(document("x")) == render.html(document("x"))


def test_a_page_without_figures_carries_no_drawing():
    empty = n.Document(title="t", kicker="k", lead="l")
    page = Page(render.html(empty))
    assert len(page.scripts()) == len(render.SCRIPTS)
    assert "themes" not in page.islands()
    assert len(render.html(empty)) < 200_000


def test_rows_travel_as_lists_in_the_order_of_their_fields():
    odd = chart()
    rows = ({"a": 1}, {"b": 2, "a": float("nan")})
    found = render.chart_data(Chart(id="x", title="t", summary="s", columns=(), rows=rows, spec=odd.spec))
    assert found["fields"] == ["a", "b"]
    text = render.island("x", found).text
    assert json.loads(text)["rows"] == [[1, None], [None, 2]]  # what no number is has no value


def test_a_served_page_links_what_a_file_holds():
    page = Page(render.served(document(), "/static"))
    assert [text for text in page.scripts() if text] == []
    sources = [attrs["src"] for attrs, _ in page.raw if "src" in attrs]
    assert sources[:-1] == ["/static/vega.js", *(f"/static/{name}" for name in render.SCRIPTS)]
    assert all(render.asset(each.removeprefix("/static/")) for each in sources)
    assert render.asset("page.css")
    assert render.asset("../render.py") is None
    policy = next(
        attrs["content"] for _, attrs in page.elements if "content" in attrs and attrs.get("http-equiv")
    )
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
