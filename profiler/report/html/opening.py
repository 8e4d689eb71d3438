"""How a page begins: of which models it is, and what was measured on what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from profiler.charts import loads, words
from profiler.charts.words import one_line, significant
from profiler.figures import Figures
from profiler.report.html.nouns import Item
from profiler.schema import Manifest
from profiler.settings import Length
from profiler.store import RunResult

MOST_NAMED = 6


def title(runs: Sequence[RunResult]) -> str:
    names = _names(run.manifest.model.name.rpartition("/")[2] for run in runs)
    return few(names)


def few(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """``a, b and c``; of more than ``most`` the first, ``a, b and 14 more``."""
    more = len(names) - most
    return loads.joined(names if more <= 0 else [*names[:most], f"{more:,} more"])


def _names(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(map(one_line, texts)))


# -------------------------------------------------------------------------------- what was measured on what


def facts(runs: Sequence[RunResult], found: Sequence[Figures]) -> tuple[Item, ...]:
    """Each in a line; of many the first ones, and how many more."""
    manifests = [run.manifest for run in runs]
    told = {
        "Models": map(_model, manifests),
        "Weights": map(_weights, manifests),
        "Experts": filter(None, map(_routing, manifests)),
        "Machine": map(machine, manifests),
        "Engine": map(engine, manifests),
        "Requests": map(_requests, manifests),
        "Load": map(_load, manifests),
    }
    each = {name: _joined(_names(lines)) for name, lines in told.items()}
    each |= {"Measured": _measured(runs, found), "When": _when(manifests)}
    return tuple(Item(name, text) for name, text in each.items() if text)


def _joined(lines: Sequence[str]) -> str:
    more = len(lines) - MOST_NAMED
    return "; ".join(lines[:MOST_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


def _model(manifest: Manifest) -> str:
    """``tiny-moe: MoE, 201 M parameters, 24.0 M active, 2 of 32 experts a token``."""
    found = manifest.model.facts
    if found is None:
        return manifest.model.name
    parts = [found.kind.replace("moe", "MoE"), f"{_count(found.total_params)} parameters"]
    if found.kind == "moe":
        parts.append(f"{_count(found.active_params)} active")
        if found.experts and found.experts_per_token:
            parts.append(f"{found.experts_per_token} of {found.experts} experts a token")
    return f"{manifest.model.name}: {', '.join(parts)}"


def _count(params: int) -> str:
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if params >= size:
            return f"{significant(params / size)} {letter}"
    return str(params)


WEIGHTS = {
    "hub": "trained, from the Hub",
    "local": "from local files",
    "random": "random, of no trained model",
    "remote": "the endpoint's own",
    "unknown": "unknown",
}


def _weights(manifest: Manifest) -> str:
    if manifest.engine.kind == "simulated":
        return "none, the engine is simulated"
    return WEIGHTS[manifest.model.weights]


def _routing(manifest: Manifest) -> str | None:
    routing = manifest.engine.routing
    return None if routing in (None, "model") else f"chosen {routing}, not by the model's router"


def machine(manifest: Manifest) -> str:
    host, used = manifest.host, set(manifest.engine.gpus)
    boards = [gpu.name for gpu in host.gpus if gpu.uuid in used]
    parts = [f"{boards.count(name)} × {name}" for name in dict.fromkeys(boards)]
    if host.cpu:
        parts.append(f"{host.cpu}, {host.cores} cores" if host.cores else host.cpu)
    where = ", ".join(parts) or "unknown"
    is_remote = manifest.engine.device == "remote" and not manifest.imported
    return f"unknown, the endpoint is elsewhere (load from {where})" if is_remote else where


def engine(manifest: Manifest) -> str:
    told, used = manifest.imported, manifest.engine
    if told is not None:
        return f"{used.kind}; measured by {told.by} and imported"
    version = f" {used.version}" if used.version else ""
    return f"{used.kind}{version}" + ("" if used.device == "remote" else f", {manifest.settings.dtype}")


def _requests(manifest: Manifest) -> str:
    """How long prompts and answers are."""
    work = manifest.scenario.workload
    if manifest.imported is not None:
        return ""
    if work.mix:
        kinds = [f"{_length(each.input_tokens)} → {_length(each.output_tokens)}" for each in work.mix]
        return f"a mix of {few(kinds)} tokens"
    if work.input_tokens is None or work.output_tokens is None:
        return "as in a trace"
    turns = ", in conversations" if work.conversation else ""
    return f"{_length(work.input_tokens)} tokens in, {_length(work.output_tokens)} out{turns}"


def _length(length: int | Length | None) -> str:
    if isinstance(length, Length):
        return f"{length.mean:,}" + (f" ± {length.spread:.0%}" if length.spread else "")
    return words.NA if length is None else f"{length:,}"


def _load(manifest: Manifest) -> str:
    """``trio: closed loop, 1, 8, 32 at a time``."""
    scenario, told = manifest.scenario, manifest.imported
    points = [each.point for each in (manifest.windows or (told.points if told else ()))]
    held = list(dict.fromkeys(map(words.load, points)))
    modes = {point.mode for point in points}
    how = {"closed": "in flight", "batch": "in a batch", "open": "requests due", "replay": "replayed"}
    what = how[modes.pop()] if len(modes) == 1 else "by load"
    return f"{scenario.name}: {few(held, 12)} {what}" if held else scenario.name


def _measured(runs: Sequence[RunResult], found: Sequence[Figures]) -> str:
    """Windows, engine starts, runs and requests: what all the figures rest on."""
    windows = sum(len(run.manifest.windows) for run in runs)
    starts = sum(len({window.engine_start for window in run.manifest.windows}) for run in runs)
    imported = sum(run.manifest.imported is not None for run in runs)
    names = {str(run.folder) for run in runs}
    own = [each.facts for each in found if each.run in names]
    ok, failed = (sum(each[f"requests_{what}"] or 0 for each in own) for what in ("ok", "failed"))
    parts = [loads.count(len(runs), "run") + (f" ({imported:,} imported)" if imported else "")]
    parts += [loads.count(starts, "engine start"), loads.count(windows, "window")] if windows else []
    parts += [loads.count(ok, "request")] if ok else []
    parts += [f"{failed:,} failed"] if failed else []
    return ", ".join(parts)


def _when(manifests: Sequence[Manifest]) -> str:
    """Days on which runs were made; of imported ones their files seldom say."""
    held = {
        "": sorted(day(each) for each in manifests if each.imported is None),
        "imported ": sorted(day(each) for each in manifests if each.imported is not None),
    }
    spans = [f"{how}{' to '.join(dict.fromkeys((days[0], days[-1])))}" for how, days in held.items() if days]
    tools = few(sorted({each.tool_version for each in manifests}))
    return f"{loads.joined(spans)} (UTC), with profile {tools}"


def day(manifest: Manifest) -> str:
    """``2026-11-22``, UTC."""
    return f"{manifest.utc[:4]}-{manifest.utc[4:6]}-{manifest.utc[6:8]}"
