"""The map of a MoE and a dense rival, in letters, and what it says in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from profiler.plan.crossover import Map, Stretch, stretches, undecided

if TYPE_CHECKING:
    from rich.text import Text

LABEL = 9  # columns before the map
CLEARLY = 1.5  # times better, from which a letter is a capital
LEGEND = (
    f"M the MoE is better, D the dense one; small letters: by less than {CLEARLY} times; ?: undecided, "
    "the 90 % interval of their ratio includes 1",
    "+ − · the same where a cache does not hold the whole batch, as if it did",
)
WHAT = {
    "speed": "time per output token",
    "energy": "energy per output token",
    "cost": "cost per output token",
}
BETTER = {"speed": "is faster", "energy": "takes less energy", "cost": "is cheaper"}
STYLES = {"M": "bold green", "m": "green", "D": "bold magenta", "d": "magenta", "?": "yellow"}
LABELLED = (1, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def heading(found: Map) -> str:
    who = f"{found.moe.candidate.short} (M) against {found.dense.candidate.short} (D)"
    return f"{who} on {found.moe.gpus} × {found.moe.gpu.gpu}: {WHAT[found.metric]}"


def letter(found: Map, row: int, column: int) -> str:
    winner = found.winner(row, column)
    if not found.held[row, column]:
        return {"moe": "+", "dense": "−", "undecided": "·"}[winner]
    if winner == "undecided":
        return "?"
    ratio = found.ratio.value[row, column]
    clearly = max(ratio, 1 / ratio) >= CLEARLY
    name = "m" if winner == "moe" else "d"
    return name.upper() if clearly else name


def lines(found: Map) -> list[str]:
    """A line a prompt length, the longest first, and the axis of batches below."""
    rows = [
        f"{_tokens(found.contexts[row]):>7}".ljust(LABEL)
        + "".join(letter(found, row, column) for column in range(len(found.batches)))
        for row in reversed(range(len(found.contexts)))
    ]
    return [" prompt", *rows, "  batch".ljust(LABEL) + _axis(found.batches)]


def _axis(batches: Sequence[int]) -> str:
    text = ""
    for column, batch in enumerate(batches):
        if batch in LABELLED and len(text) <= column:
            text = text.ljust(column) + _tokens(batch)
    return text


def styled(line: str) -> Text:
    """In colours that say what the letters say; the axis and the labels stay plain."""
    from rich.text import Text

    text = Text(line)
    if not line.startswith("  batch"):
        for letters in re.finditer(r"([MmDd?])\1*|[+−·]+", line[LABEL:]):
            style = STYLES.get(letters[0][0], "dim")
            text.stylize(style, LABEL + letters.start(), LABEL + letters.end())
    return text


def words(found: Map, row: int) -> str:
    """``A is faster below batch 9 (up to 4.1×) and above 620 (up to 2×); B is faster from 9 to 620 …``."""
    names = {"moe": found.moe.candidate.short, "dense": found.dense.candidate.short}
    return _said(found, row, {key: f"{name} {BETTER[found.metric]}" for key, name in names.items()})


def brief(found: Map, row: int = 0) -> str:
    """The same by the map's letters: ``M below batch 9 (up to 4.1×) and above 620 (up to 2×); D …``."""
    return _said(found, row, {"moe": "M", "dense": "D"})


def _said(found: Map, row: int, names: dict[str, str]) -> str:
    parts = stretches(found, row)
    said = []
    for winner in dict.fromkeys(part.winner for part in parts):
        own = [_where(part, found.batches) for part in parts if part.winner == winner]
        said.append(f"{names[winner]} {' and '.join(own)}")
    open_ = [f"{low}–{high}" if low < high else f"{low}" for low, high in undecided(found, row)]
    return "; ".join([*said, *([f"undecided at {', '.join(open_)}"] if open_ else [])])


def _where(part: Stretch, batches: Sequence[int]) -> str:
    factor = f"(up to {part.most:.2g}×)"
    if part.first <= batches[0] and part.last >= batches[-1]:
        return f"at every batch ({part.least:.2g}× to {part.most:.2g}×)"
    if part.first <= batches[0]:
        return f"below batch {part.last} {factor}"
    if part.last >= batches[-1]:
        return f"above {part.first} {factor}"
    return f"from {part.first} to {part.last} {factor}"


def held_up_to(found: Map, row: int = 0) -> int:
    """The largest batch that both caches hold; 0 where not even one request."""
    return max((batch for batch, held in zip(found.batches, found.held[row], strict=True) if held), default=0)


def _tokens(count: int) -> str:
    return f"{count // 1024}k" if count >= 1024 and count % 1024 == 0 else str(count)
