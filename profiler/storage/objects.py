"""Files of an object store, through pyarrow's filesystems: whole files, one-line errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import cached_property
from time import sleep
from typing import Any, NamedTuple, TypeVar

from profiler import secret
from profiler.errors import InputError, StoreError

PIECE_BYTES = 8 << 20
# pyarrow itself asks three times within seconds; a store that restarts is back within a minute.
PAUSES_S = (1.0, 3.0, 9.0, 27.0)
_LASTING = re.compile(r"NO_SUCH_BUCKET|ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE|HTTP status 40[0-9]")
T = TypeVar("T")


class Size(NamedTuple):
    """What a listing says of a file; ``at_s`` is the store's clock."""

    size_bytes: int
    at_s: float


class Objects:
    """The files under an address; names are relative to it.

    What fails raises StoreError after a while (``patient``): much may be lost by it.  Without patience
    InputError at once: nothing has begun.
    """

    def __init__(self, where: str, patient: bool) -> None:
        self.where, self.patient = where, patient

    @cached_property
    def _opened(self) -> tuple[Any, str]:
        import pyarrow as pa

        if secret.has(self.where) or "@" in self.where.partition("?")[0]:
            raise InputError(
                "an address with credentials in it would be printed and kept; give them by"
                " AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            )
        try:
            from pyarrow.fs import FileSystem

            files, root = FileSystem.from_uri(self._asked())
        except (pa.ArrowException, ImportError, OSError, ValueError) as error:
            raise InputError(f"{self.where}: {why(error)}") from None
        if not root.strip("/"):
            raise InputError(f"{self.where} names no bucket: s3://BUCKET/FOLDER")
        return files, root.rstrip("/")

    def _asked(self) -> str:
        """A small object in one request rather than three, of which a crash leaves paid-for pieces."""
        if not self.where.startswith("s3://"):
            return self.where
        return f"{self.where}{'&' if '?' in self.where else '?'}allow_delayed_open=true"

    def _key(self, name: str) -> str:
        return f"{self._opened[1]}/{name}" if name else self._opened[1]

    def read(self, name: str) -> bytes | None:
        """None where there is no such file."""

        def whole() -> bytes | None:
            try:
                with self._opened[0].open_input_stream(self._key(name)) as file:
                    return bytes(file.read())
            except FileNotFoundError:
                return None

        return self._patiently(whole, f"cannot read {self.where}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """The object is there when all of it is."""

        def whole() -> None:
            with self._opened[0].open_output_stream(self._key(name)) as file:
                file.write(content)

        self._patiently(whole, f"cannot write {self.where}/{name}")

    def upload(self, path: str, name: str) -> None:
        """A file of this machine."""

        def whole() -> None:
            with open(path, "rb") as source, self._opened[0].open_output_stream(self._key(name)) as file:
                while piece := source.read(PIECE_BYTES):
                    file.write(piece)

        self._patiently(whole, f"cannot bring {path} to {self.where}/{name}")

    def download(self, name: str, path: str) -> None:
        """A file to this machine."""

        def whole() -> None:
            with self._opened[0].open_input_stream(self._key(name)) as source, open(path, "wb") as file:
                while piece := source.read(PIECE_BYTES):
                    file.write(piece)

        self._patiently(whole, f"cannot bring {self.where}/{name} to {path}")

    def copy(self, name: str, to: str) -> None:
        """Within the store."""
        copy = self._opened[0].copy_file
        self._patiently(lambda: copy(self._key(name), self._key(to)), f"cannot copy {self.where}/{name}")

    def remove(self, name: str) -> None:
        """A file, if it is there."""

        def gone() -> None:
            try:
                self._opened[0].delete_file(self._key(name))
            except FileNotFoundError:
                return

        self._patiently(gone, f"cannot remove {self.where}/{name}")

    def remove_folder(self, name: str) -> None:
        """All files of a folder."""

        def gone() -> None:
            try:
                self._opened[0].delete_dir(self._key(name))
            except FileNotFoundError:
                return

        self._patiently(gone, f"cannot remove {self.where}/{name}")

    def files(self, under: str = "") -> dict[str, Size]:
        """All files under a folder, by their names relative to it; those that no folder could hold are
        nobody's."""
        from pyarrow.fs import FileSelector, FileType

        folder = self._key(under)
        selector = FileSelector(folder, recursive=True, allow_not_found=True)
        found = self._patiently(lambda: self._opened[0].get_file_info(selector), f"cannot list {self.where}")
        named = ((each.path[len(folder) + 1 :], each) for each in found if each.type == FileType.File)
        return {name: Size(each.size, (each.mtime_ns or 0) / 1e9) for name, each in named if is_inside(name)}

    def _patiently(self, call: Callable[[], T], what: str) -> T:
        """What is refused stays refused; what may be a passing fault is tried again."""
        for pause_s in (*(PAUSES_S if self.patient else ()), None):
            try:
                return call()
            except OSError as error:
                if pause_s is None or _LASTING.search(str(error)):
                    told = StoreError if self.patient else InputError
                    raise told(f"{what}: {why(error)}") from None
                sleep(pause_s)
        raise AssertionError


def is_inside(name: str) -> bool:
    """Whether an object's name, which may hold anything, stays below a folder of this machine."""
    return "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))


def why(error: BaseException) -> str:
    """What is wrong, and what to do, of an error of pyarrow's: its own text is a paragraph."""
    text = secret.without(" ".join(str(error).split()), secret.values(os.environ))
    if "NO_SUCH_BUCKET" in text:
        return "there is no such bucket; make it first, or name another"
    if re.search(r"ACCESS_DENIED|INVALID_ACCESS_KEY_ID|SIGNATURE|HTTP status 40[13]", text):
        return (
            "access denied; give credentials that may read and write there"
            " (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
        )
    if "NETWORK_CONNECTION" in text:
        return f"{text.rpartition('Details: ')[2]}; is AWS_ENDPOINT_URL (where it is not AWS) right?"
    return text.rpartition(" operation: ")[2] or text
