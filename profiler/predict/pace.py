"""How long a GPU takes for what it has to do, and what power that draws: the model and its coefficients.

One step of one GPU takes, summed over its operations (all times in s):

    ((read / (BW·η))^p + (FLOPs / (F·η))^p)^(1/p)     p → ∞: perfectly overlapped; p = 1: one after the other
    + kernels · kernel_s + step_s                      what does not shrink with the work
    + sequences · sequence_s + logits · logit_bytes / BW    bookkeeping, and sampling from the vocabulary
    + sums · reduce_s + sent / (link · η)              exchanges between GPUs

and draws  TDP · softmin(1, idle + a·read/(BW·t) + b·u/(u + ½K))  with u = FLOPs/(F·t).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from profiler.predict.demand import Demand
from profiler.predict.nouns import Deployment
from profiler.roofline import bytes_per_s, flops_per_s, link_bytes_per_s

FP8_RATE = 0.88  # of the share of their peak that bf16 products reach: measured .709 / .803 on H100 (MAMF)
HALF_COMPUTE = 0.2  # matrix utilisation at which half of what computing adds to the power is reached
CAP_SHARPNESS = 8
# Small tiles of grouped products (64 × 64) do 32 FLOPs for a byte from the level-2 cache, which brings every
# SM 64 bytes a clock, on an A100 as on an H100.  An H100's tensor cores (4096 FLOPs a clock) wait for that,
# narrower ones less: this is what an A100's 108 SMs would do at 1.41 GHz if they were as wide as an H100's.
FULL_WIDTH_TFLOPS = 4096 * 108 * 1.41e-3


class Coefficients(Struct, frozen=True, kw_only=True):
    """All positive; meanings, units and sources in ``priors.toml``."""

    weight_bandwidth_frac: float
    cache_bandwidth_frac: float
    matrix_rate_frac: float
    expert_bandwidth_frac: float
    expert_rate_frac: float
    overlap_power: float
    kernel_s: float
    eager_kernel_s: float
    step_s: float
    sequence_s: float
    logit_bytes: float
    reduce_s: float
    link_frac: float
    request_s: float
    expert_load_cv: float
    model_factor: float
    idle_power_frac: float
    bandwidth_power_frac: float
    compute_power_frac: float
    board_factor: float


class Pace(Struct, frozen=True, kw_only=True):
    """Seconds of a step by what they are spent on; ``total_s`` is their sum, or Python's own time where that
    is longer."""

    bandwidth_s: Any
    compute_s: Any
    launch_s: Any
    communication_s: Any
    total_s: Any


def pace(what: Deployment, work: Demand, c: Coefficients) -> Pace:
    """Raises InputError where the GPU's sheet lacks bandwidth or rate."""
    bandwidth, rate = bytes_per_s(what.gpu), flops_per_s(what.gpu, what.widths.compute)
    if what.widths.compute == "fp8" and what.gpu.fp8_tflops:
        rate *= FP8_RATE
    grouped = grouped_frac(what, c)
    reading: Any = 0.0
    working: Any = 0.0
    for part in work.parts:
        read, product = _seconds(part, bandwidth, rate, c, grouped)
        longer = (read**c.overlap_power + product**c.overlap_power) ** (1 / c.overlap_power)
        share = longer / (read + product + 1e-30)
        reading, working = reading + read * share, working + product * share
    reading = reading + work.logits * c.logit_bytes / bandwidth
    launch = work.kernels * c.kernel_s + c.step_s + work.sequences * c.sequence_s
    link = link_bytes_per_s(what.gpu) * c.link_frac
    sending = work.sums * c.reduce_s + (work.sent_bytes / link if work.sums else 0.0)
    return _paced(what, work, c, (reading, working, launch, sending))


def grouped_frac(what: Deployment, c: Coefficients) -> Any:
    """Rate of grouped products over that of dense ones: as fitted to H100, more on narrower tensor cores."""
    import numpy as np

    return np.minimum(c.expert_rate_frac * narrower(what), np.maximum(1.0, c.expert_rate_frac))


def narrower(what: Deployment) -> float:
    """How many times wider an H100's tensor cores are; 1 where these are as wide, or wider."""
    return max(1.0, FULL_WIDTH_TFLOPS / (what.gpu.dense_bf16_tflops or FULL_WIDTH_TFLOPS))


def _seconds(part: Any, bandwidth: float, rate: float, c: Coefficients, grouped: Any) -> tuple[Any, Any]:
    streaming, computing = c.weight_bandwidth_frac, c.matrix_rate_frac
    if part.routed:
        streaming, computing = streaming * c.expert_bandwidth_frac, computing * grouped
    read = part.streamed_bytes / (bandwidth * streaming)
    read = read + part.cache_bytes / (bandwidth * c.cache_bandwidth_frac)
    return read, part.flops / (rate * computing)


def _paced(what: Deployment, work: Demand, c: Coefficients, spent: tuple[Any, ...]) -> Pace:
    import numpy as np

    reading, working, launch, sending = (each * c.model_factor for each in spent)
    total = reading + working + launch + sending
    if what.execution == "eager":  # Python runs ahead of the GPU, or the GPU waits for Python
        host = work.kernels * c.eager_kernel_s * c.model_factor
        launch = launch + np.maximum(0.0, host - total)
        total = np.maximum(total, host)
    return Pace(
        bandwidth_s=reading, compute_s=working, launch_s=launch, communication_s=sending, total_s=total
    )


def power_w(what: Deployment, bandwidth_used: Any, rate_used: Any, c: Coefficients) -> Any:
    """Of one GPU at these shares of its memory bandwidth and matrix rate; None without a TDP."""
    if not what.gpu.tdp_w:
        return None
    drawn = c.idle_power_frac + c.bandwidth_power_frac * bandwidth_used
    drawn = drawn + c.compute_power_frac * rate_used / (rate_used + HALF_COMPUTE)
    capped = (drawn**-CAP_SHARPNESS + 1.0) ** (-1 / CAP_SHARPNESS)
    return what.gpu.tdp_w * capped * c.board_factor
