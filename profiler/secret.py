"""What must never reach a run folder, a log, a terminal or the list of processes.  Imports nothing of ours:
the supervisor of engines loads this file by its path.

Two ways to know a secret: by its name (``HF_TOKEN``, ``api-key``), whose value is then looked for wherever
text comes from somebody else; and by its shape (user and password in a URL, ``?api_key=``, ``Bearer …``).
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HIDDEN = "***"
LEAST_CHARS = 6  # what is shorter is no secret, and hiding it would hide much else

_SECRET = re.compile(r"(^|_)((api|access|private)_?key|secret|password|passwd|credential|passphrase)s?($|_)")
_ENDING = re.compile(r"(^|_)(token|key)s?(_?\d+)?$")
_ANYWHERE = re.compile(r"(^|_)(token|key)s?($|_)")
_NO_SECRET = re.compile(
    r"key_env|tokenizer.*|(max|num)_.*|(.*_)?tokens(_.*)?|(.*_)?per_token"
    r"|(bos|eos|pad|unk|sep|cls|mask)_token|(.*_)?token_ids?"
)
_USER = re.compile(r"(?<=://)[^\s/?#'\"<>`]+@")
_QUERY = re.compile(
    r"([?&;](?:[\w.-]{0,48}?(?:key|token|secret|passw|pwd|signature|credential|auth)[\w.-]{0,48}|sig)=)[^&#\s'\"<>`;]+",
    re.I,
)
_BEARER = re.compile(
    r"\b(authorization['\"]?\s*[:=]\s*['\"]?(?:(?:bearer|basic)\s+)?|bearer\s+(?=\S*\d))"
    r"(?!(?:bearer|basic)\b)[\w.~+/=-]{6,}",
    re.I,
)
# ``HF_TOKEN=…``, ``'api_key': '…'``; a ``key`` or ``token`` alone is mostly none.
_NAMED = re.compile(
    r"(?<![\w-])([\w-]{0,48}?(?:[_-]key|api_?key|[_-]token|secret|passw|passphrase|credential)[\w-]{0,48})"
    r"(['\"]?\s*[=:]\s*[\['\"]*)([^\s'\",}\]&]{2,})",
    re.I,
)
_ISSUED = re.compile(r"\bhf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{16,}|\bA[KS]IA[0-9A-Z]{16}\b")


def is_secret(name: str) -> bool:
    """Whether an argument or environment variable of this name holds a credential: its value never reaches
    a run folder.  ``HF_TOKEN_READ`` and ``api-key`` do; ``eos_token``, counts of tokens and, among arguments,
    what goes on after ``token`` or ``key`` (``long_prefill_token_threshold``) do not."""
    plain = name.lower().replace("-", "_")
    of_tokens = _ENDING if name.islower() else _ANYWHERE
    return bool(_SECRET.search(plain) or of_tokens.search(plain)) and not _NO_SECRET.fullmatch(plain)


def is_credential(name: str, value: object) -> bool:
    """Whether ``value`` is one by the name it goes by.  A switch is none; a number is one only as a password
    or a key to a service, not as a token or key of some other kind (``image_token = 151655``)."""
    if isinstance(value, bool):
        return False
    is_number = isinstance(value, int | float)
    return is_secret(name) and not (is_number and not _SECRET.search(name.lower().replace("-", "_")))


def values(variables: Mapping[str, str]) -> tuple[str, ...]:
    """The secrets among environment variables: those that are named so, and what stands before the ``@`` of
    any URL; longest first, for one may hold another."""
    found = [value.strip() for name, value in variables.items() if is_secret(name)]
    for value in variables.values():
        for user in _USER.findall(value) if "@" in value else ():
            found += [user[:-1], user[:-1].partition(":")[2]]
    return tuple(sorted({each for each in found if len(each) >= LEAST_CHARS}, key=len, reverse=True))


def without(text: str, known: Iterable[str | None] = ()) -> str:
    """``text`` with ``***`` for the ``known`` secrets, whole or cut off by the end of the text, and for what
    has the shape of one."""
    for each in known:
        if each and len(each) >= LEAST_CHARS:
            text = _cut_end(_replaced(text, each), each)
    text = _USER.sub(HIDDEN + "@", text) if "@" in text else text
    text = _QUERY.sub(r"\1" + HIDDEN, text) if "=" in text else text
    text = _NAMED.sub(_hidden_if_secret, text) if "=" in text or ":" in text else text
    return _ISSUED.sub(HIDDEN, _BEARER.sub(r"\1" + HIDDEN, text))


def has(text: str) -> bool:
    """Whether a text shows a secret by its shape."""
    return without(text) != text


def left_out(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments or variables without those that hold a credential, by name or by shape, at any depth."""
    kept = {name: value for name, value in args.items() if not is_credential(name, value)}
    return {
        name: left_out(value) if isinstance(value, dict) else value
        for name, value in kept.items()
        if isinstance(value, dict) or not has(str(value))
    }


def _hidden_if_secret(found: re.Match[str]) -> str:
    value = int(found[3]) if found[3].isdecimal() else found[3]
    return f"{found[1]}{found[2]}{HIDDEN}" if is_credential(found[1].strip("-"), value) else found[0]


def _replaced(text: str, secret: str) -> str:
    for form in _forms(secret):
        text = text.replace(form, HIDDEN)
    return text


def _forms(secret: str) -> Iterator[str]:
    """How programs write it: as it is, in JSON and Python, in a URL, in base64."""
    from urllib.parse import quote, quote_plus

    raw = secret.encode(errors="surrogateescape")
    written = (repr(secret)[1:-1], secret.replace("\\", "\\\\").replace('"', '\\"'))
    encoded = b2a_base64(raw, newline=False).decode().rstrip("=")
    lines = [line for line in secret.splitlines() if len(line) >= 2 * LEAST_CHARS]  # of a key in PEM
    yield from dict.fromkeys((secret, *written, quote(raw, safe=""), quote_plus(raw), encoded, *lines))


def _cut_end(text: str, secret: str) -> str:
    """A message that was cut short may end in the middle of it."""
    for length in range(min(len(secret) - 1, len(text)), LEAST_CHARS - 1, -1):
        if text.endswith(secret[:length]):
            return text[:-length] + HIDDEN
    return text
