"""Packages only this command needs."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from profiler.errors import InputError


def needed(name: str) -> Any:
    """The package, or InputError saying how to get it."""
    try:
        return import_module(name)
    except ImportError:
        raise InputError(f"profile tokens needs {name} here: pip install 'moe-profiler[tokens]'") from None
