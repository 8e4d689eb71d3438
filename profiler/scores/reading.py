"""A user's scores: what lm-evaluation-harness wrote, or a CSV file.

JSON: ``results`` → task → ``metric,filter`` beside ``metric_stderr,filter``, as ``lm_eval --output_path``
writes it; the benchmark is called ``task/metric``, with ``,filter`` where there is one.

CSV: ``model,benchmark,score,date,source`` and, where known, ``low,high`` (95 %) or ``stderr`` or ``n`` (the
number of questions of a share), and ``unit``: elo, percent, frac or points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from profiler import stats
from profiler.catalog.scores import Score, Unit, quality
from profiler.errors import InputError

if TYPE_CHECKING:
    import csv

Z95 = 1.959963984540054
SHARES = re.compile(r"acc|exact_match|pass@|pass_at|f1|mc[12]|em$|score_frac|strict_acc|loose_acc")
COSTS = re.compile(r"perplexity|bits_per_byte|brier|wer$|loss")
UNITS: tuple[Unit, ...] = ("elo", "percent", "frac", "points")
WANTED = ("model", "benchmark", "score", "date", "source")
MAX, MAX_N = 1e15, 10**9  # of a score, of its questions
KNOWN = (*WANTED, "low", "high", "stderr", "n", "unit")


def read(path: Path) -> tuple[Score, ...]:
    """The scores of a file, in its order.

    Raises InputError when there is no such file, it is of neither kind, a row is incomplete or a number is
    none, naming the place.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file of scores (lm-evaluation-harness JSON, or CSV)")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    found = tuple(_of_harness(text, path) if text.lstrip().startswith("{") else _of_csv(text, path))
    if not found:
        raise InputError(f"{path}: no scores in it")
    return found


def _of_harness(text: str, path: Path) -> Iterator[Score]:
    try:
        told = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from None
    results = told.get("results")
    if not isinstance(results, dict):
        raise InputError(f"{path}: no 'results' in it; what lm_eval --output_path writes has them")
    model, date = _model(told, path), _date(told.get("date"))
    for task, metrics in results.items():
        samples = _number(_table(_table(told.get("n-samples")).get(task)).get("effective"))
        counted = int(samples) if samples and 1 <= samples <= MAX_N else None
        better = _table(_table(told.get("higher_is_better")).get(task))
        lower = {name for name, up in better.items() if up is False}
        for metric, how, value, stderr in _metrics(metrics):
            if metric in lower or COSTS.search(metric):
                continue  # more of it is worse: no score
            unit: Unit = "frac" if SHARES.match(metric) and 0 <= value <= 1 else "points"
            low, high = bounds(value, unit, stderr, counted)
            yield Score(
                model=model,
                benchmark=f"{task}/{metric}" + (f",{how}" if how != "none" else ""),
                value=value,
                unit=unit,
                low=low,
                high=high,
                n=counted,
                date=date,
                source=path.name,
            )


def _metrics(told: Any) -> Iterator[tuple[str, str, float, float | None]]:
    """Metric, filter, value and standard error of a task; what has no filter (``alias``) is no metric."""
    for name, value in _table(told).items():
        metric, comma, how = name.partition(",")
        number = _number(value)
        if comma and number is not None and not metric.endswith("_stderr"):
            yield metric, how, number, _number(told.get(f"{metric}_stderr,{how}"))


def _table(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _model(told: dict[str, Any], path: Path) -> str:
    """The model as the harness was told it: ``pretrained=`` or ``model=`` of its arguments."""
    arguments = _table(told.get("config")).get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    arguments = _table(arguments)
    for name in (told.get("model_name"), arguments.get("pretrained"), arguments.get("model")):
        if isinstance(name, str) and name:
            return name
    raise InputError(f"{path}: does not say which model it is of (model_name, or pretrained= in model_args)")


def _date(stamp: Any) -> str | None:
    from datetime import UTC, datetime

    number = _number(stamp)
    if number is None:
        return stamp if isinstance(stamp, str) else None
    try:
        return datetime.fromtimestamp(number, UTC).date().isoformat()
    except (ValueError, OverflowError, OSError):
        return None


def _number(value: Any) -> float | None:
    """A finite number; None for what the harness writes in its place (``N/A``, NaN)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -MAX < value < MAX:
        return None
    return float(value)


def bounds(
    value: float, unit: Unit, stderr: float | None, n: int | None
) -> tuple[float | None, float | None]:
    """The 95 % interval: ± 1.96 standard errors, or of a share of ``n`` questions its Clopper–Pearson
    interval, which is not nothing where all or none were solved; None where neither is known."""
    if stderr is not None and stderr > 0:
        return value - Z95 * stderr, value + Z95 * stderr
    full = {"frac": 1.0, "percent": 100.0}.get(unit)
    if full is None or n is None or n < 1:
        return None, None
    found = stats.fraction(value / full * n, n)
    return stats.scaled(found, full).low, stats.scaled(found, full).high


def _of_csv(text: str, path: Path) -> Iterator[Score]:
    import csv
    import io

    table = csv.DictReader(io.StringIO(text, newline=""))
    try:
        yield from _of_table(table, path)
    except csv.Error as error:
        raise InputError(f"{path}, line {table.line_num}: damaged: {error}") from None


def _of_table(table: csv.DictReader[str], path: Path) -> Iterator[Score]:
    given = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = given
    missing = [name for name in WANTED if name not in given]
    unknown = [" ".join(name.split())[:40] for name in given if name not in KNOWN]
    if missing or unknown:
        wrong = f"no column {', '.join(missing)}" if missing else f"unknown column {', '.join(unknown)}"
        raise InputError(f"{path}: {wrong}; a file of scores has {','.join(WANTED)} and, where known, "
                         "low,high or stderr or n, and unit")  # fmt: skip
    rows = [(table.line_num, _cells(row, path, table.line_num)) for row in table]
    sizes: dict[str, list[float]] = {}
    seen: set[tuple[str, str, str]] = set()
    for line, row in rows:
        key = (row["model"].lower(), row["benchmark"], row["date"])
        if key in seen:
            raise InputError(f"{path}, line {line}: a second score of {row['model'][:40]} of that date")
        seen.add(key)
        sizes.setdefault(row["benchmark"], []).append(abs(_number_in(row, "score", path, line) or 0.0))
    for line, row in rows:
        yield _row(row, sizes[row["benchmark"]], path, line)


def _cells(row: dict[Any, Any], path: Path, line: int) -> dict[str, str]:
    if None in row:
        raise InputError(f"{path}, line {line}: more cells than columns")
    cells = {name: (text or "").strip() for name, text in row.items()}
    empty = [name for name in WANTED if not cells[name]]
    if empty:
        raise InputError(f"{path}, line {line}: no {', '.join(empty)}")
    return cells


def _row(row: dict[str, str], sizes: Sequence[float], path: Path, line: int) -> Score:
    unit = _unit(row, sizes, path, line)
    value = _number_in(row, "score", path, line) or 0.0
    if value < 0 and unit in ("frac", "percent"):
        raise InputError(f"{path}, line {line}: {value:g} is no {unit}: a share is not below 0")
    low, high, n = (_number_in(row, name, path, line) for name in ("low", "high", "n"))
    if (low is None) != (high is None):
        raise InputError(f"{path}, line {line}: an interval has both ends, low and high")
    if low is not None and high is not None and not low <= value <= high:
        raise InputError(f"{path}, line {line}: score {value} lies outside its interval [{low}, {high}]")
    count = None if n is None else int(n)
    if low is None:
        low, high = bounds(value, unit, _number_in(row, "stderr", path, line), count)
    return Score(
        model=row["model"],
        benchmark=row["benchmark"],
        value=value,
        low=low,
        high=high,
        n=count,
        unit=unit,
        date=row["date"],
        source=row["source"],
    )


def _unit(row: dict[str, str], sizes: Sequence[float], path: Path, line: int) -> Unit:
    """As given; else the catalog's of that benchmark; else by the name and size of its scores."""
    told, largest = row.get("unit") or _usual(row["benchmark"], max(sizes)), max(sizes)
    if told == "percent" and not row.get("unit") and any(0 < size <= 1 for size in sizes):
        raise InputError(
            f"{path}, line {line}: are the scores of {row['benchmark'][:40]} shares of 1 or of 100? "
            "give a column unit: frac or percent"
        )
    for unit in UNITS:
        if unit == told:
            limit = {"frac": 1.0, "percent": 100.0}.get(unit, math.inf)
            if largest > limit:
                raise InputError(f"{path}, line {line}: {largest:g} is more than a {unit} can be")
            return unit
    raise InputError(f"{path}, line {line}: unit {told[:40]!r} is none of {', '.join(UNITS)}")


def _usual(benchmark: str, largest: float) -> Unit:
    known = next((score.unit for score in quality() if score.benchmark == benchmark), None)
    if known:
        return known
    if re.search(r"(?<![a-z])elo(?![a-z])", benchmark.lower()):
        return "elo"
    return "frac" if largest <= 1 else "percent" if largest <= 100 else "points"


def _number_in(row: dict[str, str], name: str, path: Path, line: int) -> float | None:
    text = row.get(name, "")
    try:
        value = float(text) if text else None
    except ValueError:
        value = math.nan
    if value is not None and not -MAX < value < MAX:
        raise InputError(f"{path}, line {line}: {name} {text[:40]!r} is no number")
    if value is not None and name in ("stderr", "n") and value <= 0:
        raise InputError(f"{path}, line {line}: {name} {text[:40]} must be positive")
    if value is not None and name == "n" and value != int(value):
        raise InputError(f"{path}, line {line}: n {text[:40]} must be a whole number")
    return value
