"""``tokens_per_text``: what a language takes in tokens over another, from parallel texts and tokenizers.

Texts are the user's: no package may carry enough of them.  ``PROFILER_TEXTS`` names them (a table of parallel
sentences, or a file a language), ``PROFILER_TOKENIZERS`` tokenizers (files or models' folders), several with
the system's path separator between; folders of the runs' models and the Hub's cache are looked into as well.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from profiler import catalog, models, scores, tokens
from profiler.claims.nouns import Case, Cell, Claim, Evidence, Setting, Side
from profiler.errors import InputError
from profiler.store import RunResult
from profiler.tokens import Encoder, Texts
from profiler.tokens.encoders import IN_FOLDER

TEXTS, TOKENIZERS = "PROFILER_TEXTS", "PROFILER_TOKENIZERS"
# Batches of neighbouring lines, which are of one page and alike: enough for a t interval, few enough that a
# batch is no single line (batch means; Law, Simulation Modeling and Analysis, section 9.5.3).
BLOCKS = 10
FEWEST_LINES = 2 * BLOCKS


def cases(claim: Claim, runs: Sequence[RunResult]) -> list[Case]:
    """A case a tokenizer.  Raises InputError for texts or tokenizers that cannot be read."""
    ours, theirs = claim.subject.language, claim.baseline.language
    if ours is None or theirs is None:
        raise InputError("tokens_per_text: subject.language and baseline.language say of which texts")
    how = f"{TEXTS}=parallel.tsv {TOKENIZERS}=MODEL_FOLDER profile claims --claim {claim.id}"
    texts, encoders = _texts(), list(_encoders(claim.subject.names or claim.baseline.names, runs))
    if texts is None:
        return [Case(claim=claim, impossible=f"no parallel texts of {ours} and {theirs} at hand: {how}")]
    lacking = [name for name in (ours, theirs) if name not in texts.lines]
    if lacking:
        there = ", ".join(texts.lines)
        raise InputError(f"{TEXTS}: no text in {' or '.join(lacking)}, there is {there}")
    if not encoders:
        whose = f" of {', '.join(claim.subject.names)}" if claim.subject.names else ""
        return [Case(claim=claim, impossible=f"no tokenizer{whose} at hand: {how}")]
    return [_case(claim, texts, each, (ours, theirs)) for each in encoders]


def _case(claim: Claim, texts: Texts, encoder: Encoder, pair: tuple[str, str]) -> Case:
    setting = Setting(
        subject=pair[0], baseline=pair[1], machine="any machine", engine=f"tokenizer {encoder.name}"
    )
    return Case(claim=claim, setting=setting, evidence=(_evidence(texts, encoder, pair),))


def _evidence(texts: Texts, encoder: Encoder, pair: tuple[str, str]) -> Evidence:
    """Lines that both languages have, in batches; the baseline is 1 token by definition."""
    one = Side(exact=1.0, facts={"language": pair[1]})
    if not texts.parallel:
        why = "the texts are not parallel line by line: no interval can be told of their ratio"
        return Evidence(cell=Cell(), subject=Side(), baseline=one, missing=(why,))
    places = texts.shared(*pair)
    if len(places) < FEWEST_LINES:
        why = f"{len(places)} parallel lines; {FEWEST_LINES} or more tell"
        return Evidence(cell=Cell(), subject=Side(), baseline=one, missing=(why,))
    (ours, lost), (theirs, also_lost) = (
        encoder.encoded([texts.lines[name][place] for place in places]) for name in pair
    )
    doubts = [
        f"{encoder.name} writes 'unknown' for {n:,} tokens of {name}: that text is lost"
        for name, n in zip(pair, (lost, also_lost), strict=True)
        if n
    ]
    facts = {"language": pair[0], "tokenizer": encoder.name, "lines": len(places), "tokens": sum(ours)}
    facts |= {"baseline_tokens": sum(theirs), "texts_sha256": _digest(texts, pair, places)}
    return Evidence(
        cell=Cell(),
        subject=Side(values=in_blocks(ours, theirs), facts=facts),
        baseline=one,
        doubts=tuple(doubts),
        notes=(
            f"{len(places):,} parallel lines in {BLOCKS} batches: of other texts of this kind, not of others",
        ),
    )


def _digest(texts: Texts, pair: tuple[str, str], places: Sequence[int]) -> str:
    """Of the lines that were counted."""
    lines = (texts.lines[name][place] for name in pair for place in places)
    return sha256("\n".join(lines).encode()).hexdigest()


def in_blocks(tokens: Sequence[int], baseline: Sequence[int]) -> tuple[float, ...]:
    """The ratio of the sums as ``BLOCKS`` figures whose mean logarithm is that ratio's, and whose scatter is
    that of its linearisation over batches of lines (``tokens.parallel.premium`` does the same over lines).

    Batch k moves the logarithm by t_k/T − b_k/B; its figure is R · exp(BLOCKS · that).
    """
    own, base = sum(tokens), sum(baseline)
    ends = [round(at * len(tokens) / BLOCKS) for at in range(BLOCKS + 1)]
    moves = [sum(tokens[a:b]) / own - sum(baseline[a:b]) / base for a, b in itertools.pairwise(ends)]
    return tuple(own / base * math.exp(BLOCKS * move) for move in moves)


def _texts() -> Texts | None:
    named = _listed(TEXTS)
    return tokens.read(named) if named else None


def _encoders(names: Sequence[str], runs: Sequence[RunResult]) -> Iterator[Encoder]:
    """Those of the models named, each once; of none named, every one at hand."""
    at_hand = [tokens.opened(path) for path in _listed(TOKENIZERS)]
    at_hand += [tokens.opened(folder) for folder in _folders(runs)]
    if not names:
        yield from {each.name: each for each in at_hand}.values()
    for name in names:
        own = [each for each in at_hand if scores.same_model(each.name, name)]
        file = None if own else _of_model(name)
        if own or file:
            yield own[0] if own else tokens.opened(file or Path())


def _of_model(name: str) -> Path | None:
    """A folder of that name, else what the Hub's cache has."""
    folder = Path(os.path.expanduser(name))
    if folder.is_dir():
        return folder
    entry = catalog.find(name)
    hub_id = entry.hub if entry and "/" not in name else name
    return models.cached_file(hub_id, "tokenizer.json") if hub_id.count("/") == 1 else None


def _folders(runs: Sequence[RunResult]) -> list[Path]:
    """Folders of local models that hold a tokenizer."""
    named = dict.fromkeys(Path(run.manifest.model.folder) for run in runs if run.manifest.model.folder)
    return [each for each in named if any(True for pattern in IN_FOLDER for _ in each.glob(pattern))]


def _listed(variable: str) -> list[Path]:
    return [Path(os.path.expanduser(word)) for word in os.environ.get(variable, "").split(os.pathsep) if word]
