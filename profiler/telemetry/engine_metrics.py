"""What the engine says of itself: a scrape of the Prometheus ``/metrics`` page of a vLLM server.

Names are ours, with units; the engine's, of 0.6 to now, are in ``METRICS``.  vLLM's
``…_perc`` is a fraction of 1 despite its name.  Counters and queue lengths are summed over engine
replicas, the cache usage is their mean.
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import urlsplit

from profiler.samples import Sample
from profiler.schema import ProbeStatus

TIMEOUT_S = 0.5
MAX_BYTES = 8 << 20

# Ours → the engine's, the preferred one first: 0.9.2 to 0.10.2 write both, and their sum would be double.
METRICS = {
    "kv_cache_usage_frac": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
    "requests_running": ("vllm:num_requests_running",),
    "requests_waiting": ("vllm:num_requests_waiting",),
    "preemptions": ("vllm:num_preemptions_total",),
    "prompt_tokens": ("vllm:prompt_tokens_total",),
    "generation_tokens": ("vllm:generation_tokens_total",),
    "prefix_cache_query_tokens": ("vllm:prefix_cache_queries_total", "vllm:gpu_prefix_cache_queries_total"),
    "prefix_cache_hit_tokens": ("vllm:prefix_cache_hits_total", "vllm:gpu_prefix_cache_hits_total"),
}
KNOWN = {spelling for spellings in METRICS.values() for spelling in spellings}
AVERAGED = {"kv_cache_usage_frac"}
# Before 0.9 blocks were counted under the name that later stands for tokens; only the help says so.
IN_BLOCKS = re.compile(r"^# HELP (\S+) .*\bnumber of \w+ blocks\b", re.MULTILINE)
# name, optional {labels}, value; the optional timestamp after it is not used
LINE = re.compile(r"(?P<name>[A-Za-z_:][\w:]*)(?:\{.*\})?\s+(?P<value>\S+)")


class EngineMetricsProbe:
    """Scrapes one URL; a scrape that fails gives only the running count of failures."""

    def __init__(self, name: str, url: str) -> None:
        self._source = f"engine:{name}"
        self._url = urlsplit(url)
        self._failures = 0
        self._detail = f"{url}: not read yet"
        self._usable = False

    def status(self) -> ProbeStatus:
        """What the last scrape gave."""
        return ProbeStatus(probe="engine metrics", usable=self._usable, detail=self._detail)

    def sample(self) -> Iterator[Sample]:
        """One scrape, stamped halfway between question and answer."""
        import http.client

        before = time.perf_counter_ns()
        try:
            text = self._scrape()
        except (OSError, http.client.HTTPException) as error:
            self._failures += 1
            self._usable, self._detail = False, f"{self._url.geturl()}: {error or type(error).__name__}"
            yield Sample(before, self._source, "scrape_failures", self._failures)
            return
        t_ns = (before + time.perf_counter_ns()) // 2
        values = parse(text)
        self._usable = bool(values)
        self._detail = f"{self._url.geturl()}: {', '.join(values) or 'none of the metrics we know'}"
        for name, value in values.items():
            yield Sample(t_ns, self._source, name, value)

    def _scrape(self) -> str:
        import http.client

        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", self._url.path or "/metrics")
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise http.client.HTTPException(f"HTTP {response.status}")
            return response.read(MAX_BYTES).decode("utf-8", "replace")
        finally:
            connection.close()


def parse(text: str) -> dict[str, float]:
    """Our names and values of a Prometheus text page (exposition format 0.0.4); absent stays absent."""
    read = KNOWN.difference(IN_BLOCKS.findall(text))
    found: defaultdict[str, list[float]] = defaultdict(list)
    for line in text.splitlines():
        if not line.startswith("vllm:") or (match := LINE.match(line)) is None:
            continue
        if match["name"] in read and (value := _number(match["value"])) is not None:
            found[match["name"]].append(value)
    told = {
        name: next((found[each] for each in spellings if each in found), [])
        for name, spellings in METRICS.items()
    }
    sums = {name: sum(each) / (len(each) if name in AVERAGED else 1) for name, each in told.items() if each}
    return {name: value for name, value in sums.items() if _is_finite(value)}


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if _is_finite(value) else None  # NaN and ±Inf are not measurements


def _is_finite(value: float) -> bool:
    return value - value == 0
