"""Closed-form counts against the catalog's independent figures and against real transformers modules."""

from __future__ import annotations

import copy
import re

import pytest

from profiler import arch, catalog
from profiler.engines import weights
from profiler.errors import InputError
from profiler.schema import ModelFacts

MODELS = catalog.models()

# Every count of a catalog config, shrunk; keys a family does not have are left out.
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "intermediate_size": 96,
    "intermediate_size_mlp": 112,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 48,
    "num_experts": 8,
    "num_local_experts": 8,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 100,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 12,
    "q_lora_rank": 20,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "max_window_layers": 8,
    "n_group": 1,
    "topk_group": 1,
}
DROPPED = ("text_config", "vision_config", "layer_types", "architectures", "rope_scaling", "rope_parameters")
# Where transformers' text model has another name; ``deepseek`` has none, Dots1 differs by its q/k norms only.
CLASSES = {
    "kimi_k2": "deepseek_v3",
    "deepseek": "dots1",
    "qwen2_5_vl": "qwen2",
    "qwen3_vl_moe_text": "qwen3_moe",
    "llama4": "llama4_text",
}
ONE_OF_EACH = {arch.text_config(entry.config)["model_type"]: entry for entry in reversed(MODELS.values())}
VARIANTS = [
    ("llama", {"attention_bias": True, "mlp_bias": True}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 4}),
    ("qwen3", {"attention_bias": True, "tie_word_embeddings": True}),
    ("qwen3_moe", {"decoder_sparse_step": 2}),
    ("qwen3_moe", {"mlp_only_layers": [0, 3]}),
    ("qwen2_moe", {"decoder_sparse_step": 3, "mlp_only_layers": [2]}),
    ("deepseek_v3", {"q_lora_rank": None}),
    ("deepseek_v3", {"attention_bias": True, "first_k_dense_replace": 4}),
    ("deepseek_v2", {"n_shared_experts": 3}),
    ("glm4_moe", {"attention_bias": False, "use_qk_norm": True}),
    ("gemma2", {"attention_bias": True}),
    ("llama4_text", {"interleave_moe_layer_step": 2}),
    ("granitemoe", {"attention_bias": True, "tie_word_embeddings": False}),
    ("olmoe", {"attention_bias": True}),
    ("mixtral", {"head_dim": 40}),
    ("phi3", {}),
]


def small(config: dict) -> dict:
    text = copy.deepcopy(arch.text_config(config))
    text = {key: value for key, value in text.items() if key not in DROPPED and not key.endswith("token_id")}
    return text | {key: value for key, value in SMALL.items() if text.get(key)} | {"pad_token_id": None}


