"""Which experts the tokens of one request were sent to, as servers say it (vLLM's words, and ours)."""

from __future__ import annotations

import base64
import binascii
import http.client
import io
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from profiler.engines.base import Routed
from profiler.errors import EngineError
from profiler.schema import Endpoint

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class _Choice(msgspec.Struct):
    routed_experts: str | None = None


class _Answer(msgspec.Struct):
    choices: list[_Choice]


def ask(endpoint: Endpoint, prompt: list[int], output_tokens: int, timeout_s: float) -> Routed:
    """Let the server answer ``prompt`` greedily with so many tokens and read the experts it says it used, in
    ``choices[0].routed_experts``: see :func:`written`.

    Raises EngineError when it does not answer within ``timeout_s``, refuses, or says nothing of experts.
    """
    wanted = {
        "model": endpoint.model,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "routed_experts": True,
    }
    status, body = _post(endpoint, msgspec.json.encode(wanted), timeout_s)
    if status != HTTPStatus.OK:
        raise EngineError(
            f"asked for its routing, the engine answers {status}: {body[:300].decode(errors='replace')}"
        )
    return Routed(len(prompt), _read(body, len(prompt) + output_tokens - 1))


def written(experts: NDArray[np.uint16]) -> str:
    """[positions, layers, experts a token] as it goes into JSON: base64 of a .npy."""
    import numpy as np

    file = io.BytesIO()
    np.save(file, experts)
    return base64.b64encode(file.getvalue()).decode()


def _post(endpoint: Endpoint, body: bytes, timeout_s: float) -> tuple[int, bytes]:
    address = urlsplit(endpoint.base_url)
    connection = http.client.HTTPConnection(address.netloc, timeout=timeout_s)
    headers = {"Content-Type": "application/json"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    try:
        connection.request("POST", f"{address.path}/completions", body, headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"asked for its routing, the engine does not answer: {error!r}") from None
    finally:
        connection.close()


def _read(body: bytes, positions: int) -> NDArray[np.uint16]:
    import numpy as np

    try:
        told = msgspec.json.decode(body, type=_Answer).choices[0].routed_experts
        if told is None:
            raise EngineError("the engine says nothing of its experts")
        found = np.load(io.BytesIO(base64.b64decode(told, validate=True)), allow_pickle=False)
    except (msgspec.DecodeError, IndexError, ValueError, binascii.Error) as error:
        raise EngineError(f"what the engine says of its experts cannot be read: {error}") from None
    if found.ndim != 3 or len(found) != positions:
        raise EngineError(f"the engine says the experts of {found.shape}, {positions} positions were run")
    experts: NDArray[np.uint16] = found.astype(np.uint16)
    return experts
