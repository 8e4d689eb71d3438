"""What an address names, and folders of this machine that stand for it."""

from __future__ import annotations

import os
import re
from hashlib import blake2b
from pathlib import Path

SCHEMES = ("file://", "s3://", "gs://")
OBJECT_STORES = ("s3://", "gs://")


def is_address(word: str) -> bool:
    """Whether a word is an address rather than a folder's name."""
    return word.startswith(SCHEMES)


def cached(kind: str, where: str) -> Path:
    """The folder of this machine's cache that stands for ``where``: the same as long as it means the same."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    digest = blake2b(f"{where} {endpoint}".encode(), digest_size=6).hexdigest()
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", where.partition("://")[2].partition("?")[0])
    return Path(cache) / "profile" / kind / f"{readable[-60:].strip('-')}-{digest}"
