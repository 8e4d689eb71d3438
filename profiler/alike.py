"""Which runs are of the same thing, and on what they were made."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import msgspec

from profiler.host_facts import differences, facts
from profiler.secret import is_credential
from profiler.store import RunResult

ADDRESSED = ("url", "key_env")  # arguments that say where a server is, not how it runs


def same_engine(a: RunResult, b: RunResult) -> bool:
    """Whether two runs measured the same model, routed alike, on the same engine, precision and host, and
    with the same tool: its definitions may be others."""
    return fingerprint(a) == fingerprint(b)


def fingerprint(run: RunResult) -> str:
    """Equal for runs of :func:`same_engine`, so that many runs are grouped without comparing all pairs."""
    manifest = run.manifest
    same = (
        manifest.model.name,
        manifest.engine.kind,
        manifest.engine.version,
        msgspec.json.encode(manifest.scenario.engine, order="sorted").decode(),
        manifest.engine.routing,
        facts(manifest.host),
        (told.by, told.precision) if (told := manifest.imported) else None,
    )
    return sha256(repr(same).encode()).hexdigest()[:16]


def settings_words(run: RunResult) -> str | None:
    """What its engine was asked for beside what has a column: ``dtype=float32 max_num_seqs=64``;
    None where the tool that measured an imported run did not."""
    if run.manifest.imported:
        return None
    asked = run.manifest.scenario.engine
    told = {"dtype": asked.dtype, "max_model_len": asked.max_model_len, **asked.args}
    return " ".join(
        f"{name}={value}"
        for name, value in told.items()
        if value is not None and name not in ADDRESSED and not is_credential(name, value)
    )


def gpu_name(run: RunResult) -> str | None:
    used = set(run.manifest.engine.gpus)
    names = sorted({gpu.name for gpu in run.manifest.host.gpus if gpu.uuid in used})
    return " + ".join(names) or None


def gpus(run: RunResult) -> int | None:
    """How many the engine has; None where the tool that measured an imported run did not say."""
    return len(run.manifest.engine.gpus) or (None if run.manifest.imported else 0)


def host_differences(runs: Sequence[RunResult]) -> list[str]:
    """How the runs' machines and software differ, as lines; empty when all are alike."""
    found: list[str] = []
    for run in runs[1:]:
        for line in differences(runs[0].manifest.host, run.manifest.host):
            text = f"{run.folder.name}: {line}"
            if text not in found:
                found.append(text)
    return found
