"""Which hosts may be compared."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from profiler.host_facts import differences
from profiler.schema import Gpu, Host

H100 = Gpu(uuid="GPU-1", name="H100", memory_bytes=80 << 30, power_limit_w=700.0)
HOST = Host(
    hostname_hash="abc",
    os="Debian",
    cpu="EPYC 9654",
    cores=16,
    memory_bytes=1 << 37,
    gpus=(H100,),
    driver="580.65",
    python="3.11.7",
    packages={"torch": "2.13.0", "vllm": "0.32.0", "numpy": "2.3.5"},
)


def test_what_does_not_matter_does_not_differ() -> None:
    other = replace(
        HOST,
        hostname_hash="xyz",
        os="Ubuntu",
        memory_bytes=1 << 38,
        python="3.12.1",
        gpus=(replace(H100, uuid="GPU-9"),),
        packages={**HOST.packages, "numpy": "2.4.0"},
    )
    assert differences(HOST, HOST) == differences(HOST, other) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"cpu": "Xeon 8480"}, "CPU EPYC 9654 ≠ Xeon 8480"),
        ({"cores": 8}, "cores 16 ≠ 8"),
        ({"gpus": ()}, "GPUs 1 × H100 (700 W) ≠ none"),
        ({"gpus": (H100, H100)}, "GPUs 1 × H100 (700 W) ≠ 2 × H100 (700 W)"),
        ({"gpus": (replace(H100, power_limit_w=500.0),)}, "GPUs 1 × H100 (700 W) ≠ 1 × H100 (500 W)"),
        ({"driver": None}, "driver 580.65 ≠ none"),
        ({"packages": {**HOST.packages, "torch": "2.12.1"}}, "torch 2.13.0 ≠ 2.12.1"),
        ({"packages": {"torch": "2.13.0"}}, "vllm 0.32.0 ≠ absent"),
    ],
)
def test_what_matters_is_named_with_both_values(change: dict[str, Any], line: str) -> None:
    assert differences(HOST, replace(HOST, **change)) == [line]


def test_only_the_packages_asked_about_count() -> None:
    other = replace(HOST, packages={**HOST.packages, "vllm": "0.31.0"})
    assert differences(HOST, other, packages=("torch", "transformers")) == []


def test_gpus_are_compared_in_any_order() -> None:
    a, b = replace(H100, uuid="GPU-a"), replace(H100, uuid="GPU-b", name="L40S", power_limit_w=None)
    one, other = replace(HOST, gpus=(a, b)), replace(HOST, gpus=(b, a))
    assert differences(one, other) == []
    assert differences(HOST, one) == ["GPUs 1 × H100 (700 W) ≠ 1 × H100 (700 W) + 1 × L40S"]
