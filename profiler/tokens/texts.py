"""The user's texts by language: a file each, or one table of parallel sentences.

``en.txt my.txt``: the language is the file's name.  ``.tsv``: languages in the first line, a sentence a line,
tabs between.  ``.jsonl``: an object a line, language → text.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from profiler.errors import InputError

TABLES = (".tsv", ".jsonl", ".ndjson")


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """``lines`` by language; an empty line is one that this language lacks.  ``parallel``: line i says the
    same in every language.  ``origins``: file as given → its language."""

    lines: dict[str, list[str]]
    parallel: bool
    origins: dict[str, str]
    notes: tuple[str, ...] = ()

    def shared(self, one: str, other: str) -> list[int]:
        """The lines both languages have."""
        pairs = zip(self.lines[one], self.lines[other], strict=False)
        return [at for at, (a, b) in enumerate(pairs) if a and b]


def read(paths: Sequence[Path]) -> Texts:
    """The texts of ``paths``.

    Raises InputError for a file that is not there, is not UTF-8, has no text, is no such table, a language
    that comes twice, and a table among other files.
    """
    tables = [path for path in paths if path.suffix.lower() in TABLES]
    if tables and len(paths) > 1:
        raise InputError(
            f"{tables[0]}: a table of parallel sentences stands alone; give one, or a file a language"
        )
    if tables:
        return _table(tables[0])
    lines: dict[str, list[str]] = {}
    for path in paths:
        if path.stem in lines:
            raise InputError(f"{path}: language {path.stem!r} comes twice; the file's name is the language")
        lines[path.stem] = _filled(_lines(path), str(path))
    return _of_files(lines, {str(path): path.stem for path in paths})


def _of_files(lines: dict[str, list[str]], origins: dict[str, str]) -> Texts:
    """Files of as many lines are taken as parallel line by line, others only as a whole."""
    lengths = {language: len(each) for language, each in lines.items()}
    parallel = len(set(lengths.values())) == 1
    notes: tuple[str, ...] = ()
    if not parallel:
        told = ", ".join(f"{language} {n:,}" for language, n in lengths.items())
        notes = (f"files of unlike length ({told} lines) are held as a whole: no interval of the premium",)
    elif len(lines) > 1:
        notes = (f"taken as parallel line by line: {next(iter(lengths.values())):,} lines each",)
    return Texts(lines=lines, parallel=parallel, origins=origins, notes=notes)


def _lines(path: Path) -> list[str]:
    """str.splitlines would also split at U+2028 and the like, inside a sentence."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); convert it first, as with iconv"
        ) from None
    return [line.removesuffix("\r") for line in text.split("\n")]


def _filled(lines: Sequence[str], where: str) -> list[str]:
    """Without the space around lines, nor empty lines at the end."""
    found = [line.strip() for line in lines]
    while found and not found[-1]:
        found.pop()
    if not any(found):
        raise InputError(f"{where}: no text in it")
    return found


def _table(path: Path) -> Texts:
    records = _lines(path)
    found = _tsv(records, path) if path.suffix.lower() == ".tsv" else _jsonl(records, path)
    lines = {language: [row.get(language, "").strip() for row in found] for row in found for language in row}
    if len(lines) < 2:
        raise InputError(f"{path}: a table of parallel sentences has two languages or more")
    for language, each in lines.items():
        if not any(each):
            raise InputError(f"{path}: no text of language {language!r}")
    return Texts(lines=lines, parallel=True, origins={})


def _tsv(records: Sequence[str], path: Path) -> list[dict[str, str]]:
    languages = [name.strip() for name in records[0].split("\t")]
    if len(set(languages)) < len(languages) or not all(languages):
        raise InputError(f"{path}: its first line must name each language once, with tabs between")
    rows = []
    for number, record in enumerate(records[1:], 2):
        cells = record.split("\t")
        if record and len(cells) != len(languages):
            raise InputError(f"{path}, line {number}: {len(cells)} cells for {len(languages)} languages")
        if record:
            rows.append(dict(zip(languages, cells, strict=True)))
    return rows


def _jsonl(records: Sequence[str], path: Path) -> list[dict[str, str]]:
    rows = []
    for number, record in enumerate(records, 1):
        try:
            if record.strip():
                rows.append(msgspec.json.decode(record, type=dict[str, str]))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(f"{path}, line {number}: not an object of language to text ({error})") from None
    return rows
