"""What a user writes: the plan of a measurement, as in ``scenarios/*.toml``.  Imports nothing of ours.

Names end in their unit.  Every table refuses keys it does not know.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

Count = Annotated[int, Meta(ge=1)]
Whole = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0)]
Span = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything a user writes in TOML: a key we do not know is an error, not a comment."""


class Length(Settings, frozen=True, kw_only=True):
    """A token length (or a number of turns) drawn uniformly from mean·[1 − spread, 1 + spread]; spread 0 is
    exact."""

    mean: Count
    spread: Fraction = 0.0


class Pause(Settings, frozen=True, kw_only=True):
    """A time drawn uniformly from mean_s·[1 − spread, 1 + spread]."""

    mean_s: Span
    spread: Fraction = 0.0


class Share(Settings, frozen=True, kw_only=True):
    """One kind of request in a mix, drawn with probability weight / sum of weights."""

    name: str
    weight: Positive
    input_tokens: Count | Length
    output_tokens: Count | Length


class Conversation(Settings, frozen=True, kw_only=True):
    """Requests come in conversations: each turn's prompt is all that was said before, answers included,
    and ``input_tokens`` of its own; ``think_s`` passes between an answer and the next turn."""

    turns: Count | Length
    think_s: Span | Pause = 0.0


class Images(Settings, frozen=True, kw_only=True):
    """Synthetic pictures in every prompt, ``width`` × ``height`` pixels each, fresh ones each time."""

    width: Count
    height: Count
    count: Count = 1


class Workload(Settings, frozen=True, kw_only=True):
    """What each request asks: prompt and answer lengths in tokens, and the seed that fixes them all.

    ``mix`` takes the place of the two lengths, and so does the trace of a replay.  The first
    ``shared_prefix_tokens`` of a prompt are the same for all requests of one of ``prefix_groups`` groups.
    """

    input_tokens: Count | Length | None = None
    output_tokens: Count | Length | None = None
    shared_prefix_tokens: Whole = 0
    prefix_groups: Count = 1
    mix: tuple[Share, ...] = ()
    conversation: Conversation | None = None
    images: Images | None = None
    seed: Whole = 0


LoadMode = Literal["closed", "batch", "open", "replay"]


class Stage(Settings, frozen=True, kw_only=True):
    """A stretch of an open loop: a step at ``requests_per_s``, or a ramp from it to ``to_requests_per_s``."""

    for_s: Seconds
    requests_per_s: Positive
    to_requests_per_s: Positive | None = None


class Load(Settings, frozen=True, kw_only=True):
    """How requests are offered.

    ``closed``: each of ``concurrency`` slots sends its next request when the last one has ended and
    ``think_s`` has passed.
    ``batch``: ``requests`` prompts are sent at once and run to the end (offline throughput).
    ``open``: requests are due at a mean rate of ``requests_per_s`` whatever the server does, one load point
    each; or as the ``stages`` say, which are one load point.  Gaps are constant, exponential (``poisson``)
    or gamma distributed with shape ``burstiness`` (1 is Poisson; below 1 they come in bursts).
    ``replay``: requests are due, and as long, as in the file ``trace`` (its first ``requests`` rows);
    ``time_scale`` 2 takes twice as long.
    ``processes``: load processes on each machine; None: as many as it takes, as far as there are cores.
    ``machines``: how many send together, the engine's own among them; the others are of its Ray cluster.
    """

    mode: LoadMode = "closed"
    concurrency: tuple[Count, ...] = (1,)
    think_s: Span | Pause = 0.0
    requests: Count | None = None
    requests_per_s: tuple[Positive, ...] = ()
    stages: tuple[Stage, ...] = ()
    arrivals: Literal["poisson", "constant", "gamma"] = "poisson"
    burstiness: Positive = 1.0
    trace: str | None = None
    time_scale: Positive = 1.0
    processes: Count | None = None
    machines: Count = 1


