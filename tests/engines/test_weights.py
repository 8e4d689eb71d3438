"""Weights by kind: names of published architectures, ties, packed layers, and real modules."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from profiler.engines import weights


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model.layers.3.mlp.experts.w13_weight", "routed_expert_bytes"),  # vLLM
        ("model.layers.0.mlp.experts.gate_up_proj", "routed_expert_bytes"),  # transformers 5
        ("model.layers.0.block_sparse_moe.experts.7.w1.weight", "routed_expert_bytes"),  # Mixtral, older
        ("model.layers.0.block_sparse_moe.input_linear.weight", "routed_expert_bytes"),  # GraniteMoE
        ("model.layers.0.block_sparse_moe.router.layer.weight", "dense_bytes"),
        ("model.layers.1.mlp.shared_expert.up_proj.weight", "shared_expert_bytes"),  # Qwen2-MoE
        ("model.layers.1.mlp.shared_expert_gate.weight", "shared_expert_bytes"),
        ("model.layers.1.mlp.shared_experts.down_proj.weight", "shared_expert_bytes"),  # DeepSeek
        ("model.layers.1.mlp.experts.shared_experts.down_proj.weight", "shared_expert_bytes"),
        ("model.layers.1.shared_mlp.input_linear.weight", "shared_expert_bytes"),  # GraniteMoE-shared
        ("model.embed_tokens.weight", "embedding_bytes"),
        ("lm_head.weight", "embedding_bytes"),
        ("model.layers.0.mlp.gate.weight", "dense_bytes"),
        ("model.layers.0.mlp.gate.e_score_correction_bias", "dense_bytes"),
        ("model.layers.0.self_attn.q_proj.weight", "dense_bytes"),
        ("visual.patch_embed.proj.weight", "dense_bytes"),
        ("model.norm.weight", "dense_bytes"),
    ],
)
def test_names_say_what_a_weight_is_for(name, kind):
    assert weights.kind_of(name) == kind


def test_tied_weights_count_once_and_every_byte_is_in_one_kind():
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.embed_tokens = torch.nn.Embedding(10, 4)
    model.lm_head = torch.nn.Linear(4, 10, bias=False)
    # Two parameters over one storage, as some checkpoints tie them.
    model.lm_head.weight = torch.nn.Parameter(model.embed_tokens.weight.data)
    model.experts = torch.nn.Linear(4, 6, bias=False)
    model.register_buffer("inv_freq", torch.ones(3))
    found = weights.bytes_by_kind(model)
    assert found == {
        "dense_bytes": 12,
        "routed_expert_bytes": 96,
        "shared_expert_bytes": 0,
        "embedding_bytes": 160,
    }


def test_weights_that_a_library_keeps_in_its_own_layout_are_counted_by_their_shape():
    torch = pytest.importorskip("torch")
    model = torch.nn.Module()
    model.o_proj = torch.nn.Module()
    model.o_proj.weight = torch.nn.Parameter(torch.empty(0, dtype=torch.bfloat16), requires_grad=False)
    model.o_proj.input_size_per_partition, model.o_proj.output_size_per_partition = 64, 32
    assert sum(weights.bytes_by_kind(model).values()) == 0, "an empty layer that nothing was packed from"
    model.o_proj.cpu_linear = lambda *_: None
    assert weights.bytes_by_kind(model)["dense_bytes"] == 64 * 32 * 2


def test_what_lies_outside_torchs_allocator_is_taken_from_the_device(monkeypatch):
    torch = pytest.importorskip("torch")
    stats = {
        "allocated_bytes.all.peak": 70,
        "reserved_bytes.all.peak": 90,
        "reserved_bytes.all.current": 80,
    }
    cuda = SimpleNamespace(memory_stats=lambda: stats, mem_get_info=lambda: (15, 100))
    monkeypatch.setattr(torch, "cuda", cuda)
    assert weights.cuda_memory() == {
        "allocated_peak_bytes": 70,
        "torch_reserved_bytes": 90,
        "device_total_bytes": 100,
        "runtime_bytes": 100 - 15 - 80,
    }
