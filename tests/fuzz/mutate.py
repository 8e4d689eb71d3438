"""Mutators that know a syntax: an input is parsed, changed as a tree and written again, and so still parses.

One time in four the bytes themselves are changed (by libFuzzer), so that what does not parse is tried too.
"""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from typing import Any

from tests.fuzz.nouns import Target

Raw = Callable[[bytes, int], bytes]  # libFuzzer's own mutation of bytes to at most so many
RAW_SHARE = 0.25
DEEP = 900  # below the limit of Python's own parsers, beyond that of a careless recursion
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2, 0.5, -0.0, 1e308, -1e308, 5e-324, math.nan, math.inf, -math.inf),
    *(2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**9, 10**18, 10**40),
    *("", " ", "0", "-1", "nan", "inf", "1e400", "1_0", "٣", "ſ", "K", "\x00", "\ud800", "\U0001f600"),
    *("../../etc/passwd", "a" * 300, "%s{}", "1%", "0%", "30s", "5min", "9e99h", "2025-02-30"),
    *([], {}, [[]], [{}], {"": {}}, [None], [0] * 30, ["a", 1, None]),
)


def mutate(target: Target, data: bytes, most: int, luck: random.Random, raw: Raw) -> bytes:
    """Another input like ``data``, of at most ``most`` bytes."""
    head, body = data[: target.head], data[target.head :]
    if target.head and luck.random() < 0.3:
        head = bytes(luck.randrange(256) for _ in range(target.head))
    head = head.ljust(target.head, b"\0")
    room = max(1, most - len(head))
    if target.form == "bytes" or luck.random() < RAW_SHARE:
        return head + raw(body, room)[:room]
    made = FORMS[target.form](body, luck, target.words)
    if made is None or len(made) > room:
        return head + raw(body, room)[:room]
    return head + made


# --------------------------------------------------------------------------------------------- trees


def change(tree: Any, luck: random.Random, words: tuple[str, ...]) -> Any:
    """``tree`` with a few of its places changed; lists and tables are changed in place."""
    for _ in range(luck.choice((1, 1, 1, 2, 3, 8))):
        places = list(_places(tree))
        if not places:
            return hostile(luck, words)
        holder, key = luck.choice(places)
        _change_at(holder, key, places, luck, words)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    stack = [tree]
    while stack:
        node = stack.pop()
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in items:
            yield node, key
            stack.append(value)


def _change_at(holder: Any, key: Any, places: list[Any], luck: random.Random, words: tuple[str, ...]) -> None:
    what = luck.randrange(9)
    value = holder[key]
    if what <= 2:
        holder[key] = near(value, luck) if luck.random() < 0.6 else hostile(luck, words)
    elif what == 3:
        del holder[key]
    elif what == 4:
        other, place = luck.choice(places)
        if key in holder if isinstance(holder, dict) else True:
            holder[key] = _copy(other.get(place) if isinstance(other, dict) else other[place : place + 1])
    elif what == 5 and isinstance(value, list):
        value.extend(_copy(value[: luck.choice((1, 2, 40))]) or [hostile(luck, words)])
    elif what == 5 and isinstance(value, dict):
        value[luck.choice(words) if words else "x"] = hostile(luck, words)
    elif what == 6 and isinstance(holder, dict) and words:
        holder[luck.choice(words)] = holder.pop(key)
    elif what == 7 and isinstance(holder, dict) and words:
        holder[luck.choice(words)] = hostile(luck, words)
    elif what == 8:
        holder[key] = [value] if luck.random() < 0.5 else {luck.choice(words or ("x",)): value}


def near(value: Any, luck: random.Random) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return luck.choice(
            (
                value + 1,
                value - 1,
                -value,
                value * 2,
                value // 2,
                luck.randrange(300),
                10 ** luck.randrange(20),
            )
        )
    if isinstance(value, float):
        return luck.choice((value * 10, -value, value / 3, 0.0, 1.0, 10.0 ** luck.randrange(-320, 308)))
    if isinstance(value, str) and value:
        at = luck.randrange(len(value))
        return luck.choice(
            (
                value[:at],
                value[:at] + chr(luck.randrange(1, 0x250)) + value[at:],
                value[at:] + value[:at],
                value * 3,
            )
        )
    return value


