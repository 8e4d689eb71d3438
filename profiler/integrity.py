"""Whether a run folder still is what was written: SHA-256 of its files, and of the manifest that has them.

A manifest's own digest is over its document as canonical JSON (keys sorted, no blanks, UTF-8) without the
entry ``checksums.manifest``: so no figure in it can be changed unseen, while blanks and order are free.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from profiler.checksums import Checksums, FileSum, of_file
from profiler.errors import damaged
from profiler.schema import Manifest

# From this version of the schema on every manifest has checksums.
SINCE = 2


def signed(manifest: Manifest) -> Manifest:
    """The manifest with its own digest as it is now."""
    known = manifest.checksums or Checksums()
    unsigned = msgspec.structs.replace(manifest, checksums=known)
    document = msgspec.json.decode(msgspec.json.encode(unsigned))
    sums = msgspec.structs.replace(known, manifest=_digest(document))
    return msgspec.structs.replace(manifest, checksums=sums)


def _digest(document: dict[str, Any]) -> str:
    own = {name: value for name, value in document["checksums"].items() if name != "manifest"}
    return sha256(msgspec.json.encode({**document, "checksums": own}, order="sorted")).hexdigest()


def check_manifest(file: Path, document: dict[str, Any]) -> None:
    """Raises DamagedError where the document is not the one that was written."""
    sums = document.get("checksums")
    if sums is None and document["schema_version"] < SINCE:
        return
    if not isinstance(sums, dict) or sums.get("manifest") != _digest(document):
        raise damaged(file.parent, f"{file.name} was changed after it was written (its SHA-256 differs)")


def content(folder: Path, name: str, known: FileSum | None) -> bytes:
    """A file of a run folder; where its checksum is known it is that file and no other.

    Raises DamagedError.
    """
    try:
        found = (folder / name).read_bytes()
    except FileNotFoundError:
        raise damaged(folder, f"{name} is missing") from None
    except OSError as error:
        raise damaged(folder, f"{name} cannot be read ({error.strerror})") from None
    if known is not None and (why := _unlike(known, FileSum(len(found), sha256(found).hexdigest()))):
        raise damaged(folder, f"{name} {why}")
    return found


def fault(folder: Path, name: str, known: FileSum) -> str | None:
    """What is wrong with a file whose checksum is known; None: nothing."""
    path = folder / name
    if ".." in Path(name).parts or Path(name).is_absolute():
        return f"{name} is no name of a file in it"
    try:
        why = _unlike(known, of_file(path))
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"
    return f"{name} {why}" if why else None


def _unlike(known: FileSum, found: FileSum) -> str | None:
    if found.size_bytes != known.size_bytes:
        return f"has {found.size_bytes:,} bytes, {known.size_bytes:,} were written"
    if found.sha256 != known.sha256:
        return "is not the file that was written (its SHA-256 differs)"
    return None
