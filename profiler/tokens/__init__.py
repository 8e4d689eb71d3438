"""How many tokens a language takes: the user's parallel texts × real tokenizers → tokens, premium, cost.

``texts`` reads the texts, ``encoders`` the tokenizers, ``counts`` what is counted in a text, ``parallel``
holds a language against another; here a row is put together for each tokenizer and language.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from profiler.errors import InputError, nearest
from profiler.schema import Estimate
from profiler.tokens.counts import Counts, count
from profiler.tokens.encoders import Encoder, opened
from profiler.tokens.parallel import ALIGNED_MIN, premium
from profiler.tokens.texts import Texts, read

__all__ = ["COLUMNS", "Encoder", "Texts", "TokenPrice", "baseline_of", "opened", "read", "rows"]

COLUMNS = (
    *("tokenizer", "language", "baseline", "lines", "words", "characters", "utf8_bytes", "tokens"),
    *("tokens_per_word", "tokens_per_character", "tokens_per_byte"),
    *("premium", "premium_low", "premium_high", "premium_lines", "unknown_tokens"),
    *("usd_per_1k_words_read", "usd_per_1k_words_written"),
    *("usd_per_1k_baseline_words_read", "usd_per_1k_baseline_words_written"),
    *("price_source", "notes"),
)


class TokenPrice(Struct, frozen=True, kw_only=True):
    """What a million tokens cost when they are read (input) and when they are written (output), in USD; None
    where it is not known."""

    input_usd_per_m: float | None = None
    output_usd_per_m: float | None = None
    source: str


def baseline_of(texts: Texts, wanted: str | None) -> str:
    """The language the others are held against: the one named, English where there is one, else the first.

    ``wanted`` may also be the file the language came from.  Raises InputError for one that is not there.
    """
    if wanted is None:
        return "en" if "en" in texts.lines else next(iter(texts.lines))
    name = texts.origins.get(wanted, wanted)
    if name not in texts.lines:
        raise InputError(f"--baseline {wanted}: no text in it{nearest(name, texts.lines)}")
    return name


class _Side(Struct, frozen=True):
    """What was counted in one language with one tokenizer, by line."""

    language: str
    counts: list[Counts]
    tokens: list[int]
    unknown: int | None

    def at(self, places: Sequence[int]) -> _Side:
        counts, tokens = [self.counts[n] for n in places], [self.tokens[n] for n in places]
        return _Side(self.language, counts, tokens, self.unknown)


def rows(
    texts: Texts, encoders: Sequence[Encoder], baseline: str, price: TokenPrice | None = None
) -> list[dict[str, Any]]:
    """A row for each tokenizer and language, by tokenizer as given, the baseline first: ``COLUMNS``."""
    order = sorted(texts.lines, key=lambda language: language != baseline)
    counted = {language: [count(line) for line in texts.lines[language]] for language in order}
    found = []
    for encoder in encoders:
        sides = [_Side(name, counted[name], *encoder.encoded(texts.lines[name])) for name in order]
        found += [{"tokenizer": encoder.name} | _row(texts, each, sides[0], price) for each in sides]
    return found


def _row(texts: Texts, own: _Side, base: _Side, price: TokenPrice | None) -> dict[str, Any]:
    total, tokens = Counts.sum(own.counts), sum(own.tokens)
    shared = texts.shared(own.language, base.language)
    pair = (own.at(shared), base.at(shared)) if texts.parallel else (own, base)
    over = None if own is base else premium(pair[0].tokens, pair[1].tokens, texts.parallel)
    base_words = Counts.sum(pair[1].counts).words
    per_word = tokens / total.words if total.words else None
    return {
        "language": own.language,
        "baseline": base.language,
        "lines": sum(1 for each in own.tokens if each),
        "words": total.words,
        "characters": total.characters,
        "utf8_bytes": total.utf8_bytes,
        "tokens": tokens,
        "tokens_per_word": per_word,
        "tokens_per_character": tokens / total.characters,
        "tokens_per_byte": tokens / total.utf8_bytes,
        "premium": over.value if over else None,
        "premium_low": over.low if over else None,
        "premium_high": over.high if over else None,
        "premium_lines": over.n if over and texts.parallel else None,
        "unknown_tokens": own.unknown,
        **_costs("words", per_word, price),
        **_costs("baseline_words", sum(pair[0].tokens) / base_words if base_words else None, price),
        "price_source": price.source if price else None,
        "notes": " | ".join([*texts.notes, *_notes(own, total, over)]) or None,
    }


def _costs(of: str, tokens_per_word: float | None, price: TokenPrice | None) -> dict[str, float | None]:
    """USD for 1,000 words: tokens a word × 1000 × USD per 10⁶ tokens."""
    sides = {"read": price.input_usd_per_m, "written": price.output_usd_per_m} if price else {}
    found: dict[str, float | None] = {}
    for side in ("read", "written"):
        usd = sides.get(side)
        found[f"usd_per_1k_{of}_{side}"] = (
            None if usd is None or tokens_per_word is None else tokens_per_word * usd / 1e3
        )
    return found


def _notes(own: _Side, total: Counts, over: Estimate | None) -> list[str]:
    notes, tokens = [], sum(own.tokens)
    if total.words is None:
        notes.append(f"{own.language}: no words counted, its script writes no spaces between them")
    if over and over.low is None and over.n < ALIGNED_MIN:
        notes.append(f"{own.language}: {over.n} parallel lines bound no premium; {ALIGNED_MIN} do")
    if own.unknown:
        told = f"{own.unknown:,} of {tokens:,} tokens say 'unknown'"
        notes.append(f"{own.language}: {told}: that text is lost, and the count is lower than it should be")
    return notes
