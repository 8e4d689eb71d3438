"""A planned request → the bytes that go on the wire, at the price of a copy.

Everything that is the same in all requests to an endpoint is written once.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import msgspec

from profiler.loadgen.client import Target
from profiler.schema import Endpoint
from profiler.workload import Plan, PlannedRequest
from profiler.workload.prompts import Buffer

# For endpoints whose vocabulary we do not know.  Small on purpose: an id beyond the vocabulary kills a
# server that does not check (vLLM without a tokenizer), and it may be somebody's only one.
ASSUMED_VOCAB = 1024


def build(endpoint: Endpoint, target: Target, plan: Plan, planned: PlannedRequest) -> bytes:
    """The whole HTTP request, head and body, ready to be written in one piece.

    Asked for an exact number of greedy tokens, with usage and, where known, ids.
    """
    head, start = _frame(endpoint, target)
    body: list[Buffer] = [start, b"%d" % planned.output_tokens]
    if endpoint.protocol == "chat":
        body += [b',"messages":[', *_messages(plan, planned), b"]}"]
    elif endpoint.prompt == "ids":
        body += [b',"prompt":[', *_bare(plan.ids(planned)), b"]}"]
    else:
        body += [b',"prompt":"', *_bare(plan.words(planned)), b'"}']
    return b"".join([head, b"%d\r\n\r\n" % sum(map(len, body)), *body])


@functools.lru_cache(maxsize=8)
def _frame(endpoint: Endpoint, target: Target) -> tuple[bytes, bytes]:
    """The head up to its content length, and the body up to the number of tokens asked for."""
    key = f"authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else ""
    head = (
        f"POST {target.path} HTTP/1.1\r\nhost: {target.host_header}\r\n{key}"
        f"content-type: application/json\r\naccept: text/event-stream\r\ncontent-length: "
    )
    request = {
        "model": endpoint.model,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if endpoint.ignores_eos:
        request["ignore_eos"] = True
    if endpoint.returns_ids:
        request["return_token_ids"] = True
    return head.encode(), msgspec.json.encode(request)[:-1] + b',"max_tokens":'


def _messages(plan: Plan, planned: PlannedRequest) -> Iterator[Buffer]:
    """One message a turn: what was said before, by both, and what is said now."""
    for place, (index, said) in enumerate(plan.messages(planned)):
        yield b"," if place else b""
        if index is None:
            yield from (b'{"role":"assistant","content":"', *said, b'"}')
        elif plan.pictures is None:
            yield from (b'{"role":"user","content":"', *_bare(said), b'"}')
        else:
            yield from (b'{"role":"user","content":[{"type":"text","text":"', *_bare(said), b'"}')
            for picture in range(plan.pictures.count):
                yield b',{"type":"image_url","image_url":{"url":"'
                yield from plan.pictures.url(index, picture)
                yield b'"}}'
            yield b"]}"


def _bare(parts: list[Buffer]) -> list[Buffer]:
    """Without the separator that comes before the first token."""
    return [parts[0][1:], *parts[1:]]
