"""Experts read and replaced in real modules of the library, tiny ones; the router itself is the witness."""

from __future__ import annotations

import json
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from profiler import experts
from profiler.engines import open_engine, transformers_model, varlen_attention
from profiler.engines import transformers_routing as routing
from profiler.engines.transformers import EngineArgs, ServerConfig, server_config
from profiler.engines.transformers_routing import Listener, set_up, steer
from profiler.errors import EngineError
from profiler.schema import Model
from profiler.settings import EngineSettings
from tests import make

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
QWEN = {"head_dim": 16, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
LINEAR = {
    "shared_expert_intermediate_size": 32,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention", "linear_attention"],
}
LOCAL = {"num_local_experts": 8, "num_experts_per_tok": 2}
GROUPED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
}
LATENT = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "head_dim": 8,
    "num_key_value_heads": 4,
}
FAMILIES = {
    "qwen3_moe": QWEN | {"mlp_only_layers": [0]},
    "qwen2_moe": QWEN | {"shared_expert_intermediate_size": 32},
    "mixtral": LOCAL,
    "olmoe": {"num_experts": 8, "num_experts_per_tok": 2},
    "deepseek_v2": GROUPED | LATENT | {"topk_method": "group_limited_greedy"},
    "deepseek_v3": GROUPED | LATENT,
    "glm4_moe": GROUPED | {"head_dim": 16},
    "gpt_oss": LOCAL | {"head_dim": 16},
    "granitemoe": LOCAL,
    "phimoe": LOCAL,
    "qwen3_next": QWEN | LINEAR,
    "qwen3_5_moe_text": QWEN | LINEAR,
    "llama4_text": {
        "head_dim": 16,
        "num_local_experts": 8,
        "num_experts_per_tok": 1,
        "intermediate_size_mlp": 64,
        "interleave_moe_layer_step": 1,
    },
}
STEERED = sorted(FAMILIES.keys() - {"llama4_text"})


def built(family, **options):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(1)
    config = AutoConfig.for_model(family, **(SMALL | FAMILIES[family]))
    plain = "eager" if family == "gpt_oss" else "sdpa"
    model = AutoModelForCausalLM.from_config(config, attn_implementation=plain, **options).eval()
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):  # what makes the choice differ from the best scores
            buffer.copy_(torch.randn_like(buffer))
    return model


