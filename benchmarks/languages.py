"""Parallel sentences out of the gettext catalogs of Python packages, for ``profile tokens``.

    pip download --no-deps django wagtail django-cms && unzip each into PACKAGES
    python -m benchmarks.languages PACKAGES my bn ur hi fr de zh_Hans > parallel.tsv

English is what the programs say (``msgid``), the languages are their translators' (all three packages are
under the BSD licence).  Names to be filled in, markup and line breaks are taken out, since they are alike in
every language; phrases of fewer than three English words are left out.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILLED_IN = re.compile(r"%\(\w+\)[sdr]|%[sdr]|\{\w*\}|<[^>]+>|&\w+;")
MIN_WORDS = 3


def messages(path: Path) -> Iterator[tuple[str, str]]:
    """(msgid, msgstr) of a ``.po`` file; without plurals, fuzzy ones and what is not translated."""
    for block in re.split(r"\n\s*\n", path.read_text(encoding="utf-8")):
        if re.search(r"^#,.*fuzzy", block, re.MULTILINE) or "msgid_plural" in block:
            continue
        texts = {}
        for key, quoted in re.findall(r'^(msgid|msgstr) ((?:".*"\s*)+)', block, re.MULTILINE):
            texts[key] = "".join(ast.literal_eval(line) for line in quoted.splitlines() if line.strip())
        if texts.get("msgid") and texts.get("msgstr"):
            yield texts["msgid"], texts["msgstr"]


def plain(text: str) -> str:
    return " ".join(FILLED_IN.sub(" ", text).split())


def parallel(packages: Path, languages: list[str]) -> dict[str, dict[str, str]]:
    """English → language → text."""
    found: dict[str, dict[str, str]] = {}
    for language in languages:
        for path in sorted(packages.rglob(f"locale/{language}/LC_MESSAGES/*.po")):
            for english, translated in messages(path):
                if len(plain(english).split()) >= MIN_WORDS and plain(translated) != plain(english):
                    found.setdefault(plain(english), {}).setdefault(language, plain(translated))
    return found


def main() -> None:
    packages, languages = Path(sys.argv[1]), sys.argv[2:]
    print("\t".join(["en", *languages]))
    for english, told in parallel(packages, languages).items():
        print("\t".join([english, *(told.get(language, "") for language in languages)]))


if __name__ == "__main__":
    main()
