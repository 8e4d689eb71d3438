"""The nouns: frozen records that everything else passes around; what a user writes is in ``settings``.

Names end in their unit.  ``None`` means "not measured" or "does not apply" and never 0.
Times named ``*_ns`` are CLOCK_MONOTONIC nanoseconds (``time.perf_counter_ns``), one clock for all
processes of a host.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from profiler.checksums import Checksums
from profiler.client import Calibration, ClientAudit
from profiler.settings import EngineSettings, LoadMode, Scenario

SCHEMA_VERSION = 2

# ---------------------------------------------------------------------------------- what to run


class LoadPoint(Struct, frozen=True, kw_only=True):
    """One point of the load axis.  For ``batch`` the concurrency is the number of prompts; for ``open`` and
    ``replay`` it is None and ``requests_per_s`` is the mean rate at which requests are due."""

    mode: LoadMode
    concurrency: int | None = None
    requests_per_s: float | None = None


# ---------------------------------------------------------------------------------- the model


class ModelFacts(Struct, frozen=True, kw_only=True):
    """What the architecture implies, before anything is measured.

    ``total_params`` counts every weight of the language model, embeddings included;
    ``active_params`` those a single token's forward pass uses, embeddings included.
    ``kv_bytes_per_token`` is for a 2-byte cache and full attention layers; ``kv_windowed_bytes_per_token``
    for those that keep only the last ``attention_window_tokens``; ``kv_state_bytes_per_sequence`` is the
    fixed state of linear-attention layers.  ``kv_heads`` is 1 where all heads share one latent (MLA).
    ``shared_expert_params`` and ``embedding_params`` (head included) are parts of ``total_params`` beside the
    routed experts, None in run folders that are older than they.  ``missing`` says, in words, what could not
    be counted: the figures are lower bounds then.
    """

    architecture: str
    kind: Literal["moe", "dense"]
    total_params: int
    active_params: int
    routed_expert_params: int
    kv_bytes_per_token: int
    vocab_size: int
    layers: int
    experts: int | None = None
    experts_per_token: int | None = None
    max_context_tokens: int | None = None
    attention_heads: int | None = None
    kv_heads: int | None = None
    kv_windowed_bytes_per_token: int = 0
    attention_window_tokens: int | None = None
    kv_state_bytes_per_sequence: int = 0
    shared_expert_params: int | None = None
    embedding_params: int | None = None
    missing: tuple[str, ...] = ()
    source: str


class Model(Struct, frozen=True, kw_only=True):
    """A resolved model: where its config and weights come from.

    ``config`` is the Hugging Face config (``None`` for an endpoint, whose inside we cannot see);
    ``folder`` a local folder with config (and weights when ``weights`` is ``local``).
    ``weights``: ``hub`` the engine downloads them, ``local`` they lie in ``folder``,
    ``random`` they are drawn from the config, ``remote`` they are the endpoint's own affair, ``unknown``
    where nobody says (imported runs)."""

    name: str
    weights: Literal["hub", "local", "random", "remote", "unknown"]
    config: dict[str, Any] | None = None
    folder: str | None = None
    facts: ModelFacts | None = None
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------- the engine


class Memory(Struct, frozen=True, kw_only=True):
    """The engine's own memory account in bytes, summed over its devices; None where it does not say.

    ``dense_bytes`` … ``embedding_bytes`` are the parts of the weights, counted in the loaded model.
    ``kv_bytes`` is the cache's pool, ``kv_resident_bytes`` how much of it lies in a host's memory.
    ``runtime_bytes``: what the engine holds beside its tensors.  On GPUs all that is outside torch's
    allocator (context, libraries, communication); on a CPU its processes as they were before the model came.
    ``torch_reserved_bytes``: the most that torch's allocator took from the GPUs.
    """

    weights_bytes: int | None = None
    kv_bytes: int | None = None
    kv_tokens: int | None = None
    activation_peak_bytes: int | None = None
    graphs_bytes: int | None = None
    device_total_bytes: int | None = None
    dense_bytes: int | None = None
    routed_expert_bytes: int | None = None
    shared_expert_bytes: int | None = None
    embedding_bytes: int | None = None
    kv_resident_bytes: int | None = None
    runtime_bytes: int | None = None
    torch_reserved_bytes: int | None = None


class EngineFacts(Struct, frozen=True, kw_only=True):
    """What was started: enough to start it again.

    ``routing``: how the tokens of a MoE found their experts while the load was held: ``model`` by its own
    router, ``uniform`` or ``skew=CV`` as we made them; None for a dense model and where nobody knows.
    """

    kind: str
    version: str | None
    device: Literal["cpu", "cuda", "remote", "none"]
    routing: str | None = None
    argv: tuple[str, ...] = ()
    gpus: tuple[str, ...] = ()
    start_s: float | None = None
    weights: str | None = None
    notes: tuple[str, ...] = ()


class Endpoint(Struct, frozen=True, kw_only=True):
    """A running engine as the load generator sees it: an address and how to talk to it.

    ``prompt`` says whether prompts travel as token ids (exact lengths) or as text; ``returns_ids`` and
    ``ignores_eos`` whether it takes those two extensions of the protocol.
    ``pid`` is the root of the engine's process tree on this host, None when it is not ours.
    The API key never reaches a run folder."""

    base_url: str
    model: str
    api_key: str | None = None
    protocol: Literal["completions", "chat"] = "completions"
    prompt: Literal["ids", "text"] = "ids"
    returns_ids: bool = True
    ignores_eos: bool = True
    vocab_size: int | None = None
    pid: int | None = None
    metrics_url: str | None = None


# ---------------------------------------------------------------------------------- what happened

Outcome = Literal[
    "ok",
    "cancelled",  # we closed it after the window: not a failure, not a measurement
    "connect_error",
    "connect_timeout",
    "http_error",
    "first_token_timeout",
    "gap_timeout",
    "total_timeout",
    "reset",
    "stream_error",  # an error event inside a 200 stream
    "malformed",
    "empty",
    "short",  # fewer tokens than asked although the end was to be ignored
    "no_end",  # finish reason or end mark missing
    "failed",  # another tool says so, and not how
]


class RequestRecord(Struct, frozen=True, kw_only=True):
    """One request, raw.

    ``due_ns`` when the schedule wanted it, ``sent_ns`` first byte written (a server that closes connections
    makes it wait for a new one, which is no slowness of the client's), ``first_ns`` and ``last_ns`` first and
    last arrival that carried output tokens, ``done_ns`` end of response.
    ``arrivals_ns[i]`` brought ``arrival_tokens[i]`` output tokens.
    ``input_tokens`` is what we sent (ids) or what the server says (text); ``reported_*`` is ``usage``, and
    ``cached_tokens`` how many of the prompt's tokens ``usage`` says came from a prefix cache.
    ``share`` is the kind of request in a mix, ``turn`` its place in a conversation; both count from 0.
    """

    window: int
    index: int
    due_ns: int
    sent_ns: int | None
    first_ns: int | None
    last_ns: int | None
    done_ns: int | None
    planned_input_tokens: int
    planned_output_tokens: int
    input_tokens: int | None
    output_tokens: int
    reported_input_tokens: int | None
    reported_output_tokens: int | None
    arrivals_ns: list[int]
    arrival_tokens: list[int]
    outcome: Outcome
    error: str | None = None
    status: int | None = None
    cached_tokens: int | None = None
    share: int = 0
    turn: int = 0


class Window(Struct, frozen=True, kw_only=True):
    """One load point held once.  ``steady_*_ns`` bound the steady window that every rate, energy and
    power figure shares; None when the load never became steady (the reason is in ``trouble``)."""

    index: int
    repeat: int
    engine_start: int
    point: LoadPoint
    opened_ns: int
    steady_start_ns: int | None
    steady_end_ns: int | None
    closed_ns: int
    audit: ClientAudit | None = None
    trouble: str | None = None


class Baseline(Struct, frozen=True, kw_only=True):
    """A stretch of time in which nothing was asked of the machine; its power is in the samples.

    ``bare``: before the engine was started.  ``context``: a process held a CUDA context and did nothing.
    ``loaded``: the engine was up, without requests."""

    kind: Literal["bare", "context", "loaded"]
    engine_start: int
    start_ns: int
    end_ns: int


class RoutingRecord(Struct, frozen=True, kw_only=True):
    """Which experts tokens were sent to, recorded in a pass of its own (``records.routing_schema``).
    ``layers``: those that route.  ``source``: what told it.  ``routing`` as in ``EngineFacts``.
    """

    source: str
    routing: str
    requests: int
    tokens: int
    layers: tuple[int, ...]
    experts: int
    experts_per_token: int


MADE_UP = "made up"  # begins the detail of a probe that reads files which somebody wrote, not a machine's
SIMULATED = "(simulated)"  # ends the name of a board that is not there


class ProbeStatus(Struct, frozen=True, kw_only=True):
    """Whether a probe can be used here, and if not, why and what would mend it."""

    probe: str
    usable: bool
    detail: str

    @property
    def made_up(self) -> bool:
        """Whether what it reads is a trial's and no hardware's."""
        return self.detail.startswith(MADE_UP)

    @property
    def of_energy(self) -> bool:
        return self.probe in ("nvml", "rapl")


class Gpu(Struct, frozen=True, kw_only=True):
    uuid: str
    name: str
    memory_bytes: int | None
    power_limit_w: float | None = None

    @property
    def simulated(self) -> bool:
        return self.name.endswith(SIMULATED)


class Host(Struct, frozen=True, kw_only=True):
    """The machine and software of a run; of an imported one's only the GPUs may be known.  ``niceness``: how
    far behind others it stood on the CPUs (setpriority(2))."""

    hostname_hash: str | None
    os: str | None
    cpu: str | None
    cores: int | None
    memory_bytes: int | None
    gpus: tuple[Gpu, ...]
    driver: str | None
    python: str | None
    packages: dict[str, str]
    niceness: int | None = None


class Price(Struct, frozen=True, kw_only=True):
    """What an hour costs: of one GPU, or of the whole machine where it has none.

    ``low``/``high`` span the offers the price was taken from; ``date`` and ``source`` say whose word it is.
    ``kind``: on what terms (``on_demand``, ``spot``, …).  ``currency``: what the offers were in before a rate
    of the user's made USD of them.  ``doubt``: why a price that was given may be a slip, to be told.
    """

    usd_per_hour: Annotated[float, Meta(gt=0)]
    per: Literal["gpu", "machine"]
    source: str
    date: str | None = None
    low_usd_per_hour: float | None = None
    high_usd_per_hour: float | None = None
    kind: str = "on_demand"
    currency: str = "USD"
    doubt: str | None = None


class Estimate(Struct, frozen=True, gc=False):
    """A number with its interval and what it rests on.

    ``low``/``high`` bound the 95 % interval, None where the data cannot bound it.
    ``n`` counts what the interval was taken over and ``over`` names it: "repeats", "batches", "requests".
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    over: str | None = None


class ImportedPoint(Struct, frozen=True, kw_only=True):
    """A load point as another tool summed it up: figures by our names and in our units, without intervals
    unless it gave them.  They stand where its requests, if it kept them, do not tell."""

    point: LoadPoint
    figures: dict[str, Estimate]
    requests_ok: int | None = None
    requests_failed: int | None = None
    notes: tuple[str, ...] = ()


class Imported(Struct, frozen=True, kw_only=True):
    """Where a run comes from that another tool measured; what it did not say is unknown and stays so.
    ``file`` is its name, ``precision`` that of the weights.  ``gaps_known``: whether its records hold the
    time of every token, not of the first and the last alone.  ``EngineSettings`` of such a run say nothing.
    """

    tool: str
    file: str
    sha256: str
    version: str | None = None
    precision: str | None = None
    gaps_known: bool = True
    points: tuple[ImportedPoint, ...] = ()

    @property
    def by(self) -> str:
        return f"{self.tool} {self.version}" if self.version else self.tool


class Manifest(Struct, frozen=True, kw_only=True):
    """``manifest.json``: written last, so that its presence says the run is whole.

    ``group`` is shared by ``group_size`` runs that were interleaved.  ``unix_ns`` and ``clock_ns`` are one
    instant, on calendar and monotonic clock.  ``cut_short``: windows that ended early; no figure is made of
    them.  ``engine`` describes the first start, ``starts_s`` times each; ``engine_from``: the run it is of,
    if another.  ``routing_missing``: why none is.  Old folders lack boot_id, group_size and checksums."""

    schema_version: int
    run_id: str
    group: str
    group_size: int | None = None
    tool_version: str
    status: Literal["running", "complete", "interrupted", "failed"]
    reason: str | None
    utc: str
    unix_ns: int
    clock_ns: int
    boot_id: str | None = None
    scenario: Scenario
    scenario_hash: str
    model: Model
    settings: EngineSettings
    exclusive: bool
    engine: EngineFacts
    memory: Memory
    host: Host
    probes: tuple[ProbeStatus, ...]
    windows: tuple[Window, ...] = ()
    starts_s: tuple[float, ...] = ()
    engine_from: str | None = None
    price: Price | None = None
    calibration: Calibration | None = None
    cut_short: tuple[Window, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    routing: RoutingRecord | None = None
    routing_missing: str | None = None
    imported: Imported | None = None
    checksums: Checksums | None = None
