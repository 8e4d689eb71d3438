"""Names → models: built in, local, catalog, Hub; with and without a Hub to ask (a small one of our own)."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from profiler import catalog, models
from profiler.errors import InputError

QWEN = "Qwen/Qwen2.5-72B"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """No test asks the real Hub, and none sees this machine's cache."""
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def hub(monkeypatch):
    """A Hub on loopback that serves ``configs`` (repository → config.json) and gates what maps to None."""
    configs: dict[str, dict | None] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            repo = self.path.removeprefix("/").split("/resolve/")[0]
            if self.path == "/":
                self.answer(200, b"")
            elif repo not in configs:
                self.answer(404, b"", {"X-Error-Code": "RepoNotFound"})
            elif configs[repo] is None:
                self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            else:
                self.answer(
                    200, json.dumps(configs[repo]).encode(), {"ETag": '"1"', "X-Repo-Commit": "a" * 40}
                )

        do_GET = do_HEAD

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    yield configs
    server.shutdown()
    server.server_close()


def cache(tmp_path, repo: str, *files: str) -> None:
    """Put a repository into the cache, as a download would."""
    root = tmp_path / "cache" / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("b" * 40)
    (root / "snapshots" / ("b" * 40)).mkdir(parents=True)
    for name in files:
        (root / "snapshots" / ("b" * 40) / name).write_text(json.dumps(catalog.models()[QWEN].config))


def folder_with(tmp_path, config: dict | str, *files: str):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for name in files:
        (folder / name).touch()
    return folder


def refused(*args: str) -> str:
    with pytest.raises(InputError) as caught:
        models.resolve(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------- built in


@pytest.mark.parametrize("name", ["tiny-moe", "tiny-dense", "tiny-dense-active"])
def test_tiny_models_never_ask_the_network(name, monkeypatch):
    monkeypatch.setattr(models, "_unreachable", lambda: pytest.fail("asked the Hub"))
    model = models.resolve(name)
    assert (model.name, model.weights, model.notes) == (name, "random", ())
    assert model.facts is not None
    assert model.config == catalog.tiny_models()[name]


def test_tiny_models_have_no_published_weights():
    assert "--weights random" in refused("tiny-moe", "hub")


# ------------------------------------------------------------------------------------------- local


def test_a_folder_with_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "_unreachable", lambda: pytest.fail("asked the Hub"))
    folder = folder_with(tmp_path, catalog.tiny_models()["tiny-moe"], "model.safetensors")
    model = models.resolve(str(folder))
    assert (model.name, model.weights, model.folder) == ("my-model", "local", str(folder))
    assert model.facts is not None
    assert model.facts.kind == "moe"
    assert models.resolve(str(folder), "random").weights == "random"
    assert "auto or random" in refused(str(folder), "hub")


def test_a_folder_without_weights_is_random_and_says_so(tmp_path):
    model = models.resolve(str(folder_with(tmp_path, catalog.tiny_models()["tiny-moe"])))
    assert model.weights == "random"
    assert "random weights" in model.notes[0]


def test_a_relative_folder_wins_over_the_catalog(tmp_path, monkeypatch):
    (tmp_path / "Qwen").mkdir()
    folder_with(tmp_path, catalog.tiny_models()["tiny-dense"], "pytorch_model.bin").rename(tmp_path / QWEN)
    monkeypatch.chdir(tmp_path)
    model = models.resolve(QWEN)
    assert model.weights == "local"
    assert model.config == catalog.tiny_models()["tiny-dense"]


def test_an_architecture_we_cannot_count_can_still_run(tmp_path):
    config = {"model_type": "mamba", "architectures": ["MambaForCausalLM"]}
    model = models.resolve(str(folder_with(tmp_path, config, "model.safetensors")))
    assert model.facts is None
    assert "MambaForCausalLM" in model.notes[0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", "not a readable JSON config"),
        ("[]", "not a readable JSON config"),
        ("{}", "model_type is missing"),
    ],
)
def test_a_broken_config_is_named(tmp_path, config, words):
    folder = folder_with(tmp_path, config)
    said = refused(str(folder))
    assert words in said
    assert str(folder / "config.json") in said


