"""The work of a step: against the operations torch counts in real modules, and by its own laws.

Where transformers computes otherwise than an engine: it multiplies a prompt's tokens with all others, later
ones too (an engine skips those); it rebuilds all latent keys and values at every step of decoding (an engine
absorbs that); its recurrent steps and chunks are written out in PyTorch.
"""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import arch, catalog
from profiler.arch import work
from profiler.arch.recurrent import CHUNK_TOKENS
from tests.arch.test_facts import MODELS, ONE_OF_EACH, small

FOUR = work.Widths(routed=4, other=4, embedding=4, cache=4, activation=4, compute="fp32")
TWO = work.Widths(routed=2, other=2, embedding=2)
PROMPTS, TOKENS = 2, 64
# Which operation a module of transformers belongs to; the first that fits.
MODULES = {
    "routed experts": r"\.mlp\.experts$",
    "router": r"\.mlp\.(gate|router)$",
    "shared experts": r"\.mlp\.shared_experts?(_gate)?$",
    "attention": r"\.self_attn$",
    "recurrence": r"\.linear_attn$",
    "dense feed-forward": r"\.mlp$",
    "head": r"\.lm_head$",
}
KINDS = ["llama", "qwen3_moe", "deepseek_v3", "gpt_oss", "qwen3_next"]


def tiny(kind: str) -> dict:
    config = small(ONE_OF_EACH[kind].config) | {"num_hidden_layers": 4}
    if kind == "deepseek_v3":
        config["num_key_value_heads"] = 4
    return config | ({"sliding_window": 8} if kind == "gpt_oss" else {})


def real(config: dict):
    """The model in transformers, with weights, every operation written out."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    keys = {key: value for key, value in config.items() if key != "model_type"}
    made = AutoConfig.for_model(config["model_type"], **keys)
    return AutoModelForCausalLM.from_config(
        made, attn_implementation="eager", experts_implementation="eager"
    ).eval()


def counted(model, ids, cache=None):
    """Operations by kind, as torch counts them, and the cache they left."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        left = model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values
    sums: Counter[str] = Counter()
    for name, flops in counter.get_flop_counts().items():
        kind = next((kind for kind, pattern in MODULES.items() if re.search(pattern, name)), None)
        if kind:
            sums[kind] += sum(flops.values())
    inside = sums["routed experts"] + sums["router"] + sums["shared experts"]
    sums["dense feed-forward"] -= inside
    return +sums, left


def expected(ops: tuple[work.Op, ...], shape: arch.Shape) -> Counter[str]:
    """The same of the closed form; a module of attention does its projections too."""
    flops = Counter({op.name: round(op.flops) for op in ops})
    projections = flops.pop("attention projections")
    linear = sum(
        kind.count * 2 * (kind.mixer.params - kind.mixer.vector_params)
        for kind in shape.layers
        if kind.mixer.kind == "linear"
    )
    every = sum(kind.count * 2 * (kind.mixer.params - kind.mixer.vector_params) for kind in shape.layers)
    flops["recurrence"] += projections * linear // every
    flops["attention"] += projections * (every - linear) // every
    return +flops


@pytest.mark.parametrize("kind", KINDS)
def test_operations_agree_with_what_torch_counts(kind):
    torch = pytest.importorskip("torch")

    config = tiny(kind)
    shape, model = arch.shape(config), real(config)
    ids = torch.randint(0, 100, (PROMPTS, TOKENS))
    prefill, cache = counted(model, ids)
    batch = work.Batch(prefill_sequences=PROMPTS, prefill_tokens=TOKENS)
    ours = expected(work.step(shape, FOUR, batch), shape)
    ours["attention"] += later_tokens(shape)
    chunked, written_out = ours.pop("recurrence", 0), prefill.pop("recurrence", 0)
    assert ours == prefill
    # The chunks in PyTorch come to within a quarter of the ideal ones (they invert a triangle, too).
    assert chunked == pytest.approx(written_out, rel=0.25)

    decode, _ = counted(model, ids[:, :1], cache)
    batch = work.Batch(decode_sequences=PROMPTS, decode_context=TOKENS)
    ours = expected(work.step(shape, FOUR, batch), shape)
    if kind == "deepseek_v3":
        ours["attention"] += not_absorbed(shape)
    assert ours.pop("recurrence", 0) >= decode.pop("recurrence", 0)  # a step of it has no matrix product
    assert ours == decode