class Measure(Settings, frozen=True, kw_only=True):
    """How long to look.  A closed-loop window ends at the first whole multiple of ``window_s`` by which
    ``min_requests``, and one request a slot on average, were completed in it; or at ``max_window_s``.

    ``repeats``: so many windows of each load; None: as many as it takes until half the interval is within
    ``target_ci_frac`` of the figure, or ``max_seconds`` are spent on one load of one model, warm-up and all
    (None: ten times ``window_s``, or three windows where they take longer; ``adaptive``).
    """

    warmup_s: Annotated[float, Meta(ge=0)] = 5.0
    window_s: Seconds = 30.0
    max_window_s: Seconds = 300.0
    min_requests: Whole = 10
    repeats: Count | None = None
    target_ci_frac: Annotated[float, Meta(gt=0, lt=1)] = 0.02
    max_seconds: Seconds | None = None
    residency: Literal["auto", "resident", "exclusive"] = "auto"


class Timeouts(Settings, frozen=True, kw_only=True):
    """Every wait is finite; a request that exceeds one ends with a named outcome."""

    connect_s: Seconds = 10.0
    first_token_s: Seconds = 300.0
    gap_s: Seconds = 120.0
    total_s: Seconds = 3600.0


class EngineSettings(Settings, frozen=True, kw_only=True):
    """Which engine and how.  ``args`` go to the engine as they are (``max_num_seqs = 64``).

    ``routing``: how the tokens of a MoE find their experts.  ``model``: by its own router; ``uniform``: every
    expert as likely as any other; ``skew=1.1``: with that coefficient of variation of the experts' loads;
    ``auto``: ``model`` where the weights are trained ones, ``uniform`` where they are random.  Of several,
    each is a run of its own, interleaved with the others.
    """

    kind: Literal["auto", "vllm", "transformers", "endpoint", "simulated"] = "auto"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel: Count | None = None
    max_model_len: Count | None = None
    routing: str | tuple[str, ...] = "auto"
    start_timeout_s: Seconds = 1800.0
    args: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str] = field(default_factory=dict)


class Search(Settings, frozen=True, kw_only=True):
    """Let the tool choose the load points: ``capacity`` is the highest load under which ``slo`` is kept,
    ``knee`` the load beyond which more load brings waiting and little else.  The load is the rate of an open
    loop, or the concurrency of a closed one."""

    find: Literal["capacity", "knee"]
    resolution_frac: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    max_probes: Count = 16


class Telemetry(Settings, frozen=True, kw_only=True):
    """What is read of the machine beside the load, as far as it can be read.

    ``devices``: GPUs by NVML index, UUID or the beginning of one; empty: those that the engine uses.
    ``idle_s``: how long each idle baseline is held, 0 for none.  ``warm_max_s``: for how long at most,
    over all loads of an engine start, a load is held before it is measured, until the boards' temperature
    is steady.
    ``pue``: energy the building takes over energy the machine takes; None: the building is left out.
    """

    devices: tuple[Whole | str, ...] = ()
    idle_s: Span = 10.0
    warm_max_s: Span = 120.0
    pue: Annotated[float, Meta(ge=1)] | None = None


class Routing(Settings, frozen=True, kw_only=True):
    """Where the experts of a MoE are used: recorded in a pass of its own, outside every window.

    ``record``: ``auto`` where the engine can, ``on`` fails where it cannot, ``off``.  The pass sends
    ``requests`` prompts of the workload, cut to ``max_input_tokens``, with ``max_output_tokens`` each: few
    prompts make experts look dead that are not.
    """

    record: Literal["auto", "on", "off"] = "auto"
    requests: Count = 100
    max_input_tokens: Count = 128
    max_output_tokens: Count = 32


class Scenario(Settings, frozen=True, kw_only=True):
    """One measurement plan, as written in ``scenarios/*.toml``.

    ``slo`` holds limits in seconds by name: ``ttft_p99_s = 0.5`` asks that 99 % of the requests have their
    first token within half a second.  More than ``max_failed_frac`` failed requests fail the run.
    """

    name: str
    about: str
    workload: Workload
    load: Load
    measure: Measure = field(default_factory=Measure)
    timeouts: Timeouts = field(default_factory=Timeouts)
    engine: EngineSettings = field(default_factory=EngineSettings)
    telemetry: Telemetry = field(default_factory=Telemetry)
    routing: Routing = field(default_factory=Routing)
    slo: dict[str, Seconds] = field(default_factory=dict)
    search: Search | None = None
    max_failed_frac: Fraction = 0.01

    @property
    def is_adaptive(self) -> bool:
        """Whether the windows so far decide if there is another.  A search has reasons of its own."""
        return self.measure.repeats is None and self.search is None
