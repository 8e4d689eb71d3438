"""What vLLM says of itself, in the words of each version.

``tests/engines/fixtures/README.md`` says which pages and logs were recorded and which composed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.telemetry.engine_metrics import parse

FIXTURES = Path(__file__).resolve().parent.parent / "engines" / "fixtures"
COMPOSED = ("0.8.5_v0", "0.8.5", "0.9.2", "0.10.2", "0.11.2", "0.19.1", "0.25.1")
WHOLE = {
    "kv_cache_usage_frac": 0.25,
    "requests_running": 3,
    "requests_waiting": 2,
    "preemptions": 1,
    "prompt_tokens": 4096,
    "generation_tokens": 512,
    "prefix_cache_query_tokens": 4096,
    "prefix_cache_hit_tokens": 1024,
}
# V0 tells only a rate of hits; 0.8.5 counts blocks, whose size its page does not say.
IN_TOKENS = {"prefix_cache_query_tokens", "prefix_cache_hit_tokens"}


@pytest.mark.parametrize("version", COMPOSED)
def test_a_page_of_each_version_gives_the_same_figures_under_our_names(version):
    found = parse((FIXTURES / f"metrics_{version}.prom").read_text())
    missing = IN_TOKENS if version.startswith("0.8.5") else set()
    assert found == {name: value for name, value in WHOLE.items() if name not in missing}


def test_two_spellings_of_one_counter_are_not_added_up():
    page = 'vllm:gpu_prefix_cache_hits_total{engine="0"} 8\nvllm:prefix_cache_hits_total{engine="0"} 8\n'
    assert parse(page) == {"prefix_cache_hit_tokens": 8}


def test_blocks_are_not_called_tokens():
    counted = "vllm:gpu_prefix_cache_hits_total 8\n"
    of = "# HELP vllm:gpu_prefix_cache_hits_total GPU prefix cache hits, in terms of number of cached "
    assert parse(f"{of}blocks.\n{counted}") == {}
    assert parse(f"{of}tokens.\n{counted}") == {"prefix_cache_hit_tokens": 8}
