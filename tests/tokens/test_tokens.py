"""Texts, counts, the premium of a language and its cost, as the command prints them."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from profiler import tokens
from profiler.cli import app
from profiler.errors import InputError
from profiler.tokens import counts
from profiler.tokens.encoders import Encoder
from profiler.tokens.parallel import premium

BYTES = Encoder(name="bytes", encode=lambda text: list(text.encode()))
EN = "All human beings are born free"
# Article 1 of the Universal Declaration of Human Rights, its beginning.
BN = "সমস্ত মানুষ স্বাধীনভাবে জন্মগ্রহণ করে"
UR = "تمام انسان آزاد پیدا ہوئے ہیں"
MY = "လူတိုင်းသည် လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် မွေးဖွားလာသူများ ဖြစ်သည်"


def write(folder, **texts):
    paths = []
    for language, text in texts.items():
        paths.append(folder / f"{language}.txt")
        paths[-1].write_text(text, encoding="utf-8")
    return paths


# ------------------------------------------------------------------------------------------- counts


@pytest.mark.parametrize(
    ("text", "words", "characters"),
    [
        ("can't stop 3.14, e-mail", 5, 23),
        (BN, 5, 22),
        (UR, 6, 29),
        ("کتاب‌ها", 1, 6),  # a zero-width non-joiner is inside a word
        ("ক্ষ", 1, 1),
        ("👩‍👩‍👧 \r\n", 0, 3),
        ("e\u0301", 1, 1),
        ("", 0, 0),
    ],
)
def test_words_and_characters_as_a_reader_counts_them(text, words, characters):
    found = counts.count(text)
    assert (found.words, found.characters, found.utf8_bytes) == (words, characters, len(text.encode()))


@pytest.mark.parametrize("text", [MY, "สวัสดีชาวโลก", "ສະບາຍດີ", "សួស្តី", "你好世界", "こんにちは", "བཀྲ་ཤིས"])
def test_scripts_without_spaces_have_no_word_count(text):
    assert counts.Counts.sum([counts.count(text)]).words is None


def test_a_loan_word_does_not_hide_the_words_of_a_text():
    found = counts.Counts.sum([counts.count("the word 你好 is Chinese for hello")])
    assert found.words == 8


# ------------------------------------------------------------------------------------------ premium


def test_the_premium_is_the_ratio_of_all_tokens():
    found = premium([30] * 10, [10] * 10, parallel=True)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))  # every line alike: no doubt
    assert found.n == 10
    assert premium([30] * 9, [10] * 9, parallel=True).low is None
    assert premium([30], [10, 10], parallel=False).value == 1.5
    assert premium([], [], parallel=True) is None


def test_the_interval_by_hand():
    """Half the lines twice, half four times as long: Σ(tᵢ/T − bᵢ/B)² = 10 · (1/30)², n = 10."""
    found = premium([20] * 5 + [40] * 5, [10] * 10, parallel=True)
    half = 2.262157 * math.sqrt(10 / 9 * 10 * (1 / 30) ** 2)
    assert (found.low, found.high) == pytest.approx((3 * math.exp(-half), 3 * math.exp(half)), rel=1e-6)


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """1,000 texts of 40 lines, of which each line's ratio scatters about 4: 95 % ± 2 are covered."""
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(1000):
        base = generator.integers(5, 40, 40)
        own = np.rint(base * 4 * np.exp(generator.normal(0, 0.3, 40) - 0.3**2 / 2))
        found = premium([int(n) for n in own], [int(n) for n in base], parallel=True)
        held += found.low <= 4 <= found.high
    assert 930 <= held <= 970


@given(st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=10, max_size=40))
def test_the_premium_turned_round_is_its_inverse(lines):
    own, base = [a for a, _ in lines], [b for _, b in lines]
    forth, back = premium(own, base, True), premium(base, own, True)
    assert forth.value == pytest.approx(1 / back.value)
    assert forth.low == pytest.approx(1 / back.high)
    assert forth.low <= forth.value <= forth.high


# ------------------------------------------------------------------------------------ rows and cost


