"""Memory of real pages of this process."""

from __future__ import annotations

import mmap
import os

import pytest

from profiler import procfs

PAGES = 256


@pytest.fixture
def block():
    """Fresh anonymous memory, and its address."""
    import ctypes

    held = mmap.mmap(-1, PAGES * mmap.PAGESIZE)
    anchor = ctypes.c_char.from_buffer(held)
    yield held, ctypes.addressof(anchor)
    del anchor
    held.close()


def test_only_pages_that_were_written_are_resident(block):
    held, address = block
    size = PAGES * mmap.PAGESIZE
    assert procfs.resident_bytes([(address, size)]) == 0
    for page in range(100):
        held[page * mmap.PAGESIZE] = 1
    assert procfs.resident_bytes([(address, size)]) == 100 * mmap.PAGESIZE
    halves = [(address, size // 2), (address + size // 2, size // 2)]
    assert procfs.resident_bytes(halves) == 100 * mmap.PAGESIZE
    assert procfs.resident_bytes([(address, 0), (address + 1, 10)]) == 10, "never more than the span itself"


def test_pss_is_of_the_process_named():
    own = procfs.pss_bytes("self")
    assert own == pytest.approx(procfs.pss_bytes(os.getpid()), rel=0.1)
    assert own > 1 << 20
    assert procfs.pss_bytes(1 << 30) is None


def test_a_system_that_does_not_say_gives_none(monkeypatch, tmp_path):
    monkeypatch.setattr(procfs, "PROC", tmp_path)
    assert procfs.resident_bytes([(4096, 4096)]) is None
    assert procfs.pss_bytes("self") is None
