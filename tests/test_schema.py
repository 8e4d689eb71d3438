"""Which names hold a credential: none of those may reach a run folder, and no mere setting may be lost."""

from __future__ import annotations

import pytest

from profiler.secret import is_secret


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGINGFACE_TOKEN_READ",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "OPENAI_API_KEY",
        "OPENAI_APIKEY",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "api-key",
        "api_key",
        "hf_token",
        "hf-token",
        "token",
        "password",
        "token_2",
        "aws_access_key_id",
    ],
)
def test_credentials_are_secret(name):
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "max_num_batched_tokens",
        "max-num-batched-tokens",
        "key_env",
        "tokenizer_mode",
        "skip-tokenizer-init",
        "max_tokens",
        "num_kv_blocks",
        "num_lookahead_tokens",
        "ttft_s",
        "itl_s",
        "tokens_per_chunk",
        "prefill_s_per_token",
        "eos_token",
        "eos_token_id",
        "stop_token_ids",
        "VLLM_CPU_KVCACHE_SPACE",
        "monkey",
        "long_prefill_token_threshold",
        "dbo-decode-token-threshold",
        "image_token_index",
        "linear_key_head_dim",
        "",
    ],
)
def test_settings_are_not(name):
    assert not is_secret(name)
