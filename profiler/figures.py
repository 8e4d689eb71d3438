"""Sealed run → Figures, one a load point: everything that was measured and nothing that depends on a price.

What a run's Figures are is fixed when it is sealed, so they may be kept and read again without its tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import Struct

from profiler import adaptive, alike, consumption, memory, metrics, prefill, stats, utilisation
from profiler.metrics import PointResult
from profiler.schema import Estimate, LoadPoint, Price
from profiler.store import RunResult

STATISTICS = ("mean", "p50", "p90", "p95", "p99")
ENERGY_FACTS = (
    "energy_boundary",
    "pue",
    "idle_kind",
    "energy_counter_j",
    "energy_integral_j",
    "energy_disagreement_frac",
    "energy_statistical_frac",
    "energy_systematic_frac",
    "throttled_thermal_frac",
    "throttled_power_frac",
    "temperature_c_mean",
    "sm_clock_mhz_median",
    "shared_gpu",
)
NOTE_SEPARATOR = " | "
_WITHOUT_PUE = f"{consumption.WORDS[consumption.FACILITY]} n/a: {consumption.NO_PUE}"


class Figures(Struct, frozen=True, kw_only=True):
    """One load point of one run.

    ``estimates``: by the names of ``comparison.ESTIMATES``; what was not measured is absent.  ``facts``: the
    other columns of the table by name, None where they do not apply.  ``alike`` is equal for runs of the same
    model, routed alike, on the same engine, precision and machine; ``work`` for those that were asked for
    requests of the same kind, whatever their scenario is called.  ``price`` is the one the run was made
    with; ``start_s`` how long its engine took from its start to the first answer it could have given (mean
    over starts); ``gpu_memory_bytes`` of one board.
    """

    run: str
    alike: str
    point: LoadPoint
    estimates: dict[str, Estimate]
    facts: dict[str, Any]
    work: str = ""
    price: Price | None = None
    start_s: float | None = None
    gpu_memory_bytes: int | None = None

    @property
    def model(self) -> str:
        return str(self.facts["model"])

    @property
    def gpu(self) -> str | None:
        """The boards' name as their driver says it; None on a machine without."""
        found: str | None = self.facts["gpu"]
        return found

    @property
    def gpus(self) -> int:
        return self.facts["gpus"] or 0


def disturbed(found: Iterable[Figures]) -> str | None:
    """What from outside is in figures: the first reason there is to hold their run anew."""
    for each in found:
        if each.facts["client_bound"]:
            return f"the client was the limit ({each.facts['client_bound']})"
        if each.facts["shared_gpu"]:
            return "others used the GPUs"
    return None


def of_runs(runs: Iterable[RunResult]) -> list[Figures]:
    """Every load point of every run, in their order."""
    return [each for run in runs for each in of_run(run)]


def of_run(run: RunResult) -> Iterator[Figures]:
    """The load points of a run, by mode and load."""
    held = memory.account(run)
    manifest = run.manifest
    key = alike.fingerprint(run)
    work = sha256(msgspec.json.encode(manifest.scenario.workload, order="sorted")).hexdigest()[:16]
    board = next((gpu for gpu in manifest.host.gpus if gpu.uuid in manifest.engine.gpus), None)
    for found in metrics.points(run):
        used = utilisation.of_point(run, found)
        estimates = found.estimates | used.estimates
        yield Figures(
            run=str(run.folder),
            alike=key,
            work=work,
            point=found.point,
            estimates={name: each for name, each in estimates.items() if each is not None},
            facts=_identity(run, found)
            | {name: found.consumed.facts.get(name) for name in ENERGY_FACTS}
            | {name: used.facts.get(name) for name in utilisation.FACTS}
            | memory.figures(held, found.point)
            | adaptive.facts(run, found.point, found.estimates)
            | _context(run, found, used.notes),
            price=manifest.price,
            start_s=sum(manifest.starts_s) / len(manifest.starts_s) if manifest.starts_s else None,
            gpu_memory_bytes=board.memory_bytes if board else None,
        )


def with_pue(found: Figures, pue: float) -> Figures:
    """As if the run had been made with this PUE: nothing but the building's energy and what is said of it
    depends on it."""
    facts, host = dict(found.facts), found.estimates.get(consumption.HOST)
    if facts["energy_boundary"] is not None:
        facts["pue"] = pue
    if host is None:
        return msgspec.structs.replace(found, facts=facts)
    notes = (facts["notes"] or "").split(NOTE_SEPARATOR)
    facts["notes"] = NOTE_SEPARATOR.join(note for note in notes if note != _WITHOUT_PUE) or None
    building = {consumption.FACILITY: stats.scaled(host, pue)}
    return msgspec.structs.replace(found, facts=facts, estimates=found.estimates | building)


