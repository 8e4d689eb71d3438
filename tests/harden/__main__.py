"""``python -m tests.harden [WORD…] [--jobs 4]``: see the package."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

import tests.harden
from tests.harden import matrix, page

parser = argparse.ArgumentParser(prog="python -m tests.harden", description=tests.harden.__doc__)
parser.add_argument("words", nargs="*", metavar="WORD", help="part of the name of a fault, or of a phase")
parser.add_argument("--jobs", type=int, default=4, help="cells at a time, and one of the real vLLM")
parser.add_argument("--again", action="store_true", help="only what has not passed yet")
asked = parser.parse_args()
code = matrix.main(asked.words, asked.jobs, asked.again)
if not asked.words:
    if not asked.again and importlib.util.find_spec("tests.harden.kill"):
        code |= subprocess.run([sys.executable, "-m", "tests.harden.kill"], check=False).returncode
    page.write()
sys.exit(min(code, 1))
