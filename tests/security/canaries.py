"""Secrets that nobody should ever see again, and everywhere they could turn up."""

from __future__ import annotations

import base64
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, quote_plus

import pyarrow.parquet as pq

# Characters that a URL and base64 write otherwise; none of them can be by chance anywhere.
API_KEY = "kAnarienVogel/Api+Key=7f3e"
HF_TOKEN = "kAnarienVogelHub0123456789abc"
ENGINE_PASSWORD = "kAnarienVogel\"Engine'Pass\\word"
AWS_SECRET = "kAnarienVogel/Aws+Secret/1a2b3c4d5e"
PASSWORD = "kAnarienVogelUrl:Pass"
SIGNATURE = "kAnarienVogelSignature00ff"
ALL = (API_KEY, HF_TOKEN, ENGINE_PASSWORD, AWS_SECRET, PASSWORD, SIGNATURE)


def forms(secret: str) -> set[bytes]:
    """The secret as it could be written: plain, quoted, escaped, in hex, in base64 wherever it begins."""
    raw = secret.encode()
    texts = {secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1], secret.encode().hex()}
    found = {text.encode() for text in texts} | {secret.replace("\\", "\\\\").replace('"', '\\"').encode()}
    found |= {raw.decode().encode("utf-16-le")}
    for before in range(3):  # the letters that hang together with neighbours aside
        coded = base64.b64encode(b"\0" * before + raw).rstrip(b"=")
        found |= {coded[4 if before else 0 : -2], base64.urlsafe_b64encode(b"\0" * before + raw)[4:-4]}
    return found


FORMS = {form: secret for secret in ALL for form in forms(secret)}


def seen(data: bytes | str) -> set[str]:
    """The secrets that some bytes or a text hold."""
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    return {secret for form, secret in FORMS.items() if form in raw}


def content(file: Path) -> bytes:
    """All that a file says: of tables, which are compressed, what is in them too."""
    try:
        raw = file.read_bytes()
    except OSError:  # gone meanwhile
        return b""
    if file.suffix == ".parquet":
        with suppress(Exception):  # it is being written
            raw += repr(pq.read_table(file).to_pylist()).encode() + repr(pq.read_metadata(file)).encode()
    return raw


def in_files(*folders: Path) -> list[str]:
    """``FILE holds SECRET`` of every file below the folders, names included."""
    found = []
    for folder in folders:
        for place, _, names in os.walk(folder):  # which, unlike rglob, puts up with folders that go meanwhile
            files = [Path(place) / name for name in names]
            found += [f"{file} holds {secret}" for file in files for secret in seen(content(file))]
            found += [f"{place} {names} hold {secret}" for secret in seen(f"{place} {names}")]
    return found


def command_lines() -> list[str]:
    """Those of all processes of this machine that hold one."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            found += [f"{line!r} holds {secret}" for secret in seen(line)]
    return found


class Watched:
    """What was found while somebody was at work, and how often it was looked."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.looks = 0


@contextmanager
def watched(*folders: Path) -> Iterator[Watched]:
    """Look over all processes ten times a second, and the folders at times, as long as the block runs."""
    watched, over = Watched(), threading.Event()

    def look() -> None:
        while not over.is_set():
            try:
                watched.found += command_lines()
                if watched.looks % 5 == 0:
                    watched.found += in_files(*folders)
            except Exception as error:  # who looks no more finds nothing
                watched.found.append(f"the watch has ended: {error!r}")
                return
            watched.looks += 1
            time.sleep(0.1)

    looker = threading.Thread(target=look)
    looker.start()
    try:
        yield watched
    finally:
        over.set()
        looker.join()
