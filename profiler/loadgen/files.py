"""How many files a process may have open; a connection is one."""

from __future__ import annotations

OTHER_FILES = 64  # open files that are not connections


def most_connections() -> int:
    """How many connections a load process may have open; it raises its own limit as far as it may."""
    import resource

    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, (allowed if allowed != resource.RLIM_INFINITY else 1 << 20) - OTHER_FILES)