def test_rows_by_bytes(tmp_path):
    """A tokenizer of bytes: the premium is the ratio of UTF-8 lengths, tokens a byte are 1."""
    texts = tokens.read(write(tmp_path, bn=f"{BN}\n" * 12, en=f"{EN}\n" * 12, my=f"{MY}\n" * 12))
    price = tokens.TokenPrice(input_usd_per_m=2.0, output_usd_per_m=8.0, source="test")
    found = {row["language"]: row for row in tokens.rows(texts, [BYTES], "en", price)}
    assert list(found) == ["en", "bn", "my"]  # the baseline first
    bn, my = found["bn"], found["my"]
    assert set(bn) == set(tokens.COLUMNS)
    assert bn["tokens_per_byte"] == 1
    assert bn["tokens_per_word"] == len(BN.encode()) / 5
    assert bn["tokens_per_character"] == len(BN.encode()) / 22
    assert bn["premium"] == pytest.approx(len(BN.encode()) / len(EN))
    assert bn["premium_lines"] == 12
    assert (found["en"]["premium"], my["tokens_per_word"], my["usd_per_1k_words_read"]) == (None, None, None)
    assert bn["usd_per_1k_words_read"] == pytest.approx(len(BN.encode()) / 5 * 1000 * 2 / 1e6)
    assert my["usd_per_1k_baseline_words_written"] == pytest.approx(len(MY.encode()) / 6 * 1000 * 8 / 1e6)
    for row in found.values():
        assert row["usd_per_1k_baseline_words_written"] == 4 * row["usd_per_1k_baseline_words_read"]


def test_only_lines_that_both_languages_have_are_compared(tmp_path):
    path = tmp_path / "t.tsv"
    path.write_text("en\tbn\tur\n" + f"{EN}\t{BN}\t\n" * 11 + f"not translated at all\t\t{UR}\n")
    found = {row["language"]: row for row in tokens.rows(tokens.read([path]), [BYTES], "en")}
    assert found["bn"]["premium"] == pytest.approx(len(BN.encode()) / len(EN))
    assert (found["bn"]["premium_lines"], found["ur"]["premium_lines"]) == (11, 1)
    assert found["ur"]["premium"] == pytest.approx(len(UR.encode()) / len("not translated at all"))
    assert found["ur"]["premium_low"] is None
    assert "1 parallel lines bound no premium" in found["ur"]["notes"]


def test_files_of_unlike_length_are_held_as_a_whole(tmp_path):
    texts = tokens.read(write(tmp_path, en=f"{EN}\n" * 20, bn=f"{BN} {BN}\n" * 10))
    row = tokens.rows(texts, [BYTES], "en")[1]
    assert row["premium"] == pytest.approx((2 * len(BN.encode()) + 1) / (2 * len(EN)))
    assert row["premium_low"] is None
    assert "no interval" in row["notes"]


def test_only_ends_of_lines_end_a_sentence(tmp_path):
    (tmp_path / "en.txt").write_bytes("a\u2028b\r\nc\x0bd\r\n".encode())
    (tmp_path / "my.txt").write_text("x\ny\n")
    read = tokens.read([tmp_path / "en.txt", tmp_path / "my.txt"])
    assert read.parallel
    assert read.lines["en"] == ["a\u2028b", "c\x0bd"]


def test_jsonl_and_tsv_say_the_same(tmp_path):
    (tmp_path / "t.tsv").write_text(f"\ufeffen\tmy\r\n{EN}\t{MY}\r\n{EN}\t\r\n")
    lines = [{"en": EN, "my": MY}, {"en": EN}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    tsv, jsonl = (tokens.read([tmp_path / f"t.{kind}"]) for kind in ("tsv", "jsonl"))
    assert tsv == jsonl
    assert tsv.lines == {"en": [EN, EN], "my": [MY, ""]}


def test_the_baseline_is_english_where_there_is_one(tmp_path):
    paths = write(tmp_path, bn=BN, en=EN, ur=UR)
    texts = tokens.read(paths)
    assert tokens.baseline_of(texts, None) == "en"
    assert tokens.baseline_of(texts, "ur") == "ur"
    assert tokens.baseline_of(texts, str(paths[0])) == "bn"
    assert tokens.baseline_of(tokens.read(paths[::2]), None) == "bn"
    with pytest.raises(InputError, match="--baseline fr: no text in it"):
        tokens.baseline_of(texts, "fr")


@pytest.mark.parametrize(
    ("name", "data", "complaint"),
    [
        ("en.txt", b"", "no text in it"),
        ("en.txt", b" \n\n", "no text in it"),
        ("en.txt", "für".encode("latin-1"), "not UTF-8 text .*byte 1"),
        ("t.tsv", b"en\tbn\na\n", "line 2: 1 cells for 2 languages"),
        ("t.tsv", b"en\ten\na\tb\n", "each language once"),
        ("t.tsv", b"en\na\n", "two languages or more"),
        ("t.tsv", b"en\tbn\na\t\n", "no text of language 'bn'"),
        ("t.jsonl", b'{"en": "a", "bn": 1}\n', "line 1: not an object of language to text"),
        ("t.jsonl", b'{"en": "a"}\n[]\n', "line 2"),
        ("t.jsonl", b"\n", "two languages or more"),
    ],
)
def test_files_that_are_no_texts(tmp_path, name, data, complaint):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=complaint):
        tokens.read([tmp_path / name])