def count(config: dict) -> dict[str, int]:
    """Parameters of the real modules by what they are for, built without memory."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = CLASSES.get(config["model_type"], config["model_type"])
    keys = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **keys))
    sizes = dict.fromkeys(("dense_bytes", *weights.KINDS), 0)
    for name, tensor in model.named_parameters():
        if config["model_type"] != "deepseek" or not re.search(r"[qk]_norm", name):
            sizes[weights.kind_of(name)] += tensor.numel()
    return sizes


def implied(facts: ModelFacts) -> dict[str, int]:
    """The same of the closed form."""
    parts = {
        "routed_expert_bytes": facts.routed_expert_params,
        "shared_expert_bytes": facts.shared_expert_params,
        "embedding_bytes": facts.embedding_params,
    }
    return {"dense_bytes": facts.total_params - sum(parts.values())} | parts


@pytest.mark.parametrize("entry", MODELS.values(), ids=lambda entry: entry.id)
def test_published_models_agree_exactly_with_the_catalog(entry):
    facts = arch.model_facts(entry.config, entry.source)
    kv = entry.kv_cache_bytes_per_token_bf16
    assert facts.kind == entry.kind
    assert facts.total_params == entry.computed_text_params
    assert facts.active_params == entry.computed_active_params
    assert facts.routed_expert_params == entry.computed_routed_expert_params
    assert facts.kv_bytes_per_token == kv.full
    assert facts.kv_windowed_bytes_per_token == kv.windowed
    assert facts.attention_window_tokens == kv.window
    assert facts.kv_state_bytes_per_sequence == kv.state_bytes_per_seq
    assert facts.source == entry.source


@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_every_family_agrees_exactly_with_transformers(kind):
    config = small(ONE_OF_EACH[kind].config)
    facts = arch.model_facts(config, "made up")
    assert implied(facts) == count(config)


@pytest.mark.parametrize(("kind", "changes"), VARIANTS, ids=str)
def test_variants_agree_exactly_with_transformers(kind, changes):
    base = ONE_OF_EACH.get(kind) or ONE_OF_EACH["llama"]
    config = small(base.config) | {"model_type": kind} | changes
    facts = arch.model_facts(config, "made up")
    assert implied(facts) == count(config)


@pytest.mark.parametrize("name", ["tiny-moe", "tiny-dense", "tiny-dense-active"])
def test_the_trio_agrees_exactly_with_transformers(name):
    config = catalog.tiny_models()[name]
    facts = arch.model_facts(config, "built in")
    assert implied(facts) == count(config)


def test_the_trio_is_comparable():
    """Of equal total and of equal active size: that is what the comparison rests on."""
    moe, dense, active = (
        arch.model_facts(catalog.tiny_models()[name], "built in")
        for name in ("tiny-moe", "tiny-dense", "tiny-dense-active")
    )
    assert (moe.kind, dense.kind, active.kind) == ("moe", "dense", "dense")
    assert dense.total_params == pytest.approx(moe.total_params, rel=0.01)
    assert active.total_params == pytest.approx(moe.active_params, rel=0.02)
    assert moe.vocab_size == dense.vocab_size == active.vocab_size
    assert moe.kv_bytes_per_token == dense.kv_bytes_per_token == active.kv_bytes_per_token


def test_active_is_total_without_the_experts_not_chosen():
    facts = arch.model_facts(MODELS["Qwen/Qwen3-30B-A3B"].config, "x")
    chosen = facts.routed_expert_params * facts.experts_per_token // facts.experts
    assert facts.active_params == facts.total_params - facts.routed_expert_params + chosen
    assert (facts.experts, facts.experts_per_token, facts.layers) == (128, 8, 48)


@pytest.mark.parametrize(
    ("name", "field", "published"),
    [
        ("Qwen/Qwen3-30B-A3B", "active_params", 3.3e9),
        ("openai/gpt-oss-120b", "active_params_no_input_embedding", 5.13e9),
        ("openai/gpt-oss-20b", "active_params_no_input_embedding", 3.61e9),
        ("deepseek-ai/DeepSeek-V3", "active_params_no_input_embedding", 37e9),
        ("zai-org/GLM-4.5-Air", "active_params_no_embedding", 12e9),
    ],
)
def test_active_parameters_by_the_convention_of_their_maker(name, field, published):
    assert getattr(arch.shape(MODELS[name].config), field) == pytest.approx(published, rel=0.02)


def test_cache_of_each_kind_of_attention():
    """Grouped 2·2·heads·width·layers; latent 2·(512 + 64)·layers, one for all heads; half windowed."""
    grouped = arch.model_facts(MODELS["Qwen/Qwen2.5-72B"].config, "x")
    assert grouped.kv_bytes_per_token == 2 * 2 * 8 * 128 * 80
    assert grouped.kv_heads == 8
    latent = arch.model_facts(MODELS["deepseek-ai/DeepSeek-V3"].config, "x")
    assert latent.kv_bytes_per_token == 2 * (512 + 64) * 61
    assert latent.kv_heads == 1
    halves = arch.model_facts(MODELS["openai/gpt-oss-20b"].config, "x")
    assert halves.kv_bytes_per_token == halves.kv_windowed_bytes_per_token == 2 * 2 * 8 * 64 * 12
    assert halves.attention_window_tokens == 128


def test_layers_add_up_to_the_model():
    config = MODELS["Qwen/Qwen3.5-35B-A3B"].config
    stack, facts = arch.layers(config), arch.model_facts(config, "x")
    text = arch.text_config(config)
    outside = 2 * facts.vocab_size * text["hidden_size"] + text["hidden_size"]
    assert sum(layer.params for layer in stack) + outside == facts.total_params
    assert [layer.mixer.kind for layer in stack[:4]] == ["linear", "linear", "linear", "full"]
    assert sum(kind.count for kind in arch.shape(config).layers) == len(stack) == facts.layers


def test_an_unknown_architecture_is_named():
    with pytest.raises(arch.UnsupportedArchitectureError, match=r"MambaForCausalLM .*'mamba'"):
        arch.model_facts({"architectures": ["MambaForCausalLM"], "model_type": "mamba"}, "x")
    with pytest.raises(InputError, match="did you mean 'qwen3_moe'"):
        arch.model_facts({"model_type": "qwen3_mo"}, "x")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"vocab_size": "many"}, "vocab_size is 'many', expected a whole number from 1 up"),
        ({"num_experts_per_tok": None}, "num_experts_per_tok is missing"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
        ({"num_experts": None}, "num_experts is missing"),
        ({"num_experts": 0}, "num_experts is 0"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0, expected a whole number from 1 up"),
        ({"num_attention_heads": 4096, "head_dim": None}, "num_attention_heads is 4096, expected at most"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0"),
        (
            {"num_key_value_heads": 5},
            "num_key_value_heads is 5, expected a divisor of num_attention_heads",
        ),
        ({"num_experts_per_tok": 129}, "num_experts_per_tok is 129, expected a whole number from 1 to 128"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, expected .* to 10000"),
        ({"max_position_embeddings": "long"}, "max_position_embeddings is 'long', expected a whole number"),
        ({"layer_types": 5}, "layer_types is 5, expected a list of strings"),
        ({"mlp_only_layers": ["a"]}, r"mlp_only_layers is \['a'\], expected a list of whole numbers"),
        ({"sliding_window": "x"}, "sliding_window is 'x'"),
        ({"decoder_sparse_step": 0}, "decoder_sparse_step is 0"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no', expected true or false"),
        ({"architectures": 5}, "architectures is 5, expected a list of strings"),
        ({"text_config": [1]}, r"text_config is \[1\], expected an object"),
        ({"model_type": 3}, "model_type is 3, expected a string"),
        ({"vocab_size": "many " * 100}, "vocab_size is 'many many .{0,60}…, expected"),
    ],
)
def test_a_broken_config_names_its_key(change, words):
    config = {**MODELS["Qwen/Qwen3-30B-A3B"].config, **change}
    with pytest.raises(InputError, match=words):
        arch.model_facts(config, "x")


def test_a_kind_of_layer_we_do_not_know_is_no_guess():
    """Its mixer is left out, and that is said."""
    config = MODELS["Qwen/Qwen3-30B-A3B"].config
    odd = {**config, "layer_types": ["full_attention"] * 46 + ["mamba", "mamba"]}
    facts, known = arch.model_facts(odd, "x"), arch.model_facts(config, "x")
    assert facts.missing == ("the mixers of 2 layers of type 'mamba'",)
    assert known.missing == ()
    mixer = arch.layers(config)[0].mixer
    assert facts.total_params == known.total_params - 2 * mixer.params
    assert facts.kv_bytes_per_token == known.kv_bytes_per_token - 2 * mixer.cache_bytes


def test_null_is_as_good_as_absent():
    config = MODELS["Qwen/Qwen3-30B-A3B"].config
    optional = ("decoder_sparse_step", "mlp_only_layers", "sliding_window", "use_sliding_window")
    bare = {key: value for key, value in config.items() if key not in optional}
    assert arch.model_facts({**bare, **dict.fromkeys(optional)}, "x") == arch.model_facts(bare, "x")
