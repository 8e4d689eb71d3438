"""The embedded engine: a real server process over transformers' continuous batching, on a small model."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import psutil
import pytest

from profiler import arch
from profiler.engines import open_engine, transformers
from profiler.errors import InputError
from profiler.schema import Model
from profiler.settings import EngineSettings
from profiler.telemetry import engine_metrics
from tests.security.sockets import beyond_this_machine, refused

CATALOG = Path(transformers.__file__).parent.parent / "catalog" / "tiny"
CONFIG = json.loads((CATALOG / "tiny-moe.json").read_text()) | {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "head_dim": 16,
    "vocab_size": 256,
    "moe_intermediate_size": 64,
    "num_experts": 8,
    "tie_word_embeddings": True,  # a small random model then repeats the prompt's last token: a known answer
    "eos_token_id": 56,
}
PAGE, BLOCKS = 16, 1024


def settings(**args):
    return EngineSettings(
        kind="transformers", args={"page_size": PAGE, "num_blocks": BLOCKS, "threads": 1, **args}
    )


def meta_model(config):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    given = dict(config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            AutoConfig.for_model(given.pop("model_type"), **given), dtype=torch.bfloat16
        )


@pytest.fixture(scope="module")
def progress():
    return []


@pytest.fixture(scope="module")
def engine(tmp_path_factory, progress):
    model = Model(name="small-moe", weights="random", config=CONFIG)
    with open_engine(settings(), model, tmp_path_factory.mktemp("engine"), progress.append) as running:
        yield running


def test_nobody_gets_in_without_its_key_and_other_machines_cannot_reach_it(engine):
    port = int(engine.endpoint.base_url.removesuffix("/v1").rpartition(":")[2])
    pages = [("GET", "/v1/models"), ("POST", "/v1/completions"), ("GET", "/memory"), ("GET", "/routing")]
    refused(port, pages, engine.endpoint.api_key)
    assert beyond_this_machine(engine.endpoint.pid) == []


class Answer:
    """One request's answer, read event by event."""

    def __init__(self, engine, **request):
        address = engine.endpoint.base_url.removeprefix("http://").removesuffix("/v1")
        self.connection = http.client.HTTPConnection(address, timeout=60)
        body = {
            "model": engine.endpoint.model,
            "stream": True,
            "ignore_eos": True,
            "temperature": 0,
            **request,
        }
        body |= {"stream_options": {"include_usage": True}, "return_token_ids": True}
        headers = {"authorization": f"Bearer {engine.endpoint.api_key}"}
        self.connection.request("POST", "/v1/completions", json.dumps(body), headers)
        self.response = self.connection.getresponse()
        self.status = self.response.status

    def events(self):
        for line in self.response:
            if line.startswith(b"data: "):
                yield line.removeprefix(b"data: ").strip()

    def read(self):
        """(token ids of each chunk, finish reasons, usage, last event)."""
        chunks, reasons, usage, last = [], [], None, None
        for last in self.events():
            event = json.loads(last) if last != b"[DONE]" else {}
            for choice in event.get("choices", ()):
                chunks.append(choice["token_ids"])
                reasons.append(choice["finish_reason"])
            usage = event.get("usage") or usage
        return chunks, reasons, usage, last

    def error(self):
        return json.loads(self.response.read())["error"]["message"]


def prompt(length, seed=0):
    return [(seed * 31 + 7 * place) % 256 for place in range(length)]


def cpu_frac(process, seconds):
    before = process.cpu_times()
    time.sleep(seconds)
    after = process.cpu_times()
    return (after.user + after.system - before.user - before.system) / seconds


def engine_process(engine):
    root = psutil.Process(engine.endpoint.pid)
    tree = [root, *root.children(recursive=True)]
    return max(tree, key=lambda process: process.memory_info().rss)


# ------------------------------------------------------------------------------------- the running server


def test_start_reports_what_it_does(engine, progress):
    assert engine.facts.device == "cpu"
    assert any("small-moe" in line or "weights ready" in line or "import" in line for line in progress), (
        progress
    )


