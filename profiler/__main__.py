"""The ``profile`` command.  ``--help`` is answered from stored text, without importing anything heavy."""

from __future__ import annotations

import os.path
import sys

HELP = os.path.join(os.path.dirname(__file__), "help")


def stored_help(argv: list[str]) -> str | None:
    """The stored help page that is asked for by ``--help`` or no word at all (``make help-pages`` renews
    them); None where none is."""
    if argv and not {"--help", "-h"} & set(argv):
        return None
    one = argv[0] if argv and not argv[0].startswith("-") else "profile"
    for name in (f"{one}-{argv[1]}" if len(argv) > 1 else one, one):  # a command of two words first
        page = os.path.join(HELP, f"{name}.txt")
        if name.replace("-", "").isalpha() and os.path.isfile(page):
            with open(page, encoding="utf-8") as file:
                return file.read()
    return None


def main() -> None:
    page = stored_help(sys.argv[1:])
    if page is not None:
        sys.stdout.write(page)
        return
    try:
        from profiler.cli import entry
    except KeyboardInterrupt:
        sys.exit(130)
    entry()


if __name__ == "__main__":
    main()
