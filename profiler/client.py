"""How the load generator itself did: what a window's figures owe to it, and what it adds to the truth."""

from __future__ import annotations

from msgspec import Struct


class Clock(Struct, frozen=True, kw_only=True):
    """Another machine that sent a part of a window's load.  Its clock was ``ahead_s`` of this one's, which is
    taken off, and may during the window have been ahead by ``bound_s`` more or less."""

    machine: str
    ahead_s: float
    bound_s: float


class ClientAudit(Struct, frozen=True, kw_only=True):
    """How the load generator itself did during one window.

    Of several ``processes`` the busiest ``cpu_frac`` (of one core) and the worst lags, and all chunks.
    ``bound_by`` says in words what of the client's own slowness is in the window's figures; empty: nothing.
    ``clocks``: of the other machines that sent; none: all was sent from one.
    """

    cpu_frac: float | None
    loop_lag_p99_s: float | None
    send_lag_p99_s: float | None
    chunks: int
    loop_lag_max_s: float | None = None
    processes: int = 1
    bound_by: tuple[str, ...] = ()
    clocks: tuple[Clock, ...] = ()


class Calibration(Struct, frozen=True, kw_only=True):
    """What this machine's load generator adds to the truth: it measured a server whose emission times are
    known exactly.  Errors are measured / true − 1; None where too little was seen to tell.

    ``chunks_per_s`` and ``concurrency`` are the load it was done at, ``server_late_p99_s`` how far behind its
    own plan that server was (which is not in the errors: truth is what it did, not what it planned).
    """

    chunks_per_s: float
    concurrency: int
    requests: int
    chunks: int
    ttft_mean_error_frac: float | None
    ttft_p99_error_frac: float | None
    ttft_mean_error_s: float | None
    itl_mean_error_frac: float | None
    itl_p99_error_frac: float | None
    server_late_p99_s: float | None
    client_cpu_frac: float | None
    client_cpu_s_per_chunk: float | None