def test_a_config_that_lacks_a_size_is_refused(tmp_path):
    config = {**catalog.tiny_models()["tiny-moe"], "hidden_size": None}
    assert "hidden_size is missing" in refused(str(folder_with(tmp_path, config)))


def test_paths_that_lead_nowhere(tmp_path):
    assert "no such folder" in refused(str(tmp_path / "none"))
    assert "no such folder" in refused("./none")
    assert "no config.json" in refused(str(tmp_path))


# ----------------------------------------------------------------------------------------- catalog


@pytest.mark.parametrize("name", [QWEN, "qwen/qwen2.5-72b", "Qwen2.5-72B", "qwen2.5-72b"])
def test_catalog_names_in_any_spelling(name):
    model = models.resolve(name, "random")
    assert (model.name, model.weights, model.notes) == (QWEN, "random", ())
    assert model.facts is not None
    assert model.facts.total_params == 72706203648


@pytest.mark.parametrize("entry", catalog.models().values(), ids=lambda entry: entry.id)
def test_every_catalog_model_resolves_to_itself(entry):
    assert catalog.find(entry.id) is entry
    assert catalog.find(entry.id.partition("/")[2].lower()) is entry
    model = models.resolve(entry.id, "random")
    assert model.facts is not None
    assert model.facts.kind == entry.kind


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("Qwen/Qwen2.5-72B-Instruct", QWEN),
        ("Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507", "Qwen/Qwen3-30B-A3B"),
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B"),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-v0.1"),
        ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf"),
        ("google/gemma-3-27b-pt", "google/gemma-3-27b-it"),
        ("allenai/OLMoE-1B-7B-0125-Instruct", "allenai/OLMoE-1B-7B-0924"),
        ("deepseek-ai/DeepSeek-R1-0528", "deepseek-ai/DeepSeek-R1"),
    ],
)
def test_variants_take_the_shapes_of_the_catalog_and_say_so(name, entry):
    model = models.resolve(name, "random")
    assert model.config == catalog.models()[entry].config
    assert model.name.endswith(name.rpartition("/")[2])
    assert entry in model.notes[0]


@pytest.mark.parametrize(
    "name",
    [
        "unsloth/Qwen2.5-7B",  # another maker's upload may be anything
        "mistralai/Mistral-7B-v0.3",  # other vocabulary, no window
        "deepseek-ai/DeepSeek-V4",
        "Qwen/Qwen2.5-7B-1M",
    ],
)
def test_other_shapes_are_not_mistaken_for_variants(name):
    assert catalog.find(name) is None


def test_offline_weights_are_random_and_say_so():
    model = models.resolve(QWEN)
    assert model.weights == "random"
    assert "HF_HUB_OFFLINE" in model.notes[0]
    said = refused(QWEN, "hub")
    assert "--weights random" in said
    assert QWEN in said


def test_cached_weights_need_no_hub(tmp_path):
    cache(tmp_path, QWEN, "config.json", "model-00001.safetensors")
    assert models.resolve(QWEN).weights == "hub"
    assert models.resolve(QWEN, "hub").weights == "hub"


def test_a_cached_config_is_not_cached_weights(tmp_path):
    cache(tmp_path, QWEN, "config.json")
    assert models.resolve(QWEN).weights == "random"


def test_a_reachable_hub_gives_weights(hub):
    assert models.resolve(QWEN).weights == "hub"
    assert models.resolve(QWEN, "random").weights == "random"
    instruct = models.resolve("Qwen2.5-72B-Instruct")
    assert (instruct.name, instruct.weights) == ("Qwen/Qwen2.5-72B-Instruct", "hub")
    assert models.resolve("Qwen/Qwen3-Next-80B-A3B").name == "Qwen/Qwen3-Next-80B-A3B-Instruct"


# --------------------------------------------------------------------------------- other Hub models


def test_another_hub_model(hub):
    hub["someone/new-model"] = catalog.tiny_models()["tiny-dense"]
    model = models.resolve("someone/new-model")
    assert (model.name, model.weights) == ("someone/new-model", "hub")
    assert model.facts is not None
    assert model.facts.source == "huggingface.co/someone/new-model"
    assert models.resolve("someone/new-model", "random").weights == "random"


