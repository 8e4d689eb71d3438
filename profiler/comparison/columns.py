"""The columns of the table: a public contract (docs/metrics.md); they are added, never renamed."""

from __future__ import annotations

from profiler import consumption, cost, memory, utilisation
from profiler.figures import ENERGY_FACTS, STATISTICS
from profiler.windows import LATENCIES

IDENTITY = (
    "model",
    "kind",
    "engine",
    "scenario",
    "load",
    "concurrency",
    "load_requests_per_s",
    "gpu",
    "gpus",
)
COUNTS = ("requests_ok", "requests_failed")
ESTIMATES = (
    "output_tokens_per_s",
    "requests_per_s",
    *(f"{name}_{statistic}" for name in LATENCIES for statistic in STATISTICS),
    "memory_weights_bytes",
    "memory_kv_bytes",
    "memory_peak_bytes",
    *consumption.ESTIMATES,
    *cost.ESTIMATES,
    "input_tokens_per_s",
    "total_tokens_per_s",
    "input_tokens_mean",
    "output_tokens_mean",
    "offered_requests_per_s",
    "goodput_requests_per_s",
    "slo_met_frac",
    "first_wave_ttft_s_mean",
    "tokens_per_chunk_mean",
    "prefix_cache_hit_frac",
    *utilisation.ESTIMATES,
    "engine_busy_frac",
)
CONTEXT = (
    "first_wave_requests",
    "send_lag_p99_s",
    "client_cpu_frac",
    "loop_lag_p99_s",
    "client_bound",
    "sampler_cpu_frac",
    "sampler_late_s_max",
    "others_cpu_cores",
    "cpu_steal_frac",
    "slo_verdicts",
    "weights",
    "settings",
    "repeats",
    "ci_frac",
    "target_ci_frac",
    "measured_s",
    "failures",
    "status",
    *cost.FACTS,
    "host",
    "imported",
    "runs",
    "notes",
    "run",
)
COLUMNS = (
    *IDENTITY,
    *COUNTS,
    *(name + end for name in ESTIMATES for end in ("", "_low", "_high")),
    *ENERGY_FACTS,
    "energy_trouble",
    *memory.FIGURES,
    *utilisation.FACTS,
    *CONTEXT,
)
ENDS = {name: (f"{name}_low", f"{name}_high") for name in ESTIMATES}

HIGHER_IS_BETTER = (
    "output_tokens_per_s",
    "requests_per_s",
    "total_tokens_per_s",
    "input_tokens_per_s",
    "goodput_requests_per_s",
    "slo_met_frac",
)
# What is put over a baseline's: three columns each, and ``baseline`` says over what.
RATIOS = (
    *("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_requests_per_s"),
    *("ttft_s_p50", "ttft_s_p99", "itl_s_p50", "itl_s_p99", "tpot_s_p50", "e2e_s_p50", "e2e_s_p99"),
    *("memory_peak_bytes", "power_w_mean", "energy_j_per_output_token"),
    *("usd_per_m_output_tokens", "usd_per_request"),
)
AGAINST = (
    "baseline",
    *(f"{name}_ratio{end}" for name in RATIOS for end in ("", "_low", "_high")),
    "ratio_interval",
)
