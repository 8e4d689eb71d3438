"""What a loaded model takes in memory, by what it is for (runs in an engine's process only).

The names of modules decide: ``experts`` are those a router chooses from, ``shared_expert`` every token's,
``embed_tokens`` and ``lm_head`` the embeddings, the rest (attention, dense feed-forward, router, norms, a
vision tower) the dense part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

KINDS = {
    "shared_expert_bytes": re.compile(r"(^|\.)shared_(experts?(_gate)?|mlp)(\.|$)"),
    "routed_expert_bytes": re.compile(r"(^|\.)(experts|block_sparse_moe\.(in|out)put_linear)(\.|$)"),
    "embedding_bytes": re.compile(
        r"(^|\.)(embed_tokens|wte|embed_in|(model|backbone)\.embeddings|lm_head|embed_out)(\.|$)"
    ),
}
REST = "dense_bytes"


def kind_of(name: str) -> str:
    """Which field of the memory account a parameter of this dotted name counts into."""
    return next((kind for kind, pattern in KINDS.items() if pattern.search(name)), REST)


def bytes_by_kind(model: Any) -> dict[str, int]:
    """Bytes of all parameters and buffers by kind; what is tied or shared counts once."""
    sizes = dict.fromkeys((REST, *KINDS), 0)
    seen: set[int] = set()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.nbytes and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            sizes[kind_of(name)] += int(tensor.nbytes)
    for name, size in _packed(model):
        sizes[kind_of(name)] += size
    return sizes


def _packed(model: Any) -> Iterator[tuple[str, int]]:
    """Weights that vLLM's CPU build keeps in a library's own layout (oneDNN), out of the module: what is left
    is an empty parameter and the layer's shape, by which they are counted."""
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        rows, columns = (getattr(module, f"{side}_size_per_partition", None) for side in ("output", "input"))
        if hasattr(module, "cpu_linear") and weight is not None and not weight.numel() and rows and columns:
            yield name, int(rows) * int(columns) * int(weight.element_size())


def cuda_memory() -> dict[str, int]:
    """Of this process's GPU in bytes: torch's allocator, and what is taken outside it, by whomever.

    The device's total is CUDA's, which leaves the driver's own reserve out.
    """
    import torch

    stats = torch.cuda.memory_stats()
    free, total = torch.cuda.mem_get_info()
    return {
        "allocated_peak_bytes": int(stats["allocated_bytes.all.peak"]),
        "torch_reserved_bytes": int(stats["reserved_bytes.all.peak"]),
        "device_total_bytes": int(total),
        "runtime_bytes": int(total - free - stats["reserved_bytes.all.current"]),
    }
