"""What a sweep makes of a disturbed window is tested where a test disturbs it, not where the machine does."""

from __future__ import annotations

import pytest

from profiler import figures


@pytest.fixture
def undisturbed(monkeypatch):
    monkeypatch.setattr(figures, "disturbed", lambda _: None)
