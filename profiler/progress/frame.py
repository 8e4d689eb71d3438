"""What a terminal shows of a run under way: at most eight lines, none wider than the terminal.

    tiny-moe                                                        window 9 of 28
    concurrency 8 (load 3 of 7), repeat 2                         about 12:30 left
    measuring  ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━━━━  12 of 20 s
    tokens/s   1,234 ▁▂▅▇▇▆▇▇▇▆▇▇▇▇▇▇▇▇▇▇▇▇        answered  124, 2 failed
    requests   8 running, 0 waiting                KV cache  34%
    power      512 W ▁▂▂▃▃▄▄▄▅▅▅▅▅▅▅▅▅▅▅▅▅▅        hottest   61 °C
    so far     ±2.4% after 3 windows, asked ±2%
    ⚠ clocks held back: software power cap

What cannot be read is ``n/a``; what is not there just now is ``–``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from profiler.charts.words import NA, one_line
from profiler.loadgen.job import Progress
from profiler.progress import words
from profiler.progress.readings import Readings
from profiler.progress.standing import Standing

if TYPE_CHECKING:
    from rich.text import Text

WIDEST, TWO_COLUMNS, FEWEST = 100, 72, 20
RIGHT = 29  # of the right column
LABEL = 11
NOT_NOW = "–"
BLOCKS = "▁▂▃▄▅▆▇█"
DONE, EDGE, TO_DO = "━", "╺", "━"
QUIET, STRONG, BAD = "dim", "bold", "yellow"

Styled = tuple[str, str]


def frame(now: Standing, watts: Sequence[float], width: int) -> list[Text]:
    """The lines for a terminal of this ``width``; ``watts`` are the power readings so far."""
    inside = max(FEWEST, min(width - 1, WIDEST))
    readings = now.readings()
    lines = [
        _apart([(one_line(now.model) or "starting", STRONG)], _windows(now), inside),
        _apart([(_load(now), "")], words.time_left(now.left_s()), inside),
        _step(now, inside),
        *_cells(now, readings, watts, inside),
    ]
    bad = list(words.alarms(readings))
    if bad:
        lines.append(_cut([(" · ".join(bad), BAD)], inside))
    return lines


def _windows(now: Standing) -> str:
    number = now.held + (now.slot is not None)
    if now.ahead is None:
        return ""
    if now.left is None:
        return f"window {number}, searching" if number else "searching"
    if now.left == 0 and now.slot is None:
        return "window held" if now.held == 1 else f"all {now.held} windows held"
    about = "about " if now.ahead.target_frac is not None and now.left else ""
    return f"window {max(number, 1)} of {about}{now.held + now.left}"


def _load(now: Standing) -> str:
    if now.ahead is None:
        return ""
    if now.slot is None:
        loads = len(now.ahead.points)
        many = f", {loads} load{'s' * (loads != 1)}" if loads else ""
        return one_line(f"{now.ahead.scenario}, {now.ahead.engine}{many}")
    number = now.load_number()
    which = f" (load {number} of {len(now.ahead.points)})" if number else ""
    return f"{words.load_words(now.slot.point)}{which}, repeat {now.slot.repeat + 1}"


def _step(now: Standing, width: int) -> Text:
    progress = now.progress_now
    if progress is None:
        since_s = (time.perf_counter_ns() - now.since_ns) / 1e9
        tells_time = " · " in now.step and now.step.endswith(" s")  # as the start of an engine does
        return _apart([(one_line(now.step), "")], "" if tells_time else words.clock(since_s), width)
    if progress.decoded_frac is not None:
        frac, told = progress.decoded_frac, f"{progress.decoded_frac:.0%}"
    else:
        frac = progress.elapsed_s / progress.expected_s if progress.expected_s else 0.0
        told = f"{progress.elapsed_s:.0f} of {progress.expected_s:.0f} s"
    room = width - LABEL - len(told) - 2
    return _cut([(f"{progress.phase:<{LABEL}}", ""), *bar(frac, room), (f"  {told}", QUIET)], width)


def _cells(now: Standing, readings: Readings, watts: Sequence[float], width: int) -> Iterator[Text]:
    """Two columns; in a narrow terminal the right one follows the left one, as far as there is room."""
    progress = now.progress_now
    room = min(24, width - RIGHT - LABEL - 14) if width >= TWO_COLUMNS else 0
    in_flight = f"{progress.in_flight} in flight" if progress else NOT_NOW
    rows: list[tuple[str, list[Styled], str, list[Styled]]] = [
        ("tokens/s", _speed(now, room), "answered", _answered(progress)),
        (
            "requests",
            [(_queue(readings) or in_flight, "")],
            "KV cache",
            _value(readings.kv_used_frac, words.used),
        ),
        (
            "power",
            _power(readings, sparkline(watts, room)),
            "hottest",
            _value(readings.hottest_c, "{:.0f} °C".format),
        ),
    ]
    for name, value, other, its in rows:
        left = [(f"{name:<{LABEL}}", QUIET), *value]
        right = [(f"{other:<{LABEL - 1}}", QUIET), *its]
        if width >= TWO_COLUMNS:
            yield _beside(left, right, width)
        else:
            yield _cut([*left, ("  ", ""), *right], width)
    yield _cut([(f"{'so far':<{LABEL}}", QUIET), *_so_far(now)], width)


def _speed(now: Standing, room: int) -> list[Styled]:
    if now.rate is None:
        return [(NOT_NOW, QUIET)]
    return [(f"{now.rate:,.0f} ", STRONG), (sparkline(now.rates, room), "cyan")]


def _answered(progress: Progress | None) -> list[Styled]:
    if progress is None:
        return [(NOT_NOW, QUIET)]
    return [(f"{progress.done:,}", ""), (f", {progress.failed:,} failed" if progress.failed else "", BAD)]


def _power(readings: Readings, spark: str) -> list[Styled]:
    if readings.power_w is None:
        return [(NA, QUIET)]
    return [(words.power_words(readings), ""), (f" {spark}", "cyan")]


def _queue(readings: Readings) -> str:
    if readings.running is None or readings.waiting is None:
        return ""
    return f"{readings.running:,.0f} running, {readings.waiting:,.0f} waiting"


def _value(value: float | None, said: Callable[[float], str]) -> list[Styled]:
    return [(NA, QUIET) if value is None else (said(value), "")]


def _so_far(now: Standing) -> list[Styled]:
    target = now.ahead.target_frac if now.ahead else None
    asked = "" if target is None else f", asked ±{100 * target:.3g}%"
    last = now.last_known()
    if last is None:
        return [(f"no interval yet{asked}", QUIET)]
    point, known = last
    of_other = "" if now.slot and now.slot.point == point else f"{words.load_words(point)}: "
    is_reached = target is None or (known.half_frac or 0.0) <= target
    said = words.precision_words(known.half_frac, known.windows)
    return [
        (of_other, QUIET),
        (said, "" if target is None else "green" if is_reached else BAD),
        (asked, QUIET),
    ]


def bar(frac: float, width: int) -> list[Styled]:
    """So much of ``width`` done."""
    done = round(max(0.0, min(1.0, frac)) * width)
    edge = EDGE if done < width else ""
    return [(DONE * done, "green"), (edge, QUIET), (TO_DO * max(0, width - done - 1), QUIET)]


def sparkline(values: Iterable[float], width: int) -> str:
    """The last ``width`` values, from 0 to the largest of them."""
    shown = list(values)[-width:] if width > 0 else []
    most = max(shown, default=0.0)
    if most <= 0:
        return BLOCKS[0] * len(shown)
    return "".join(BLOCKS[min(7, int(max(0.0, value) / most * 8))] for value in shown)


def _apart(left: list[Styled], right: str, width: int) -> Text:
    """The one at the left edge and the other at the right one; the left is cut first."""
    room = width - len(right) - 2
    if not right or room < FEWEST // 2:
        return _cut(left, width)
    line = _cut(left, room)
    line.pad_right(width - line.cell_len - len(right))
    return line.append(right, QUIET)


def _beside(left: list[Styled], right: list[Styled], width: int) -> Text:
    line = _cut(left, width - RIGHT - 1)
    line.pad_right(width - RIGHT - line.cell_len)
    return line.append_text(_cut(right, RIGHT))


def _cut(parts: list[Styled], width: int) -> Text:
    """One line, an ellipsis where it had to end early."""
    from rich.text import Text

    line = Text.assemble(*parts, no_wrap=True)
    line.truncate(width, overflow="ellipsis")
    return line
