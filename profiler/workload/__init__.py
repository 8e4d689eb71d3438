"""(Workload, load, seed, window) → planned requests and their due times: everything a window asks for is
fixed before it begins, and the same every time."""

from profiler.workload.arrivals import Schedule, mean_rate, schedule
from profiler.workload.extent import Extent, extent
from profiler.workload.plan import Plan, PlannedRequest, Talk
from profiler.workload.prompts import WORDS, ordinary_ids
from profiler.workload.trace import Trace, load_trace

__all__ = [
    "WORDS",
    "Extent",
    "Plan",
    "PlannedRequest",
    "Schedule",
    "Talk",
    "Trace",
    "extent",
    "load_trace",
    "mean_rate",
    "ordinary_ids",
    "schedule",
]
