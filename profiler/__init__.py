"""Measure what a language model costs to serve.

>>> import profiler
>>> runs = profiler.run("tiny-moe", scenario="smoke")            # doctest: +SKIP
>>> profiler.compare([run.folder for run in runs])               # doctest: +SKIP

``run`` measures and seals, ``load`` reads a run folder back, ``compare`` makes the cost table (pandas),
``found`` tells what a search found, ``rulings`` judges claims, ``write_report`` makes a page of it all.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing for it would cost `profile --help` a third of its time
if TYPE_CHECKING:
    from typing import Any

    from profiler.api import rulings, run, write_report
    from profiler.comparison import compare
    from profiler.search import found
    from profiler.store import load

__version__ = "0.1.0"
__all__ = ["compare", "found", "load", "rulings", "run", "write_report"]

# Looked up when first used, so that `import profiler` and `profile --help` cost nothing.
_HOME = {
    "compare": "profiler.comparison",
    "found": "profiler.search",
    "load": "profiler.store",
    "rulings": "profiler.api",
    "run": "profiler.api",
    "write_report": "profiler.api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'profiler' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)
