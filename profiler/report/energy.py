"""The energy table, below the cost table wherever energy was measured: what was drawn, within which boundary,
how far it may be off, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from profiler.charts.words import NA, significant
from profiler.report.table import WHICH, Row, Shown, load_text, number, with_interval

FLAG = "⚑"
BOUNDARIES = {"gpu": "the boards (NVML)", "cpu package": "the CPU packages (RAPL)"}
BOUNDARIES["cpu package + dram"] = "the CPU packages and their memory (RAPL)"


def _per_token(row: Row, column: str) -> str:
    """J/token, flagged where something speaks against it."""
    return with_interval(row, column) + (f" {FLAG}" if row["energy_trouble"] else "")


def _idle(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{significant(row[column])} ({row['idle_kind']})"


def _off_by(row: Row, column: str) -> str:
    return NA if row[column] is None else f"{row[column] * 100:.2g}%"


def _throttled(row: Row, column: str) -> str:
    """Shares of the window by cause."""
    shares = {"heat": row[column], "power": row["throttled_power_frac"]}
    if all(share is None for share in shares.values()):
        return NA
    return ", ".join(f"{why} {share:.0%}" for why, share in shares.items() if share) or "no"


SHOWN = (
    *WHICH,
    Shown("W", "power_w_mean", number, marks_best=True),
    Shown("idle W", "power_idle_w", _idle),
    Shown("J/token", "energy_j_per_output_token", _per_token, marks_best=True),
    Shown("± window", "energy_statistical_frac", _off_by),
    Shown("± sensor", "energy_systematic_frac", _off_by),
    Shown("net", "energy_net_j_per_output_token", with_interval, marks_best=True),
    Shown("marginal", "energy_marginal_j_per_output_token", with_interval),
    Shown("host", "energy_host_j_per_output_token", with_interval, marks_best=True),
    Shown("facility", "energy_facility_j_per_output_token", with_interval, marks_best=True),
    Shown("counter J", "energy_counter_j", number, spare=True),
    Shown("integral J", "energy_integral_j", number, spare=True),
    Shown("apart", "energy_disagreement_frac", _off_by),
    Shown("throttled", "throttled_thermal_frac", _throttled),
    Shown("°C", "temperature_c_mean", number, spare=True),
)


def measured(rows: Sequence[Row]) -> list[Row]:
    """The rows in which any energy was read."""
    return [
        row for row in rows if row["energy_counter_j"] is not None or row["energy_integral_j"] is not None
    ]


def footnotes(rows: Sequence[Row]) -> list[str]:
    """What the figures of ``measured`` rows mean; what is missing and why is among the notes of the rows."""
    return [_boundary_note(rows), *_pue_notes(rows), *_flags(rows)]


def _boundary_note(rows: Sequence[Row]) -> str:
    what = dict.fromkeys(BOUNDARIES[row["energy_boundary"]] for row in rows)
    return (
        f"energy of {' or '.join(what)}; ± window: 95 % of one window's reading, ± sensor: its gain, on top "
        "of that; net: less idle W; host: boards, CPU packages and memory"
    )


def _pue_notes(rows: Sequence[Row]) -> list[str]:
    used = sorted({row["pue"] for row in rows if row["energy_facility_j_per_output_token"] is not None})
    return [f"facility: host × PUE {', '.join(f'{pue:g}' for pue in used)}, as given"] if used else []


def _flags(rows: Sequence[Row]) -> Iterator[str]:
    """One line for all that is flagged: the notes say what it is."""
    flagged = [f"{row['model']} at {load_text(row)}" for row in rows if row["energy_trouble"]]
    if flagged:
        yield f"{FLAG} energy of {', '.join(flagged)} is doubtful or refused: see the notes above"
