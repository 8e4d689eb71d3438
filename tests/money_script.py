"""``money.js`` in a process of its own, as a browser's engine runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import playwright

import profiler

SCRIPT = Path(profiler.__file__).parent / "report/html/static/money.js"
NODE = Path(playwright.__file__).parent / "driver/node"
# Answers one line of JSON by another: a function of money.js with its arguments.
ASK = """
(0, eval)(require("fs").readFileSync(process.argv[1], "utf8"));
require("readline").createInterface({input: process.stdin}).on("line", (line) => {
  const [name, ...given] = JSON.parse(line);
  process.stdout.write(JSON.stringify(money[name](...given)) + "\\n");
});
"""


class Page:
    def __init__(self) -> None:
        words = [str(NODE), "-e", ASK, str(SCRIPT)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, name: str, *given: Any) -> Any:
        """What the function of this name answers."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps([name, *map(msgspec.to_builtins, given)]) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate(timeout=10)
