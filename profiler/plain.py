"""Text of others' on a terminal and in names of files: a model's name is a name, and commands nothing."""

from __future__ import annotations

import re

from profiler.errors import InputError

LONGEST_NAME = 4096
MAX_IN_A_PATH_BYTES = 60
# Control characters but tab and line feed; marks that turn the direction of writing, and with it that of what
# follows; halves of pairs, which no file takes.
_COMMANDS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """``text`` with ``\\u001b`` for an escape character and its like: on a terminal what it says can be
    seen and does nothing.  Of JSON the meaning stays."""
    return _COMMANDS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def check_name(name: str, what: str) -> None:
    """Raises InputError, ``what`` first, for a name that would not be seen as it is written."""
    if _COMMANDS.search(name) or "\n" in name or "\t" in name:
        raise InputError(f"{what}: {visible(repr(name)):.80} holds a control character; names are plain text")
    if len(name) > LONGEST_NAME:
        raise InputError(f"{what}: {name[:40]!r}… has {len(name):,} characters, at most {LONGEST_NAME:,}")


def in_a_path(name: str) -> str:
    """The last part of a model's or scenario's name, fit for any file system: one part of a path, never
    hidden, never taken for an option, at most ``MAX_IN_A_PATH_BYTES`` long."""
    fit = re.sub(r"[^\w.-]+", "-", name.rsplit("/", 1)[-1]).lstrip(".-")
    return fit.encode()[:MAX_IN_A_PATH_BYTES].decode(errors="ignore") or "unnamed"
