"""What a checkpoint's ``quantization_config`` says: bytes of a weight, scales included, and of which weights.

Bytes are those of the file formats, which engines keep in memory as they are.  Formats: FP8 with block scales
(DeepSeek-V3, arXiv 2412.19437 §3.3), MXFP4 (OCP MX v1.0), NVFP4 (one FP8 scale for 16 weights), GPTQ and AWQ
(a 2-byte scale and a packed zero point a group), compressed-tensors, bitsandbytes (arXiv 2305.14314 §3).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

from msgspec import Struct

from profiler.errors import InputError

Config = dict[str, Any]
PLAIN_BYTES = 2.0  # of what a format leaves alone
MXFP4_BYTES = (4 + 8 / 32) / 8
NVFP4_BYTES = (4 + 8 / 16) / 8
SKIPPED = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules", "llm_int8_skip_modules")
# A layer's modules by what they are for, as checkpoints name them; the layer is put in.
MODULES = {
    "attention": ("model.layers.{}.self_attn.q_proj", "model.layers.{}.self_attn.o_proj"),
    "routed": ("model.layers.{}.mlp.experts.0.down_proj",),
    "other": ("model.layers.{}.mlp.down_proj", "model.layers.{}.mlp.shared_experts.down_proj"),
}


class Quantization(Struct, frozen=True, kw_only=True):
    """Bytes of a weight by what it is for; ``eight_bit``: the products are done in 8 bits (or fewer), not in
    16.  ``cache_bytes`` of a cached number, None where nothing is said of it."""

    attention: float
    routed: float
    other: float
    eight_bit: bool = False
    cache_bytes: float | None = None


def read(found: Config, layers: int) -> Quantization:
    """The meaning of a ``quantization_config`` in a model of ``layers`` layers, judged by the middle one.

    Raises InputError, naming the key that is of the wrong kind.
    """
    method = str(found.get("quant_method") or "")
    if method in ("compressed-tensors", "compressed_tensors"):
        return _compressed(found, layers)
    each = _BYTES.get(method, _of_bits)(found)
    skipped = _skipped(found)
    if method == "mxfp4" and not skipped:  # gpt-oss: the experts; the rest stays in two bytes
        return Quantization(attention=PLAIN_BYTES, routed=each, other=PLAIN_BYTES)
    sizes = {kind: _mean(kind, layers, lambda name: not _names(skipped, name), each) for kind in MODULES}
    return Quantization(
        **sizes,
        eight_bit=method in ("fp8", "fbgemm_fp8", "mxfp8", "nvfp4", "modelopt", "modelopt_fp4"),
    )


def block(found: Config) -> int:
    """Weights of a row that share a scale, so that no cut may part them; 1 where any cut will do."""
    sides = found.get("weight_block_size")
    group = sides[0] if isinstance(sides, list) and sides else found.get("group_size")
    return _number("group_size", group, least=-1) if isinstance(group, int) and group > 0 else 1


# ------------------------------------------------------------------------------------------- formats


def _fp8(found: Config) -> float:
    """A byte and, for every block of the matrix, a 4-byte scale."""
    block = found.get("weight_block_size")
    if block is None:
        return 1.0
    if not isinstance(block, list) or not all(isinstance(side, int) and side > 0 for side in block):
        raise _wrong("weight_block_size", block, "a list of whole numbers from 1 up")
    area = 1
    for side in block:
        area *= side
    return 1.0 + 4 / area


def _of_bits(found: Config) -> float:
    """GPTQ, AWQ and their like: the bits, and of every group a 2-byte scale and a zero point of as many bits.
    An unnamed number of bits is taken to be 8."""
    bits = next((found[key] for key in ("bits", "w_bit", "num_bits") if found.get(key) is not None), None)
    if bits is None and found.get("quant_method") in ("gptq", "awq", "auto-round"):
        bits = 4
    each = _number("bits", 8 if bits is None else bits) / 8
    group = _number("group_size", found.get("group_size", 128), least=-1)
    return each + ((2 + each) / group if bits is not None and group > 0 else 0)


def _bitsandbytes(found: Config) -> float:
    """8 bits, or 4 and a 4-byte scale for 64 weights; doubly quantized, that scale is a byte and one of 4
    bytes for 256 of them (QLoRA, arXiv 2305.14314 §3)."""
    if not found.get("load_in_4bit"):
        return 1.0
    return 0.5 + (1 / 64 + 4 / (64 * 256) if found.get("bnb_4bit_use_double_quant") else 4 / 64)


def _modelopt(found: Config) -> float:
    return NVFP4_BYTES if "FP4" in str(found.get("quant_algo", "")) else 1.0


_BYTES: dict[str, Callable[[Config], float]] = {
    "fp8": _fp8,
    "fbgemm_fp8": lambda _found: 1.0,
    "mxfp4": lambda _found: MXFP4_BYTES,
    "mxfp8": lambda _found: 1 + 1 / 32,
    "nvfp4": lambda _found: NVFP4_BYTES,
    "modelopt": _modelopt,
    "modelopt_fp4": lambda _found: NVFP4_BYTES,
    "bitsandbytes": _bitsandbytes,
}


def _compressed(found: Config, layers: int) -> Quantization:
    """compressed-tensors: groups of modules with a scheme each; other linear layers are left alone."""
    groups = found.get("config_groups") or {}
    if not isinstance(groups, dict) or not all(isinstance(group, dict) for group in groups.values()):
        raise _wrong("config_groups", groups, "an object of objects")
    skipped = _skipped(found)
    sizes = dict.fromkeys(MODULES, PLAIN_BYTES)
    narrow = False
    for group in groups.values():
        weights = group.get("weights") or {}
        targets = [target for target in group.get("targets") or ["Linear"] if isinstance(target, str)]
        each = _scheme_bytes(weights)

        def meant(name: str, targets: list[str] = targets) -> bool:
            return ("Linear" in targets or _names(targets, name)) and not _names(skipped, name)

        for kind in MODULES:
            share = _mean(kind, layers, meant, each)
            sizes[kind] = min(sizes[kind], share)
        narrow = narrow or bool(group.get("input_activations"))
    cache = (found.get("kv_cache_scheme") or {}).get("num_bits")
    return Quantization(
        **sizes,
        eight_bit=narrow,
        cache_bytes=None if cache is None else _number("kv_cache_scheme.num_bits", cache) / 8,
    )


def _scheme_bytes(weights: Config) -> float:
    bits, group = _number("num_bits", weights.get("num_bits", 8)), weights.get("group_size")
    if weights.get("strategy") == "block":
        return bits / 8 + _fp8({"weight_block_size": weights.get("block_structure")}) - 1
    if group is None or _number("group_size", group, least=-1) <= 0:
        return bits / 8
    if weights.get("type") == "float" and bits == 4:
        return NVFP4_BYTES if group == 16 else MXFP4_BYTES
    zero_point = 0 if weights.get("symmetric", True) else bits / 8
    return float(bits / 8 + (2 + zero_point) / group)


# ------------------------------------------------------------------------------------------- modules


def _skipped(found: Config) -> list[str]:
    for key in SKIPPED:
        names = found.get(key)
        if names is not None:
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise _wrong(key, names, "a list of strings")
            return names
    return []


def _mean(kind: str, layers: int, quantized: Callable[[str], bool], each: float) -> float:
    """Bytes of a weight of this kind, where a format takes all its modules or leaves them alone."""
    names = [name.format(layers // 2) for name in MODULES[kind]]
    return each if all(quantized(name) for name in names) else PLAIN_BYTES


def _names(patterns: list[str], module: str) -> bool:
    """Whether one of ``patterns`` (``re:…``, with ``*``, or a part of the dotted path) means the module."""
    return any(_means(pattern, module) for pattern in patterns)


def _means(pattern: str, module: str) -> bool:
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], module) is not None
        except re.error:
            raise _wrong("ignore", pattern, "a regular expression after re:") from None
    if "*" in pattern:
        return fnmatchcase(module, pattern) or fnmatchcase(module, f"{pattern}.*")
    return f".{pattern}." in f".{module}."


def _number(key: str, value: object, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 1 << 20:
        raise _wrong(key, value, f"a whole number from {least} up")
    return value


def _wrong(key: str, value: object, expected: str) -> InputError:
    return InputError(f"quantization_config.{key} is {value!r:.60}, expected {expected}")