def later_tokens(shape: arch.Shape) -> int:
    """Products of a prompt's tokens with later ones, and with those before a window."""
    total = 0
    for kind in shape.layers:
        mixer, window = kind.mixer, kind.mixer.window_tokens or TOKENS
        seen = sum(min(i, window) for i in range(1, TOKENS + 1))
        total += kind.count * mixer.prefill_flops * PROMPTS * (TOKENS**2 - seen)
    return total


def not_absorbed(shape: arch.Shape) -> int:
    """What attention in full width takes more than on the latent, keys and values rebuilt at every step."""
    return sum(
        PROMPTS * kind.count * ((mixer.prefill_flops - mixer.decode_flops) * (TOKENS + 1) + rebuilt)
        for kind in shape.layers
        for mixer in [kind.mixer]
        for rebuilt in [mixer.rebuild_flops * TOKENS]
    )


def test_absorbed_latent_attention_gives_the_same_and_costs_what_is_said():
    """One new token against a latent cache: with keys and values rebuilt, and on the latent itself."""
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    config = tiny("deepseek_v3")
    heads, nope, rope, value, rank = 4, 8, 4, 12, 16
    mixer, context = arch.layers(config)[0].mixer, 50
    torch.manual_seed(0)
    up_keys, up_values = torch.randn(heads, nope, rank), torch.randn(heads, value, rank)
    latent, rotary = torch.randn(context, rank), torch.randn(context, rope)
    query, query_rotary = torch.randn(heads, nope), torch.randn(heads, rope)

    keys = torch.cat([torch.einsum("hnr,cr->hcn", up_keys, latent), rotary.expand(heads, -1, -1)], -1)
    scores = torch.einsum("hd,hcd->hc", torch.cat([query, query_rotary], -1), keys).softmax(-1)
    rebuilt = torch.einsum("hc,hvr,cr->hv", scores, up_values, latent)

    absorb, attend = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with absorb:
        absorbed = torch.bmm(query[:, None], up_keys)
    with attend:
        wide = torch.cat([absorbed[:, 0], query_rotary], -1)
        weights = (wide @ torch.cat([latent, rotary], -1).T).softmax(-1)
        mixed = weights @ latent
    with absorb:
        out = torch.bmm(mixed[:, None], up_values.transpose(1, 2))[:, 0]

    torch.testing.assert_close(out, rebuilt, rtol=1e-4, atol=1e-4)
    assert attend.get_total_flops() == mixer.decode_flops * context
    assert mixer.rebuild_flops == 2 * rank * heads * (nope + value)  # what absorbing takes a new token
    assert mixer.cache_bytes == (rank + rope) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_weight_bytes_agree_with_the_modules(kind):
    """Every weight is read in a step that touches every expert; of the table of embeddings, a row a token."""
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig, AutoModelForCausalLM

    config = tiny(kind)
    keys = {key: value for key, value in config.items() if key != "model_type"}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **keys))
    read: Counter[str] = Counter()
    for name, tensor in model.named_parameters():
        read[_operation(name)] += tensor.numel() * 4
    shape = arch.shape(config)
    batch = work.Batch(decode_sequences=3, decode_context=10)
    ops = {op.name: op.weight_bytes for op in work.step(shape, FOUR, batch, lambda feed, _: feed.experts)}
    ops["recurrence"] = 0
    assert ops.pop("embedding") == 3 * 64 * 4
    assert read.pop("embedding") == 100 * 64 * 4
    assert {name: size for name, size in ops.items() if size} == read
    assert work.weight_bytes(shape, FOUR) == sum(read.values()) + 100 * 64 * 4


