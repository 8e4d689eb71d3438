"""Names of one model: a hub id (``Qwen/Qwen3-30B-A3B``), a leaderboard's (``qwen3-30b-a3b``), a folder."""

from __future__ import annotations

import re
from functools import cache

# Number formats of the same weights: the score of the weights as released stands for them, and it is said.
FORMAT = re.compile(r"-(fp8|bf16|awq|gptq-int[48]|nvfp4|mxfp4|int[48])$")


def same_model(a: str, b: str) -> bool:
    """Whether two names mean the same weights: spelling, maker and ``Meta-`` or ``-hf`` apart, the same.

    Anything else makes another model: ``-Instruct``, ``-Thinking``, ``-2507``, ``-no-thinking``.
    """
    (maker, base), (other_maker, other) = _parts(a), _parts(b)
    return base == other and (not maker or not other_maker or maker == other_maker)


def without_format(name: str) -> str | None:
    """``Qwen3-32B-FP8`` → ``qwen3-32b``; None where the name tells no number format."""
    plain = FORMAT.sub("", name.lower())
    return plain if plain != name.lower() else None


@cache
def _parts(name: str) -> tuple[str, str]:
    """Maker, or nothing, and model; the folders above a local model are no maker."""
    text = name.strip().lower().rstrip("/").replace(" ", "-")
    maker, _, base = text.rpartition("/")
    base = base.removeprefix("meta-").removesuffix("-hf")
    return ("" if "/" in maker or maker in (".", "..") else maker), base