def by_its_router(model, ids):
    """[positions, layers, k] as the model's own routers say of the hidden states that they are given."""
    import torch

    routers = [
        m for n, m in model.named_modules() if n.endswith((".gate", ".router")) and len(n.split(".")) == 5
    ]
    given: list[torch.Tensor] = []
    handles = [r.register_forward_pre_hook(lambda _, args: given.append(args[0])) for r in routers]
    with torch.no_grad():
        model(input_ids=torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
        said = [
            router(hidden.reshape(1, len(ids), -1)[0]) for router, hidden in zip(routers, given, strict=True)
        ]
    chosen = [next((part for part in out if part.dtype == torch.int64), None) for out in said]
    chosen = [out[0].nonzero()[:, 1:] if own is None else own for own, out in zip(chosen, said, strict=True)]
    return np.stack([each.numpy() for each in chosen], axis=1)


def hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def prompt(length, seed=0):
    return np.random.default_rng(seed).integers(0, 256, length).tolist()


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("family", FAMILIES)
def test_the_experts_of_every_position_are_those_the_models_own_router_names(family):
    model, ids = built(family), prompt(40)
    listener = Listener(model)
    told = listener.experts_of(ids)
    assert hooks(model) == 0
    np.testing.assert_array_equal(np.sort(told), np.sort(by_its_router(model, ids)))
    dense_first = family in ("qwen3_moe", "deepseek_v2", "deepseek_v3", "glm4_moe")
    assert listener.numbers == ((1, 2) if dense_first else (0, 1, 2))
    assert (listener.experts, listener.per_token) == (8, 1 if family == "llama4_text" else 2)


def test_what_batching_routes_token_by_token_is_what_is_told_afterwards():
    """Prefill and decode in the paged engine, its attention ours, against one plain pass over all of it."""
    import torch

    torch.set_num_threads(1)
    model = built("qwen3_moe", dtype=torch.float32)
    listener = Listener(model)
    varlen_attention.install(model)
    manager = transformers_model.start_batching(model, one_thread())
    seen = [[] for _ in listener.numbers]
    handles = [
        routing._listen(layer, rows.append) for layer, rows in zip(routing.layers(model), seen, strict=True)
    ]
    ids = prompt(300)  # more than one pass of prefill holds
    manager.add_request(ids, max_new_tokens=12)
    answer = manager.get_result(timeout=60).generated_tokens
    for handle in handles:
        handle.remove()
    told = listener.experts_of(ids + answer[:-1], manager.pause)
    assert varlen_attention.is_in(model)
    manager.add_request(ids, max_new_tokens=2)
    assert manager.get_result(timeout=60).generated_tokens == answer[:2]
    manager.stop(block=True)
    batched = np.stack([torch.cat(rows).numpy() for rows in seen], axis=1)
    np.testing.assert_array_equal(np.sort(batched), np.sort(told))


def one_thread():
    args = EngineArgs(page_size=16, num_blocks=256, max_batch_tokens=128, threads=1)
    return ServerConfig(name="m", weights="random", dtype="float32", args=args)


def test_what_is_told_leaves_no_thread_that_has_computed():
    """Its OpenMP workers would slow the generation thread's down for good."""
    model, threads = built("qwen3_moe"), []
    model.register_forward_pre_hook(lambda *_: threads.append(threading.current_thread()))
    model.base_model.register_forward_pre_hook(lambda *_: threads.append(threading.current_thread()))
    Listener(model).experts_of(prompt(9))
    assert len(threads) == 2
    assert threading.main_thread() not in threads
    assert not any(thread.is_alive() for thread in threads)


def test_a_dense_model_tells_nothing():
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    dense = AutoModelForCausalLM.from_config(AutoConfig.for_model("qwen3", **(SMALL | {"head_dim": 16})))
    assert routing.layers(dense) == []
    with pytest.raises(ValueError, match="no experts"):
        Listener(dense)
    assert set_up(dense, None, False).told == {"routing": None, "layers": (), "experts": None, "notes": ()}
    assert torch.is_tensor(dense(torch.tensor([[1, 2]])).logits)


def test_a_server_tells_the_experts_of_what_it_answered(tmp_path):
    """Twenty at a time, while another answer streams; the witness is a model of the same seed here."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = SMALL | FAMILIES["qwen3_moe"] | {"model_type": "qwen3_moe"}
    asked = EngineSettings(
        kind="transformers",
        dtype="float32",
        routing="model",
        args={"page_size": 16, "num_blocks": 512, "threads": 1},
    )
    model = Model(name="small", weights="random", config=config, facts=make.FACTS)
    with open_engine(asked, model, tmp_path, lambda _: None) as engine:
        assert engine.facts.routing == "model"
        assert "router of a random network" in engine.facts.notes[-1]
        assert engine.routing.layers == (1, 2)
        with ThreadPoolExecutor(21) as pool:
            ids = pool.submit(answer_of, engine, prompt(30, 99), 200)
            told = list(pool.map(lambda seed: engine.routing.ask(prompt(25, seed), 6, 60.0), range(20)))
            assert len(ids.result()) == 200
        answers = [answer_of(engine, prompt(25, seed), 6) for seed in range(20)]
        with pytest.raises(EngineError, match=r"answers 400: .*ids outside"):
            engine.routing.ask([999], 1, 60.0)
    torch.manual_seed(0)
    twin = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("qwen3_moe", **(SMALL | FAMILIES["qwen3_moe"])), dtype=torch.float32
    ).eval()
    for seed, (found, answer) in enumerate(zip(told, answers, strict=True)):
        witness = by_its_router(twin, prompt(25, seed) + answer[:-1])
        assert found.prompt_tokens == 25
        np.testing.assert_array_equal(np.sort(found.experts), np.sort(witness))


def answer_of(engine, ids, tokens):
    body = {"model": engine.endpoint.model, "prompt": ids, "max_tokens": tokens, "ignore_eos": True}
    request = urllib.request.Request(
        f"{engine.endpoint.base_url}/completions",
        json.dumps(body | {"return_token_ids": True}).encode(),
        {"authorization": f"Bearer {engine.endpoint.api_key}"},
    )
    with urllib.request.urlopen(request, timeout=60) as answered:
        return json.load(answered)["choices"][0]["token_ids"]


# ----------------------------------------------------------------------------------------------- replacing


@pytest.mark.parametrize("family", STEERED)
def test_steered_tokens_go_where_the_table_says_whatever_the_family(family):
    model, ids = built(family), prompt(50)
    before = Listener(model).experts_of(ids)
    steer(model, "uniform", 2)
    first, second = Listener(model), None
    first, second = first.experts_of(ids), first.experts_of(ids)
    at = routing.PROBE_TOKENS
    for place in range(first.shape[1]):
        table = experts.choices(experts.marginals(8, 2, 0.0, place), routing.TABLE_TOKENS, place)
        np.testing.assert_array_equal(first[:, place], table[at : at + 50])
        np.testing.assert_array_equal(second[:, place], table[at + 50 : at + 100])
    assert not np.array_equal(before, first)


@pytest.mark.parametrize(("asked", "cv"), [("uniform", 0.0), ("skew=1.0", 1.0)])
def test_the_loads_have_the_skew_asked_for_and_layers_of_their_own(asked, cv):
    model = built("mixtral")
    steer(model, asked, 2)
    listener = Listener(model)
    told = np.concatenate([listener.experts_of(prompt(512)) for _ in range(routing.TABLE_TOKENS // 512)])
    assert (told[..., 0] != told[..., 1]).all()
    loads = np.stack([np.bincount(told[:, layer].ravel(), minlength=8) for layer in range(3)]) / len(told)
    np.testing.assert_allclose(loads.std(axis=1) / loads.mean(axis=1), cv, atol=0.02)
    agree = [(np.sort(told[:, a]) == np.sort(told[:, b])).all(axis=1).mean() for a, b in ((0, 1), (1, 2))]
    assert max(agree) < 0.2
    if cv:
        assert len({tuple(row.argsort()) for row in loads}) == 3  # the busy experts are others in each layer


@pytest.mark.parametrize("way", ["grouped_mm", "batched_mm"])
def test_every_way_of_computing_experts_obeys(way):
    """Against the loop over experts; the scores stay the model's."""
    import torch

    answers = []
    for each in ("eager", way):
        model = built("qwen3_moe", experts_implementation=each)
        steer(model, "skew=0.5", 2)
        with torch.no_grad():
            answers.append(model(input_ids=torch.tensor([prompt(64)])).logits)
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)
    own = built("qwen3_moe")
    with torch.no_grad():
        assert not torch.allclose(own(input_ids=torch.tensor([prompt(64)])).logits, answers[0], atol=1e-4)


