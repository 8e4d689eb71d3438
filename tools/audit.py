"""Are vulnerabilities known of the packages this project is tested with?  ``make audit``, in ``make check``.

Every pinned version of ``constraints.txt`` is looked up in the OSV database (its API: POST /v1/querybatch,
GET /v1/vulns/ID), which holds the advisories of the Python Packaging Authority and of GitHub.  Names and
versions of public packages are all that is sent.

Exit codes: 0 nothing known, or skipped since the database cannot be asked (a build does not fail because the
network is away; ``PROFILER_NEEDS_AUDIT=1`` says that it must); 1 something is known; 2 the list of what is
accepted cannot be read.  ``tools/audit_accepted.toml`` is that list: each entry has a reason and a last day.
"""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError

ROOT = Path(__file__).resolve().parent.parent
PINNED = ROOT / "constraints.txt"
ACCEPTED = ROOT / "tools" / "audit_accepted.toml"
SOURCE = "https://api.osv.dev"
SOURCE_VARIABLE = "PROFILER_AUDIT_SOURCE"
NEEDED_BY = "PROFILER_NEEDS_AUDIT"
ANSWER_S = 5.0
LIMIT_S = 30.0
AT_ONCE = 1000  # queries the database takes in one request
MOST_PAGES = 20
MOST_BYTES = 32 << 20

Pins = Mapping[str, str]


class Accepted(NamedTuple):
    """A vulnerability that is known and lived with, until that day."""

    reason: str
    until: date


class Known(NamedTuple):
    """A vulnerability of a version that is pinned; ``names``: its id and by which it goes elsewhere."""

    package: str
    version: str
    names: tuple[str, ...]
    summary: str


class AcceptedError(Exception):
    """The list of what is accepted says too little."""


class SourceError(Exception):
    """The database could not be asked, or its answer cannot be read."""


# ------------------------------------------------------------------------------------------ what is ours


def pins(text: str) -> dict[str, str]:
    """Name → version of the lines ``name==version``; of a local version (``2.9+cpu``) what it is built of."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?==([^\s;#+]+)", text, re.MULTILINE)
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


def accepted(text: str) -> dict[str, Accepted]:
    """Id → why and how long.  Raises AcceptedError."""
    try:
        entries = tomllib.loads(text).get("accepted", [])
    except tomllib.TOMLDecodeError as error:
        raise AcceptedError(f"not valid TOML: {error}") from None
    found = {}
    for place, each in enumerate(entries, 1):
        name, reason, until = (each.get(key) for key in ("id", "reason", "until"))
        if not name or not isinstance(reason, str) or not reason.strip() or type(until) is not date:
            raise AcceptedError(f"entry {place}: needs id, reason and until, a day such as 2027-01-31")
        found[str(name)] = Accepted(reason, until)
    return found


# -------------------------------------------------------------------------------------------- the database


def known(source: str, wanted: Pins) -> list[Known]:
    """All that the database knows of these versions and has not withdrawn.  Raises SourceError."""
    found = []
    details: dict[str, dict[str, Any]] = {}
    for package, name in _ids(source, wanted):
        if name not in details:
            details[name] = _asked(f"{source}/v1/vulns/{name}")
        told = details[name]
        if not told.get("withdrawn"):
            summary = str(told.get("summary") or str(told.get("details") or "no description").splitlines()[0])
            names = (name, *(str(each) for each in told.get("aliases") or ()))
            found.append(Known(package, wanted[package], names, summary))
    return found


def _ids(source: str, wanted: Pins) -> Iterator[tuple[str, str]]:
    """(package, id of an advisory); an answer may come in pages."""
    left = [
        (name, {"package": {"name": name, "ecosystem": "PyPI"}, "version": version})
        for name, version in wanted.items()
    ]
    for _ in range(MOST_PAGES):
        asked, left = left[:AT_ONCE], left[AT_ONCE:]
        if not asked:
            return
        body = json.dumps({"queries": [query for _, query in asked]}).encode()
        results = _asked(f"{source}/v1/querybatch", body).get("results")
        if not isinstance(results, list) or len(results) != len(asked):
            raise SourceError("its answer is not one result a package")
        for (package, query), result in zip(asked, results, strict=True):
            for each in (result or {}).get("vulns") or ():
                if not re.fullmatch(r"[\w.-]+", str(each.get("id"))):
                    raise SourceError("its answer names an advisory that has no id")
                yield package, str(each["id"])
            if page := (result or {}).get("next_page_token"):
                left.append((package, query | {"page_token": page}))
    raise SourceError(f"its answer has more than {MOST_PAGES} pages")


def _asked(url: str, body: bytes | None = None) -> dict[str, Any]:
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_S) as answer:
            raw = answer.read(MOST_BYTES + 1)
    except HTTPError as error:
        raise SourceError(f"it answers HTTP {error.code}") from None
    except (OSError, HTTPException) as error:
        why = getattr(error, "reason", error)
        raise SourceError(str(getattr(why, "strerror", None) or type(why).__name__)) from None
    try:
        told = json.loads(raw) if len(raw) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise SourceError("its answer is no JSON object")
    return told


def within(source: str, wanted: Pins, seconds: float) -> list[Known]:
    """:func:`known`, or SourceError once the time is over: a name look-up obeys no time-out of its own."""
    found: list[list[Known] | SourceError] = []

    def ask() -> None:
        try:
            found.append(known(source, wanted))
        except SourceError as error:
            found.append(error)
        except (TypeError, AttributeError):
            found.append(SourceError("its answer cannot be read"))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    if not found:
        raise SourceError(f"no whole answer in {seconds:g} s")
    if isinstance(found[0], SourceError):
        raise found[0]
    return found[0]


# ----------------------------------------------------------------------------------------------- the verdict


def told(found: Sequence[Known], lived_with: Mapping[str, Accepted], today: date) -> tuple[list[str], bool]:
    """A line for each, and whether one is not accepted (any more)."""
    lines, is_bad = [], False
    for each in sorted(found):
        line = f"{each.package} {each.version}: {each.names[0]} {each.summary}"
        entry = next((lived_with[name] for name in each.names if name in lived_with), None)
        if entry is None:
            lines.append(line)
        elif entry.until < today:
            lines.append(f"{line} (was accepted until {entry.until}: {entry.reason})")
        else:
            lines.append(f"accepted until {entry.until}: {line} ({entry.reason})")
        is_bad |= entry is None or entry.until < today
    return lines, is_bad


def main(
    pinned: Path = PINNED, list_: Path = ACCEPTED, limit_s: float = LIMIT_S, today: date | None = None
) -> int:
    """See the module."""
    source = os.environ.get(SOURCE_VARIABLE, SOURCE).rstrip("/")
    wanted = pins(pinned.read_text(encoding="utf-8"))
    try:
        lived_with = accepted(list_.read_text(encoding="utf-8"))
    except (AcceptedError, OSError) as error:
        print(f"audit: {list_}: {error}", file=sys.stderr)
        return 2
    try:
        found = within(source, wanted, limit_s)
    except SourceError as error:
        print(f"audit: skipped: {source} cannot be asked ({error})", file=sys.stderr)
        return 1 if os.environ.get(NEEDED_BY) == "1" else 0
    lines, is_bad = told(found, lived_with, today or date.today())
    for line in lines:
        print(line)
    print(f"audit: {len(wanted)} packages, {len(found) or 'no'} known vulnerabilities")
    return int(is_bad)


if __name__ == "__main__":
    sys.exit(main())