def test_languages_and_tables_stand_alone(tmp_path):
    (tmp_path / "deep").mkdir()
    with pytest.raises(InputError, match="language 'en' comes twice"):
        tokens.read([*write(tmp_path, en=EN), *write(tmp_path / "deep", en=EN)])
    (tmp_path / "t.tsv").write_text("en\tbn\na\tb\n")
    with pytest.raises(InputError, match="stands alone"):
        tokens.read([tmp_path / "t.tsv", tmp_path / "en.txt"])
    with pytest.raises(InputError, match="no such file"):
        tokens.read([tmp_path / "none.txt"])


# ---------------------------------------------------------------------------------------- the command


@pytest.fixture
def given_texts(tmp_path):
    model = {"type": "WordLevel", "vocab": {"[UNK]": 0, **{w: n + 1 for n, w in enumerate(EN.split())}}}
    tree = {"version": "1.0", "model": model | {"unk_token": "[UNK]"}, "added_tokens": []}
    (tmp_path / "tokenizer.json").write_text(
        json.dumps(tree | {"pre_tokenizer": {"type": "WhitespaceSplit"}})
    )
    paths = write(tmp_path, en=f"{EN}\n" * 12, my=f"{MY}\n" * 12)
    return [*map(str, paths), "--tokenizer", str(tmp_path / "tokenizer.json")]


def run(*words: str):
    return CliRunner().invoke(app, ["tokens", *words])


def test_the_command_prints_the_same_in_every_format(given_texts):
    priced = [*given_texts, "--usd-per-m-input", "2", "--usd-per-m-output", "8"]
    rows = list(csv.DictReader(io.StringIO(run(*priced, "--format", "csv").output)))
    assert tuple(rows[0]) == tokens.COLUMNS
    tree = json.loads(run(*priced, "--format", "json").output)["tokens"]
    assert [row["tokens"] for row in tree["rows"]] == [int(row["tokens"]) for row in rows] == [72, 60]
    assert any("60 of 60 tokens say 'unknown'" in line for line in tree["lines"])
    assert float(rows[0]["usd_per_1k_words_read"]) == 0.002  # a token a word, 2 USD a million
    shown = run(*priced, "--format", "md").output
    assert "0.83 (0.83–0.83)" in shown
    assert "written: as output" in run(*priced).output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--usd-per-m-input", "0"], "a price is a positive number"),
        (["--usd-per-m-input", "1", "--api", "qwen3-32b"], "a token has one price"),
        (["--price", "2"], "give --run too"),
        (["--api", "no-such-model"], "--api no-such-model: the catalog has no API price"),
        (["--format", "xml"], "no such format"),
        (["--baseline", "fr"], "no text in it"),
    ],
)
def test_words_that_do_not_fit(given_texts, words, complaint):
    done = run(*given_texts, *words)
    assert isinstance(done.exception, InputError)
    assert done.exception.exit_code == 2
    assert complaint in str(done.exception)


def test_an_apis_list_price(given_texts):
    rows = json.loads(run(*given_texts, "--api", "qwen3-32b", "--format", "json").output)["tokens"]["rows"]
    from profiler.cost import listed, terms

    middle, _, _ = listed.prices("qwen3-32b", terms.read()).ranked(1, 1)
    assert rows[0]["usd_per_1k_words_read"] == pytest.approx(middle.input / 1e3)  # a token a word
    assert rows[0]["usd_per_1k_words_written"] == pytest.approx(middle.output / 1e3)
    assert middle.provider in rows[0]["price_source"]


def test_a_runs_own_price(given_texts):
    from tests.test_frontier import priced_runs

    folder = given_texts[0].rpartition("/")[0]
    runs = priced_runs(folder, "a")
    done = run(*given_texts, "--run", str(runs[0]), "--price", "3.6", "--format", "json")
    rows = json.loads(done.output)["tokens"]["rows"]
    assert rows[0]["price_source"].startswith("a: a at load 1, at 100 % utilisation: 10 USD per 10⁶ input")
    # 0.1 s to the first token over 10 prompt tokens, 0.001 USD a second; 0.02 s a token that is written
    assert rows[0]["usd_per_1k_words_read"] == pytest.approx(0.01 * 0.001 * 1000)
    assert rows[0]["usd_per_1k_words_written"] == pytest.approx(0.02 * 0.001 * 1000, rel=0.1)
    assert "no price" in str(run(*given_texts, "--run", str(runs[0])).exception)
