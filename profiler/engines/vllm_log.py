"""What an engine's log says of its death, as one line of advice and a few telling lines.

The patterns are vLLM's words (0.11 to 0.33) and those of PyTorch and the Hugging Face libraries below
it, so they serve every local engine.  Order matters: the first pattern that matches anywhere wins, so
a cause stands before the errors it brings about.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable

TELLING_LINES = 8
LINE_CHARS = 300

_PORT_TAKEN = r"[Aa]ddress already in use"

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"error: unrecognized arguments: (?P<what>.+)",
        "it does not know the argument {what}; correct the name in [engine.args]",
    ),
    (
        r"error: argument (?P<what>--[\w/-]+).*?: (?P<why>.+)",
        "it refuses {what} ({why}); correct the value in [engine] or [engine.args]",
    ),
    (
        r"gated repo|GatedRepoError|Access to model .* is restricted",
        "the model is gated; accept its licence on huggingface.co and set HF_TOKEN",
    ),
    (
        r"401 Client Error|RepositoryNotFoundError|Repository Not Found|is not a valid model identifier",
        "no such model on the Hub, or it is private; check the name, or set HF_TOKEN if it is yours",
    ),
    (
        r"couldn't connect to 'https?://|LocalEntryNotFoundError|outgoing traffic has been disabled",
        "the model is not on this machine and the Hub cannot be reached; check the network and the name,"
        " or use --weights random",
    ),
    (
        r"No space left on device|Errno 28",
        "the disk is full; free space, or point HF_HOME and TMPDIR to another disk",
    ),
    (
        r"has model type `(?P<what>[^`]+)` but Transformers does not recognize|"
        r"Model architectures \[(?P<arch>[^\]]+)\] (?:are not supported|failed to be inspected)",
        "this version cannot run the architecture {what}{arch}; update the engine or choose another model",
    ),
    (
        r"trust_remote_code=True",
        "the model brings code of its own; if you trust it set engine.args.trust_remote_code = true",
    ),
    (
        r"[Cc]annot find any model weights with|does not appear to have a file named [^\n]*safetensors",
        "the model folder holds no weights; use --weights random, or a folder with *.safetensors files",
    ),
    (
        r"max_model_len \((?P<what>\d+)\) is greater than the derived max_model_len \(\D*(?P<most>\d+)",
        "engine.max_model_len = {what} is beyond the model's {most}; lower it",
    ),
    (
        r"estimated maximum model length is (?P<most>\d+)",
        "the KV cache is too small for one request of the longest length; "
        "set engine.max_model_len = {most} or less, or give it more memory "
        "(engine.args.gpu_memory_utilization; on a CPU engine.env.VLLM_CPU_KVCACHE_SPACE in GiB)",
    ),
    (
        r"is larger than the (?:available KV cache|maximum number of tokens that can be stored)|"
        r"No available memory for the cache blocks",
        "no room for a KV cache beside the weights; lower engine.max_model_len, "
        "raise engine.args.gpu_memory_utilization, or use more or larger GPUs",
    ),
    (
        r"requested memory for kv \((?P<what>[\d.]+)|on kv cache allocation",
        "the memory of this machine cannot hold the KV cache asked for; "
        "lower engine.env.VLLM_CPU_KVCACHE_SPACE (GiB) or stop other programs",
    ),
    (
        r"is less than desired (?:GPU|CPU) memory utilization",
        "other programs hold the memory it wants; stop them, or lower engine.args.gpu_memory_utilization",
    ),
    (
        r"CUDA out of memory|torch\.OutOfMemoryError|cuda\.OutOfMemoryError|not enough GPU memory|"
        r"CUDA error: out of memory",
        "out of GPU memory; lower engine.max_model_len or engine.args.max_num_seqs, "
        "raise engine.tensor_parallel, or use a larger GPU",
    ),
    (
        r"DefaultCPUAllocator: (?:can't|not enough)|std::bad_alloc|Cannot allocate memory",
        "out of memory on this machine; use a smaller model or a smaller KV cache",
    ),
    (
        r"attention heads \((?P<what>\d+)\) must be divisible by tensor parallel size \((?P<tp>\d+)\)",
        "{what} attention heads cannot be split over {tp} GPUs; "
        "set engine.tensor_parallel to a divisor of {what}",
    ),
    (
        r"(?:must be )?divisible by tensor[ _]parallel|(?P<what>\d+) is not divisible by (?P<tp>\d+)",
        "the model cannot be split over that many GPUs; set another engine.tensor_parallel",
    ),
    (
        r"World size \((?P<what>\d+)\) is larger than the number of available GPUs \((?P<most>\d+)\)|"
        r"is larger than the number of available GPUs",
        "engine.tensor_parallel wants more GPUs than there are; lower it",
    ),
    (
        r"[Bb]float16 is only supported on GPUs with compute capability",
        'this GPU has no bfloat16; set engine.dtype = "float16"',
    ),
    (
        r"torch\.(?P<what>\w+) is not supported for quantization method|dtype .* is not supported",
        "the model cannot run in that number format; set another engine.dtype",
    ),
    (
        r"is not supported for the current GPU",
        "this GPU is too old for the model's quantization; choose another checkpoint or GPU",
    ),
    (
        r"NVIDIA driver on your system is too old|driver version is insufficient|"
        r"no kernel image is available",
        "NVIDIA driver or GPU and the installed PyTorch do not fit; update the driver or run `make vllm`",
    ),
    (
        r"No CUDA GPUs are available|Torch not compiled with CUDA|Found no NVIDIA driver|"
        r"Failed to infer device type",
        "it sees no CUDA GPU; check nvidia-smi and CUDA_VISIBLE_DEVICES, "
        "or install the CPU build (`make vllm-cpu`)",
    ),
    (
        r"Failed to find C compiler|InvalidCxxCompiler|No working C\+\+ compiler|fatal error: Python\.h",
        "it needs a C compiler and Python headers; install gcc (apt install build-essential python3-dev), "
        "or set engine.args.enforce_eager = true",
    ),
    (
        r"Too many open files",
        "it may open no more files; raise the limit (ulimit -n) and start again",
    ),
    (
        r"Resource temporarily unavailable|can't start new thread|pthread_create",
        "it may start no more processes or threads; raise the limit (ulimit -u, or the container's)",
    ),
    (_PORT_TAKEN, "its port was taken by another program; start again"),
    (
        r"No module named '?(?P<what>[\w.]+)'?",
        "the Python package {what} is missing; install it, or set the engine up anew",
    ),
)
_COMPILED = tuple((re.compile(pattern), advice) for pattern, advice in _CAUSES)

_SIGNALS: dict[int, str] = {
    signal.SIGKILL: "it was killed, most likely for memory; "
    "use a smaller model or KV cache, or a larger machine",
    signal.SIGILL: "it uses instructions that this processor lacks; use another engine",
    signal.SIGSEGV: "it crashed (segmentation fault); another version of the engine may help",
    signal.SIGBUS: "it crashed (bus error), often because /dev/shm is full or small; enlarge it",
}

# "(Worker_TP0 pid=123) ERROR 11-21 22:28:01 [core.py:402] ": who, level, when, where.
_PREFIX = re.compile(r"^(?:\([\w .=-]*pid=\d+\)\s*)?(?:(?P<level>[A-Z]+) [\d-]+ [\d:,.]+ \[[^\]]*\] ?)?")
_EXCEPTION = re.compile(r"^(?:[\w.]+\.)?\w*(?:Error|Exception|Interrupt|Exit)\b(?:: .*)?$")
_ERROR_LINE = re.compile(r"\berror: |Value error, |\bKilled\b|^Fatal |CUDA error|cannot run ")
_NOISE = re.compile(
    r"Engine core initialization failed|See root cause above|For further information visit|"
    r"^nanobind: |^ - (?:leaked|\.\.\. skipped)|nanobind\.readthedocs|resource_tracker"
)


def explain(log: str, exit_code: int | None = None) -> str | None:
    """One line of advice for the failure that ``log`` shows; None when it shows none we know.

    ``exit_code`` is negative for the signal that ended the process, None while it runs.
    """
    complaints = "\n".join(line for line in log.splitlines() if not _is_routine(line))
    for pattern, advice in _COMPILED:
        if match := pattern.search(complaints):
            named = {name: text or "" for name, text in match.groupdict().items()}
            return advice.format(**{name: text.strip()[:LINE_CHARS] for name, text in named.items()})
    return _SIGNALS.get(-exit_code) if exit_code is not None and exit_code < 0 else None


def is_port_taken(log: str) -> bool:
    """Whether the server could not listen because somebody else does."""
    return re.search(_PORT_TAKEN, log) is not None


def telling_lines(log: str) -> list[str]:
    """At most eight lines that explain a death: errors and exceptions, else the end of the log.

    Prefixes of the logger are dropped and repetitions shown once; the order is that of the log.
    """
    lines = [strip_prefix(line) for line in log.splitlines() if not _is_routine(line)]
    telling = _last_distinct(line for line in lines if _is_telling(line))
    return telling or _last_distinct(line for line in lines if line.strip() and not _NOISE.search(line))


def strip_prefix(line: str) -> str:
    """A log line without the process, level, date and source that vLLM's logger puts before it."""
    return line[_PREFIX.match(line).end() :].rstrip()  # type: ignore[union-attr]  # matches the empty string


def _is_routine(line: str) -> bool:
    """A warning or less: it may quote an argument or a traceback, but nothing died of it."""
    match = _PREFIX.match(line)
    return match is not None and match["level"] in ("DEBUG", "INFO", "WARNING")


def _is_telling(text: str) -> bool:
    if _NOISE.search(text):
        return False
    return bool(_EXCEPTION.match(text) or _ERROR_LINE.search(text))


def _last_distinct(lines: Iterable[str]) -> list[str]:
    seen = dict.fromkeys(line[:LINE_CHARS] for line in lines)
    return list(seen)[-TELLING_LINES:]
