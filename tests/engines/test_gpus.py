"""CUDA_VISIBLE_DEVICES, read as CUDA reads it, over the GPUs that NVML lists."""

from __future__ import annotations

import pytest

from profiler.engines import gpus

PRESENT = (("GPU-aaaa", 80), ("GPU-abbb", 80), ("GPU-cccc", 24))


@pytest.mark.parametrize(
    ("names", "uuids"),
    [
        (None, ["GPU-aaaa", "GPU-abbb", "GPU-cccc"]),
        ("1,0", ["GPU-abbb", "GPU-aaaa"]),
        (" 2 ", ["GPU-cccc"]),
        ("GPU-cc", ["GPU-cccc"]),
        ("GPU-abbb,0", ["GPU-abbb", "GPU-aaaa"]),
        ("0,7,1", ["GPU-aaaa"]),
        ("-1,0", []),
        ("", []),
    ],
)
def test_visible_devices(monkeypatch, names, uuids):
    monkeypatch.setattr(gpus, "_present", lambda: PRESENT)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    env = {} if names is None else {"CUDA_VISIBLE_DEVICES": names}
    assert [uuid for uuid, _ in gpus.visible_gpus(env)] == uuids


def test_the_engines_environment_wins_over_ours(monkeypatch):
    monkeypatch.setattr(gpus, "_present", lambda: PRESENT)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert gpus.visible_gpus()[0] == ("GPU-aaaa", 80)
    assert gpus.visible_gpus({"CUDA_VISIBLE_DEVICES": "2"}) == (("GPU-cccc", 24),)