def test_the_table_begins_anew_at_its_end():
    import torch

    turns = routing.Turns(torch.device("cpu"))
    turns.next(routing.TABLE_TOKENS - 2)
    turns.next(5)
    assert turns.rows.tolist() == [routing.TABLE_TOKENS - 2, routing.TABLE_TOKENS - 1, 0, 1, 2]


def test_a_model_that_cannot_be_steered_is_told_so_or_keeps_its_own():
    model = built("llama4_text")
    with pytest.raises(ValueError, match=r"engine\.routing = 'uniform' cannot be had: .* every expert"):
        set_up(model, "uniform", True)
    kept = set_up(model, "uniform", False)
    assert kept.how == "model"
    assert kept.listener is not None
    assert "every expert for every token" in kept.notes[0]
    assert hooks(model) == 0


def test_a_family_whose_code_fails_still_runs(monkeypatch):
    model = built("mixtral")
    monkeypatch.setattr(type(model.base_model), "forward", lambda *_, **__: 1 / 0)
    kept = set_up(model, "uniform", False)
    assert (kept.how, kept.listener) == ("model", None)
    assert "cannot be recorded: division by zero" in kept.notes[0]
    with pytest.raises(ValueError, match="cannot be had"):
        set_up(model, "skew=1", True)


@pytest.mark.parametrize(
    ("weights", "asked", "wanted"),
    [
        ("random", "auto", "uniform"),
        ("local", "auto", "model"),
        ("random", "model", "model"),
        ("local", "skew=1", "skew=1"),
    ],
)
def test_random_weights_are_routed_uniformly_unless_asked(weights, asked, wanted, tmp_path):
    model = Model(
        name="m", weights=weights, config={"model_type": "mixtral"}, folder=str(tmp_path), facts=make.FACTS
    )
    config = server_config(EngineSettings(kind="transformers", routing=asked), model)
    assert (config.routing, config.routing_asked) == (wanted, asked != "auto")
