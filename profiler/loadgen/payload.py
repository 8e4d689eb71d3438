"""A planned request → the bytes that go on the wire."""

from __future__ import annotations

from typing import Any

import msgspec

from profiler.loadgen.client import Target
from profiler.schema import Endpoint
from profiler.workload import Plan, PlannedRequest

# For endpoints whose vocabulary we do not know.  Small on purpose: an id beyond the vocabulary kills a
# server that does not check (vLLM without a tokenizer), and it may be somebody's only one.
ASSUMED_VOCAB = 1024


def build(endpoint: Endpoint, target: Target, plan: Plan, planned: PlannedRequest) -> bytes:
    """The whole HTTP request, head and body, ready to be written in one piece."""
    body = msgspec.json.encode(request_of(endpoint, plan, planned))
    key = f"authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else ""
    head = (
        f"POST {target.path} HTTP/1.1\r\nhost: {target.host_header}\r\n{key}"
        f"content-type: application/json\r\naccept: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def request_of(endpoint: Endpoint, plan: Plan, planned: PlannedRequest) -> dict[str, Any]:
    """The request body.  Asked for an exact number of greedy tokens, with usage and, where known, ids."""
    request: dict[str, Any] = {
        "model": endpoint.model,
        "max_tokens": planned.output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if endpoint.ignores_eos:
        request["ignore_eos"] = True
    if endpoint.returns_ids:
        request["return_token_ids"] = True
    if endpoint.protocol == "chat":
        request["messages"] = [{"role": "user", "content": plan.text(planned)}]
    elif endpoint.prompt == "ids":
        request["prompt"] = plan.prompt(planned)
    else:
        request["prompt"] = plan.text(planned)
    return request
