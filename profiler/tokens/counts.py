"""What is counted in a text apart from tokens: words, characters as a reader sees them, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from msgspec import Struct

from profiler.tokens.packages import needed

# Above this share of its letters in a script without spaces, a text's words are not counted.
SPACELESS_FRAC = 0.1


class Counts(Struct, frozen=True, kw_only=True):
    """Of one text.  ``words``: stretches between the word boundaries of Unicode (UAX 29) that hold a letter
    or digit; None where the script writes no spaces between words, and only a dictionary could tell.
    ``characters``: user-perceived ones, extended grapheme clusters of UAX 29 (``ক্ষ`` is one, of three code
    points).  ``spaceless`` and ``letters`` count code points."""

    words: int | None
    characters: int
    utf8_bytes: int
    letters: int
    spaceless: int

    @classmethod
    def sum(cls, parts: Sequence[Counts]) -> Counts:
        letters, spaceless = sum(part.letters for part in parts), sum(part.spaceless for part in parts)
        countable = spaceless <= SPACELESS_FRAC * letters
        return cls(
            words=sum(part.words or 0 for part in parts) if countable else None,
            characters=sum(part.characters for part in parts),
            utf8_bytes=sum(part.utf8_bytes for part in parts),
            letters=letters,
            spaceless=spaceless,
        )


def count(text: str) -> Counts:
    """The counts of one line; its words also where they will not be used."""
    find = _patterns()
    return Counts(
        words=sum(1 for part in find["boundary"].split(text) if find["word"].search(part)),
        characters=len(find["character"].findall(text)),
        utf8_bytes=len(text.encode()),
        letters=len(find["letter"].findall(text)),
        spaceless=len(find["spaceless"].findall(text)),
    )


@cache
def _patterns() -> dict[str, Any]:
    """Line_Break=SA is Unicode's own list of scripts that need a dictionary (Thai, Lao, Khmer, Burmese)."""
    regex = needed("regex")
    return {
        "boundary": regex.compile(r"\b", regex.WORD | regex.V1),
        "word": regex.compile(r"[\p{L}\p{N}]"),
        "character": regex.compile(r"\X"),
        "letter": regex.compile(r"\p{L}"),
        "spaceless": regex.compile(
            r"[[\p{lb=SA}\p{sc=Han}\p{sc=Hiragana}\p{sc=Katakana}\p{sc=Tibetan}]&&\p{L}]", regex.V1
        ),
    }