def _operation(name: str) -> str:
    for operation, pattern in {
        "attention projections": r"self_attn|linear_attn",
        "routed experts": r"\.experts\.",
        "shared experts": r"shared_expert",
        "router": r"\.gate\.|\.router\.",
        "dense feed-forward": r"\.mlp\.",
        "norms": r"norm",
        "embedding": r"embed_tokens",
        "head": r"lm_head",
    }.items():
        if re.search(pattern, name):
            return operation
    raise AssertionError(name)


# ---------------------------------------------------------------------------------------------- laws

SHAPES = {name: arch.shape(entry.config) for name, entry in MODELS.items()}
ENTRIES = st.sampled_from(list(MODELS))
COUNTS = st.integers(0, 500)


def sums(ops: tuple[work.Op, ...]) -> dict[str, tuple[float, ...]]:
    return {op.name: (op.flops, op.weight_bytes, op.cache_bytes, op.activation_bytes) for op in ops}


@given(name=ENTRIES, sequences=COUNTS, tokens=COUNTS, context=COUNTS, decoding=COUNTS)
def test_arrays_give_what_numbers_give(name, sequences, tokens, context, decoding):
    import numpy as np

    counts = {
        "prefill_sequences": sequences,
        "prefill_tokens": tokens,
        "prefill_context": context,
        "decode_sequences": decoding,
        "decode_context": context,
    }
    one = work.step(SHAPES[name], TWO, work.Batch(**counts))
    grid = {key: np.array([[value, 1], [2, value]], float) for key, value in counts.items()}
    for op, many in zip(one, work.step(SHAPES[name], TWO, work.Batch(**grid)), strict=True):
        for field in ("flops", "weight_bytes", "cache_bytes", "activation_bytes"):
            several = np.broadcast_to(getattr(many, field), (2, 2))
            assert several[0, 0] == pytest.approx(getattr(op, field), rel=1e-12, abs=1e-6), (op.name, field)


@given(name=ENTRIES, tokens=st.integers(2, 3000), cut=st.integers(1, 2999), sequences=st.integers(1, 9))
def test_a_prompt_in_pieces_costs_what_it_costs_whole(name, tokens, cut, sequences):
    """Operations of attention add up over chunks; but for a latent, of which the earlier part is rebuilt."""
    shape, cut = SHAPES[name], min(cut, tokens - 1)

    def attention(new: int, before: int) -> float:
        batch = work.Batch(prefill_sequences=sequences, prefill_tokens=new, prefill_context=before)
        return sum(op.flops for op in work.step(shape, TWO, batch) if op.name == "attention")

    rebuilt = sum(k.count * k.mixer.rebuild_flops * cut * sequences for k in shape.layers)
    pieces = attention(cut, 0) + attention(tokens - cut, cut) - rebuilt
    assert pieces == pytest.approx(attention(tokens, 0), rel=1e-9)


@given(name=ENTRIES, context=st.integers(0, 20000))
def test_decoding_a_token_is_a_prompt_of_one_but_for_latent_attention(name, context):
    shape = SHAPES[name]
    decode = sums(work.step(shape, TWO, work.Batch(decode_sequences=1, decode_context=context)))
    alone = {"prefill_sequences": 1, "prefill_tokens": 1, "prefill_context": context}
    prompt = sums(work.step(shape, TWO, work.Batch(**alone)))
    for op in decode:
        if op == "recurrence" or any(k.mixer.kind == "latent" for k in shape.layers):
            assert decode[op][1:] == pytest.approx(prompt[op][1:])
        else:
            assert decode[op] == pytest.approx(prompt[op])