def hostile(luck: random.Random, words: tuple[str, ...]) -> Any:
    if words and luck.random() < 0.3:
        return luck.choice(words)
    if luck.random() < 0.01:
        return _nested(luck.choice((50, DEEP)))
    return _copy(luck.choice(HOSTILE))


def _nested(depth: int) -> Any:
    tree: Any = []
    for _ in range(depth):
        tree = [tree]
    return tree


def _copy(value: Any) -> Any:
    """A deep copy of what JSON can hold, not too deep."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (RecursionError, ValueError):
        return None


# ------------------------------------------------------------------------------------------- syntaxes


def of_json(body: bytes, luck: random.Random, words: tuple[str, ...]) -> bytes | None:
    """JSON, or lines of it."""
    try:
        text = body.decode()
        lines = text.splitlines() if "\n{" in text.strip() else [text]
        place = luck.randrange(len(lines))
        lines[place] = json.dumps(change(json.loads(lines[place]), luck, words))
        if len(lines) > 1 and luck.random() < 0.2:
            lines.insert(luck.randrange(len(lines)), luck.choice(lines))
        return "\n".join(lines).encode(errors="surrogatepass")
    except (ValueError, RecursionError, IndexError):
        return None


def of_toml(body: bytes, luck: random.Random, words: tuple[str, ...]) -> bytes | None:
    try:
        tree = change(tomllib.loads(body.decode()), luck, words)
        return toml(tree).encode(errors="replace") if isinstance(tree, dict) else None
    except (ValueError, RecursionError, TypeError, OverflowError):
        return None


def toml(tree: dict[str, Any]) -> str:
    """Tables as inline ones: ugly, short, and valid for every tree."""
    return "".join(f"{_key(key)} = {_value(value)}\n" for key, value in tree.items() if value is not None)


def _key(key: str) -> str:
    return key if key.isascii() and key.replace("_", "").replace("-", "").isalnum() else _text(key)


def _text(value: str) -> str:
    return json.dumps(value.encode(errors="replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(k)} = {_value(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_value(each) for each in value if each is not None) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    return value.isoformat() if isinstance(value, date | datetime | time) else _text(str(value))


def of_lines(body: bytes, luck: random.Random, words: tuple[str, ...]) -> bytes | None:
    """Logs, CSV, Prometheus text: lines of cells."""
    lines = body.split(b"\n")
    place = luck.randrange(len(lines))
    what = luck.randrange(6)
    if what == 0 and len(lines) > 1:
        del lines[place]
    elif what == 1:
        lines.insert(luck.randrange(len(lines) + 1), lines[place])
    elif what == 2:
        other = luck.randrange(len(lines))
        lines[place], lines[other] = lines[other], lines[place]
    else:
        lines[place] = _of_cells(lines[place], luck, words)
    return b"\n".join(lines)


def _of_cells(line: bytes, luck: random.Random, words: tuple[str, ...]) -> bytes:
    mark = luck.choice(
        [each for each in (b",", b" ", b"=", b":", b'"', b";", b"\t") if each in line] or [b","]
    )
    cells = line.split(mark)
    place = luck.randrange(len(cells))
    said: Any = hostile(luck, words)
    try:
        number = float(cells[place])
        said = near(int(number) if number.is_integer() else number, luck) if luck.random() < 0.6 else said
    except (ValueError, OverflowError):
        pass
    text = said if isinstance(said, str) else json.dumps(said)
    what = luck.randrange(4)
    if what == 0:
        del cells[place]
    elif what == 1:
        cells.insert(place, text.encode(errors="replace"))
    else:
        cells[place] = text.encode(errors="replace")
    return mark.join(cells)


def of_events(body: bytes, luck: random.Random, words: tuple[str, ...]) -> bytes | None:
    """An event stream: the JSON of one event, or the lines."""
    lines = body.split(b"\n")
    held = [place for place, line in enumerate(lines) if line.startswith((b"data: {", b"data:{"))]
    if not held or luck.random() < 0.3:
        return of_lines(body, luck, words)
    place = luck.choice(held)
    field, _, said = lines[place].partition(b":")
    changed = of_json(said.strip(), luck, words)
    if changed is None:
        return None
    lines[place] = field + b": " + changed
    return b"\n".join(lines)


FORMS: dict[str, Callable[[bytes, random.Random, tuple[str, ...]], bytes | None]] = {
    "json": of_json,
    "toml": of_toml,
    "lines": of_lines,
    "events": of_events,
}
