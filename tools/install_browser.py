"""Get a Chromium for the browser tests: Debian's package where this user may install one, else say how.

Nothing is done where one is found.  Without one the tests that need it are skipped, and this ends well,
unless PROFILER_NEEDS_BROWSER=1 says that they must run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES = ("chromium", "fonts-liberation")
NAMED_BY = "PROFILER_CHROMIUM"
NEEDED_BY = "PROFILER_NEEDS_BROWSER"


def chromium() -> str | None:
    """The browser that PROFILER_CHROMIUM names, else the first on the path."""
    named = os.environ.get(NAMED_BY)
    if named:
        return named if Path(named).is_file() else None
    return next(filter(None, map(shutil.which, NAMES)), None)


def is_needed() -> bool:
    return os.environ.get(NEEDED_BY) == "1"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)


def installer() -> list[str] | None:
    """The command that installs packages without asking anybody; None where this user may not."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return ["apt-get"]
    is_asked = shutil.which("sudo") is None or run("sudo", "-n", "true").returncode != 0
    return None if is_asked else ["sudo", "-n", "apt-get"]


def install(command: list[str]) -> str | None:
    """What went wrong, None where nothing did.  The lists are fetched anew: stale ones name files that are
    gone."""
    for words in (
        ["update", "--quiet"],
        ["install", "--quiet", "--yes", "--no-install-recommends", *PACKAGES],
    ):
        done = run(*command, *words)
        if done.returncode:
            return (done.stderr.strip() or done.stdout.strip() or f"apt-get {words[0]} failed").splitlines()[
                -1
            ]
    return None


def main() -> int:
    if chromium():
        return 0
    command = installer()
    if command:
        print(f"installing {' '.join(PACKAGES)} for the browser tests", flush=True)
    wrong = install(command) if command else "apt-get is not here, or not allowed without a password"
    if wrong is None and chromium():
        return 0
    outcome = "the browser tests cannot run" if is_needed() else "the browser tests will be skipped"
    print(f"no Chromium ({wrong or 'the package brought none'}): {outcome}.", file=sys.stderr)
    print(
        f"Install one (Debian: apt-get install {' '.join(PACKAGES)}) or name it: {NAMED_BY}=/path",
        file=sys.stderr,
    )
    return int(is_needed())


if __name__ == "__main__":
    sys.exit(main())