def prefill_s(found: Iterable[Figures]) -> dict[str, Estimate | None]:
    """Engine seconds an input token takes, by ``run``: from its own points, else from those of runs alike."""
    by_run: dict[str, list[Figures]] = {}
    by_kind: dict[str, list[Figures]] = {}
    for each in found:
        by_run.setdefault(each.run, []).append(each)
        by_kind.setdefault(each.alike, []).append(each)
    shared = {key: prefill.s_per_token(points) for key, points in by_kind.items()}
    return {run: prefill.s_per_token(points) or shared[points[0].alike] for run, points in by_run.items()}


def _identity(run: RunResult, found: PointResult) -> dict[str, Any]:
    manifest = run.manifest
    return {
        "model": manifest.model.name,
        "kind": manifest.model.facts.kind if manifest.model.facts else None,
        "engine": manifest.engine.kind,
        "scenario": manifest.scenario.name,
        "load": found.point.mode,
        "concurrency": found.point.concurrency,
        "load_requests_per_s": found.point.requests_per_s,
        "gpu": alike.gpu_name(run),
        "gpus": alike.gpus(run),
        "requests_ok": found.requests_ok,
        "requests_failed": found.requests_failed,
    }


def _context(run: RunResult, found: PointResult, notes: tuple[str, ...]) -> dict[str, Any]:
    wave = found.estimates.get("first_wave_ttft_s_mean")
    return {
        "energy_trouble": NOTE_SEPARATOR.join(found.consumed.trouble) or None,
        "first_wave_requests": wave.n if wave else None,
        "send_lag_p99_s": found.client.send_lag_p99_s,
        "client_cpu_frac": found.client.cpu_frac,
        "loop_lag_p99_s": found.client.loop_lag_p99_s,
        "client_bound": found.client.bound,
        "sampler_cpu_frac": found.sampling.cpu_frac,
        "sampler_late_s_max": found.sampling.late_s_max,
        "others_cpu_cores": found.beside.cpu_cores,
        "cpu_steal_frac": found.beside.steal_frac,
        "slo_verdicts": ", ".join(f"{each.limit.name} {each.verdict}" for each in found.judged) or None,
        "weights": run.manifest.model.weights,
        "settings": alike.settings_words(run),
        "repeats": found.repeats,
        "failures": ", ".join(f"{n} {what}" for what, n in sorted((found.failures or {}).items())) or None,
        "status": run.manifest.status,
        "imported": run.manifest.imported.by if run.manifest.imported else None,
        "host": run.manifest.host.hostname_hash,
        "notes": NOTE_SEPARATOR.join([*_notes(run, found), *notes]) or None,
        "run": str(run.folder),
    }


def _notes(run: RunResult, point: PointResult) -> list[str]:
    consumed = point.consumed
    own = [*run.manifest.engine.notes, *point.notes, *consumed.notes]
    return [*own, *(consumed.trouble), *_unmeasured(run, consumed)]


def _unmeasured(run: RunResult, consumed: consumption.Consumption) -> list[str]:
    """Why figures of power or energy are missing: the probes' own words where no probe could be used."""
    if run.manifest.engine.device == "remote":
        return list(dict.fromkeys(consumed.reasons.values()))
    sources = [each for each in run.manifest.probes if each.of_energy]
    broken = {each.probe: each.detail for each in sources if not each.usable}
    if consumed.reasons and broken and len(broken) == len(sources):
        return [f"no power or energy: {'; '.join(f'{name}: {why}' for name, why in broken.items())}"]
    missing: dict[str, list[str]] = {}
    for name, why in consumed.reasons.items():
        if why not in consumed.trouble:
            missing.setdefault(_in_words(why, broken), []).append(consumption.WORDS[name])
    return [f"{', '.join(names)} n/a: {why}" for why, names in missing.items()]


def _in_words(why: str, broken: dict[str, str]) -> str:
    """What a probe says of itself instead of that nothing was sampled."""
    probe = "rapl" if "no cpu package energy was sampled" in why else "nvml"
    return f"{probe}: {broken[probe]}" if "energy was sampled" in why and probe in broken else why