def test_concurrent_requests_get_exactly_the_tokens_they_asked_for(engine):
    sizes = [(1 + 13 * i % 90, 1 + 17 * i % 60) for i in range(40)]

    def one(numbered):
        seed, (length, wanted) = numbered
        return Answer(engine, prompt=prompt(length, seed), max_tokens=wanted).read()

    with ThreadPoolExecutor(len(sizes)) as pool:
        answers = list(pool.map(one, enumerate(sizes)))
    for (length, wanted), (chunks, reasons, usage, last) in zip(sizes, answers, strict=True):
        tokens = [token for chunk in chunks for token in chunk]
        assert len(tokens) == wanted
        assert all(0 <= token < 256 for token in tokens)
        assert reasons == [None] * (len(chunks) - 1) + ["length"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (length, wanted)
        assert last == b"[DONE]"


def test_every_token_is_a_chunk_of_its_own_and_spread_over_time(engine):
    began = time.perf_counter()
    arrivals = []
    answer = Answer(engine, prompt=prompt(20), max_tokens=100)
    for event in answer.events():
        if b"token_ids" in event:
            arrivals.append(time.perf_counter() - began)
    assert len(arrivals) == 100
    # Handed over as produced: half the tokens are here by about half of the time, not all at the end.
    assert arrivals[50] < 0.8 * arrivals[-1]


def test_the_same_prompt_gets_the_same_answer(engine):
    first, second = (Answer(engine, prompt=prompt(40), max_tokens=30).read()[0] for _ in range(2))
    other = Answer(engine, prompt=prompt(40, seed=5), max_tokens=30).read()[0]
    assert first == second
    assert first != other


def test_the_end_token_ends_an_answer_unless_it_is_to_be_ignored(engine):
    last = prompt(9)[-1]
    assert last == CONFIG["eos_token_id"]
    for ignored, answer, reason in ((True, [[last]] * 8, "length"), (False, [[last]], "stop")):
        chunks, reasons, usage, _ = Answer(engine, prompt=prompt(9), max_tokens=8, ignore_eos=ignored).read()
        assert (chunks, reasons[-1], usage["completion_tokens"]) == (answer, reason, len(answer))


def test_a_client_that_leaves_takes_its_work_along(engine):
    process = engine_process(engine)
    answer = Answer(engine, prompt=prompt(20), max_tokens=8000)
    next(answer.events())
    busy = cpu_frac(process, 0.5)
    answer.response.close()
    answer.connection.close()
    time.sleep(0.3)
    assert cpu_frac(process, 1.0) < min(0.1, 0.3 * busy)


def test_an_idle_engine_uses_no_cpu(engine):
    Answer(engine, prompt=prompt(20), max_tokens=10).read()
    time.sleep(0.3)
    assert cpu_frac(engine_process(engine), 2.0) < 0.03


@pytest.mark.parametrize(
    ("request_", "telling"),
    [
        (
            {"prompt": prompt(100), "max_tokens": 9000},
            "100 prompt tokens and 9000 output tokens exceed the 8192",
        ),
        ({"prompt": [3, 256], "max_tokens": 4}, "outside 0…255"),
        ({"prompt": [], "max_tokens": 4}, "non-empty list of token ids"),
        ({"prompt": [[1, 2]], "max_tokens": 4}, "non-empty list of token ids"),
        ({"prompt": "hello", "max_tokens": 4}, "no tokenizer"),
        ({"prompt": [1], "max_tokens": -1}, "max_tokens"),
        ({"prompt": [1], "max_tokens": 4, "temperature": 0.7}, "greedy"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_engine_lives_on(engine, request_, telling):
    answer = Answer(engine, **request_)
    assert answer.status == 400
    assert telling in answer.error()
    assert sum(map(len, Answer(engine, prompt=[1, 2], max_tokens=3).read()[0])) == 3
    engine.check()


def test_a_long_prompt_is_prefilled_in_pieces(engine):
    chunks, _, usage, _ = Answer(engine, prompt=prompt(1500), max_tokens=5).read()
    assert sum(map(len, chunks)) == 5
    assert usage["prompt_tokens"] == 1500


def test_the_memory_account_adds_up(engine):
    model = meta_model(CONFIG)
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    account = engine.memory()
    assert account.weights_bytes == sum(tensor.nbytes for tensor in tensors.values())
    assert account.kv_tokens == PAGE * BLOCKS
    token_bytes = 2 * CONFIG["num_hidden_layers"] * CONFIG["num_key_value_heads"] * CONFIG["head_dim"] * 2
    assert account.kv_bytes == pytest.approx(account.kv_tokens * token_bytes, rel=0.01)
    assert account.activation_peak_bytes is None
    facts = arch.model_facts(CONFIG, "test")
    assert account.routed_expert_bytes == 2 * facts.routed_expert_params
    assert account.embedding_bytes == 2 * facts.embedding_params, "tied: once"
    assert account.shared_expert_bytes == 0
    parts = account.dense_bytes + account.routed_expert_bytes + account.embedding_bytes
    assert parts == account.weights_bytes
    assert 0 < account.kv_resident_bytes <= account.kv_bytes
    assert account.runtime_bytes > 100 << 20


def test_the_cache_in_use_is_on_the_metrics_page(engine):
    """Nothing between requests; while an answer grows, the pages of its tokens."""

    def used() -> float:
        address = engine.endpoint.metrics_url.removeprefix("http://").removesuffix("/metrics")
        connection = http.client.HTTPConnection(address, timeout=10)
        connection.request("GET", "/metrics")
        found = engine_metrics.parse(connection.getresponse().read().decode())
        connection.close()
        return found["kv_cache_usage_frac"]

    answer = Answer(engine, prompt=prompt(90), max_tokens=400)
    events = answer.events()
    next(events)
    assert 90 / (PAGE * BLOCKS) <= used() <= 512 / (PAGE * BLOCKS)
    assert list(events)
    end = time.monotonic() + 5
    while used() > 0 and time.monotonic() < end:
        time.sleep(0.05)
    assert used() == 0


# ------------------------------------------------------------------------------------- folders and attention


def test_a_folder_with_weights_and_tokenizer_takes_text_too(tmp_path):
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    config = {key: value for key, value in CONFIG.items() if "expert" not in key} | {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
    }
    folder = tmp_path / "model"
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.bfloat16)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(256)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(folder)
    given = Model(name="small", weights="local", folder=str(folder))
    with open_engine(settings(), given, tmp_path, lambda line: None) as engine:
        by_text = Answer(engine, prompt="w3 w14 w15 w92 w65", max_tokens=12).read()
        by_ids = Answer(engine, prompt=[3, 14, 15, 92, 65], max_tokens=12).read()
    assert by_text[0] == by_ids[0]
    assert by_text[2] == by_ids[2]
    with torch.no_grad():
        ids = [3, 14, 15, 92, 65]
        expected = int(model(torch.tensor([ids])).logits[0, -1].argmax())
    assert by_ids[0][0] == [expected]


def test_attention_of_its_own_agrees_with_the_librarys():
    """Greedy answers in float32 of prompts prefilled in several chunks while others decode."""
    from profiler.engines import varlen_attention
    from profiler.engines.transformers_model import load, start_batching

    answers = {}
    for implementation in (None, "sdpa"):
        args = transformers.EngineArgs(
            page_size=PAGE, num_blocks=256, max_batch_tokens=24, threads=1, attn_implementation=implementation
        )
        config = transformers.ServerConfig(
            name="small",
            weights="random",
            dtype="float32",
            args=args,
            config=CONFIG | {"initializer_range": 0.2},
        )
        model = load(config)
        assert varlen_attention.is_in(model) == (implementation is None)
        manager = start_batching(model, config)
        for index, length in enumerate((3, 50, 17, 31, 80)):
            manager.add_request(prompt(length, index), request_id=str(index), max_new_tokens=25)
        found = [manager.get_result(timeout=60) for _ in range(5)]
        manager.stop(hard_stop=True)
        answers[implementation] = {result.request_id: result.generated_tokens for result in found}
    assert answers[None] == answers["sdpa"]
    assert len({tuple(tokens) for tokens in answers[None].values()}) == 5


# ------------------------------------------------------------------------------------- the shipped trio


def total_and_active(config):
    model = meta_model(config)
    total = sum(parameter.numel() for parameter in model.parameters())
    experts = sum(parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name)
    idle_frac = 1 - config["num_experts_per_tok"] / config["num_experts"] if experts else 0
    return total, total - experts * idle_frac


def test_the_trio_matches_in_total_and_active_parameters():
    moe, dense, small = (
        json.loads((CATALOG / f"{name}.json").read_text())
        for name in ("tiny-moe", "tiny-dense", "tiny-dense-active")
    )
    total, active = total_and_active(moe)
    assert total_and_active(dense)[0] == pytest.approx(total, rel=0.02)
    assert total_and_active(small)[0] == pytest.approx(active, rel=0.02)
    assert total > 8 * active
    for config in (moe, dense, small):
        assert config["head_dim"] in (64, 128)
        assert config["max_position_embeddings"] >= 4096
        assert config["vocab_size"] * config["hidden_size"] < 0.2 * active


# ------------------------------------------------------------------------------------- settings

RANDOM = Model(name="m", weights="random", config=CONFIG)


@pytest.mark.parametrize(
    ("given", "telling"),
    [
        ({"max_batch_token": 8}, "did you mean 'max_batch_tokens'"),
        ({"block_size": 16}, "engine.args.block_size: engine transformers has no such argument"),
        ({"threads": "two"}, "engine.args.threads: expected `int"),
        ({"num_blocks": 0}, "engine.args.num_blocks"),
        ({"experts_implementation": "fast"}, "engine.args.experts_implementation"),
    ],
)
def test_wrong_arguments_are_named(given, telling):
    with pytest.raises(InputError, match=telling):
        transformers.server_config(EngineSettings(args=given), RANDOM)


@pytest.mark.parametrize(
    ("chosen", "model", "telling"),
    [
        (EngineSettings(tensor_parallel=2), RANDOM, "one device"),
        (EngineSettings(), Model(name="far", weights="remote"), "no weights for 'far'"),
        (EngineSettings(), Model(name="bare", weights="random"), "need its config"),
        (EngineSettings(), Model(name="lost", weights="local"), "no folder"),
    ],
)
def test_impossible_models_are_refused_before_anything_starts(chosen, model, telling):
    with pytest.raises(InputError, match=telling):
        transformers.server_config(chosen, model)


def test_missing_packages_name_the_extra(monkeypatch):
    monkeypatch.setattr(transformers, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(InputError, match=r"torch: pip install 'moe-profiler\[transformers\]'"):
        transformers.server_config(EngineSettings(), RANDOM)


def test_a_library_that_is_too_old_is_named(monkeypatch):
    monkeypatch.setattr(transformers, "version", lambda _: "5.9.3")
    with pytest.raises(InputError, match=r"needs transformers 5\.18 or newer, here is 5\.9\.3: pip install"):
        transformers.server_config(EngineSettings(), RANDOM)


def test_the_command_leaves_its_settings_in_the_workdir_and_no_secret(tmp_path):
    argv = transformers.command(EngineSettings(args={"seed": 3}, max_model_len=99), RANDOM, tmp_path)
    path = Path(argv[argv.index("--config") + 1])
    config = msgspec.json.decode(path.read_bytes(), type=transformers.ServerConfig)
    assert path.parent == tmp_path
    assert (config.args.seed, config.max_model_len, config.config) == (3, 99, CONFIG)
    assert "key" not in path.read_text().replace("num_key_value_heads", "")
