"""Where results live: ``open_home`` of a folder, ``file://`` or an object store (``s3://``, ``gs://``)."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote

from profiler.errors import InputError
from profiler.storage import places
from profiler.storage.local import LocalHome
from profiler.storage.nouns import Found, Home
from profiler.storage.remote import RemoteHome

__all__ = ["Found", "Home", "open_home"]


def open_home(where: str | Path) -> Home:
    """The home that a folder's name or a URI names; nothing is written or connected to yet.

    Raises InputError for a URI that is none of ours.
    """
    text = str(where)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return LocalHome(text, Path(os.path.expanduser(text)))
    if scheme == "file":
        if not rest.startswith("/"):
            raise InputError(f"{text}: a file:// address names a whole path: file:///shared/results")
        return LocalHome(text, Path(unquote(rest)), is_shared=True)
    if text.startswith(places.OBJECT_STORES):
        return RemoteHome(text)
    raise InputError(f"{text}: no such kind of address; use a folder, file://, s3:// or gs://")