@given(name=ENTRIES, tokens=st.integers(1, 100000), sequences=st.integers(1, 50))
def test_cache_is_what_the_facts_say(name, tokens, sequences):
    facts = arch.model_facts(MODELS[name].config, "x")
    window = (facts.attention_window_tokens or 1 << 40) * sequences
    wanted = facts.kv_bytes_per_token * tokens + facts.kv_state_bytes_per_sequence * sequences
    wanted += facts.kv_windowed_bytes_per_token * min(tokens, window)
    assert work.kv_bytes(SHAPES[name], TWO, tokens, sequences) == pytest.approx(wanted)


@pytest.mark.parametrize("name", MODELS)
def test_weights_in_memory_are_the_total(name):
    facts = arch.model_facts(MODELS[name].config, "x")
    assert work.weight_bytes(SHAPES[name], TWO) == 2 * facts.total_params
    ops = work.step(SHAPES[name], TWO, work.Batch(decode_sequences=1, decode_context=0))
    active = sum(op.weight_bytes for op in ops) / 2
    shape = SHAPES[name]
    # One token reads its experts, the whole head and one row of the table.
    table = 0 if shape.tied else shape.input_embedding_params
    assert active == pytest.approx(facts.active_params - table + shape.hidden, rel=1e-12)


def test_a_window_bounds_what_is_read():
    """Mistral 7B reads at most 4096 tokens a sequence and layer; Gemma 3's full layers go on."""
    shape = SHAPES["mistralai/Mistral-7B-v0.1"]
    read = [_read(shape, context) for context in (4000, 5000, 9000)]
    assert read[0] < read[1] == read[2]
    assert _read(SHAPES["google/gemma-3-27b-it"], 9000) > _read(SHAPES["google/gemma-3-27b-it"], 5000)


def _read(shape: arch.Shape, context: int) -> float:
    ops = work.step(shape, TWO, work.Batch(decode_sequences=1, decode_context=context))
    return sum(op.cache_bytes for op in ops)


def test_sparse_attention_reads_the_selected_and_the_index():
    config = small(ONE_OF_EACH["deepseek_v3"].config) | {"model_type": "deepseek_v32", "index_topk": 16}
    config |= {"index_n_heads": 2, "index_head_dim": 16}
    shape = arch.shape(config)
    mixer, layers = shape.layers[0].mixer, 8
    latent, index = (16 + 4) * 2, 16 * 2
    assert mixer.cache_bytes == latent + index
    assert _read(shape, 1000) == layers * (1000 * index + 16 * latent + latent + index)
    per_pair = (_flops(shape, 2000) - _flops(shape, 1000)) / 1000
    assert per_pair == layers * mixer.index_flops == layers * 2 * 2 * 16


def _flops(shape: arch.Shape, context: int) -> float:
    ops = work.step(shape, TWO, work.Batch(decode_sequences=1, decode_context=context))
    return next(op.flops for op in ops if op.name == "attention")


def test_distinct_experts_are_the_callers():
    shape = arch.shape(catalog.tiny_models()["tiny-moe"])
    batch = work.Batch(decode_sequences=8, decode_context=10)
    routed = {op.name: op for op in work.step(shape, TWO, batch, lambda feed, tokens: 3)}["routed experts"]
    feed = next(kind.feed for kind in shape.layers if kind.feed.experts)
    assert routed.distinct == 3
    assert routed.weight_bytes == routed.layers * 3 * feed.expert_params * 2
    uniform = {op.name: op for op in work.step(shape, TWO, batch)}["routed experts"]
    assert uniform.distinct == feed.experts * (1 - (1 - feed.per_token / feed.experts) ** 8)
    assert uniform.flops == routed.flops


def test_the_chunk_is_that_of_transformers():
    import inspect

    pytest.importorskip("torch")
    from transformers.models.qwen3_next import modeling_qwen3_next as modeling

    rule = inspect.signature(modeling.torch_chunk_gated_delta_rule)
    assert rule.parameters["chunk_size"].default == CHUNK_TOKENS