def test_hub_refusals_say_what_to_do(hub):
    hub["someone/gated"] = None
    assert "gated: accept its terms" in refused("someone/gated")
    assert "no model 'Qwem/Qwen2.5-72' on the Hub" in refused("Qwem/Qwen2.5-72")
    assert "nearest: Qwen/Qwen2.5-72B" in refused("Qwem/Qwen2.5-72")


def test_offline_other_models_are_unknown(monkeypatch):
    said = refused("Qwem/Qwen2.5-72")
    assert "HF_HUB_OFFLINE" in said
    assert "nearest: Qwen/Qwen2.5-72B" in said


@pytest.mark.parametrize(
    ("name", "near"), [("tiny-mo", "tiny-moe"), ("Qwen2.5-71B", QWEN), ("gpt-oss-200b", "openai/gpt-oss-20b")]
)
def test_misspelt_names_get_the_nearest(name, near):
    said = refused(name)
    assert f"unknown model {name!r}" in said
    assert near in said


@pytest.mark.parametrize("name", ["", "a b", "x" * 200, "ü/ö", "a/b/c"])
def test_impossible_names_are_refused(name):
    assert refused(name)


def test_weights_must_be_a_known_kind():
    assert "did you mean 'random'?" in refused(QWEN, "randm")


# ----------------------------------------------------------------------------------- never hanging


def test_a_hub_that_never_answers_costs_three_seconds_at_most(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(models, "REACH_TIMEOUT_S", 0.3)
        began = time.perf_counter()
        assert models.resolve(QWEN).weights == "random"
        assert time.perf_counter() - began < 1.5
    assert models.REACH_TIMEOUT_S <= 3.0


def test_within_gives_up_on_a_call_without_a_timeout_of_its_own():
    began = time.perf_counter()
    assert models.within(0.1, lambda: time.sleep(5)) is None
    assert time.perf_counter() - began < 2
    assert models.within(5.0, lambda: 3) == 3


def test_many_models_wait_for_one_timeout(monkeypatch):
    asked = []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(models, "_answers", asked.append)
    for name in ("Qwen/Qwen3-8B", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B"):
        assert "http://hub.invalid cannot be reached" in models.resolve(name).notes[0]
    assert len(asked) <= 2, "two, when a minute has just turned"


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (401, True), (503, False)])
def test_a_refusal_is_an_answer_and_a_broken_gateway_is_none(monkeypatch, status, reachable):
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        assert (models.resolve(QWEN).weights == "hub") is reachable
        server.shutdown()


@pytest.mark.parametrize("endpoint", ["http://[", "http://127.0.0.1:1", "http://127.0.0.1:99999999"])
def test_an_endpoint_nobody_answers_at(monkeypatch, endpoint):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "cannot be reached" in models.resolve(QWEN).notes[0]


@pytest.mark.parametrize("endpoint", ["file:///etc/passwd", "nonsense"])
def test_an_endpoint_that_is_no_url_is_named(monkeypatch, endpoint):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert "HF_ENDPOINT is not a URL" in models.resolve(QWEN).notes[0]


# ------------------------------------------------------------------------------------------ remote


def test_remote_models_take_facts_from_the_catalog():
    known = models.remote("qwen2.5-72b-instruct")
    assert (known.name, known.weights, known.config) == ("qwen2.5-72b-instruct", "remote", None)
    assert known.facts is not None
    assert known.facts.total_params == 72706203648
    assert models.remote("tiny-moe").facts is not None
    assert models.remote("my-own").facts is None


def test_random_weights_of_a_quantized_name_are_plain_numbers_and_say_so():
    found = models.resolve("Qwen/Qwen2.5-7B-Instruct-AWQ", "random")
    assert found.config is not None
    assert "quantization_config" not in found.config
    assert "shapes of Qwen/Qwen2.5-7B from the catalog" in found.notes[0]
    assert any("drawn as plain numbers" in note for note in found.notes)
