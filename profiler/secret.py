"""What must never reach a run folder.  Imports nothing of ours."""

from __future__ import annotations

import re

_SECRET = re.compile(r"(^|_)(token|(api)?key|secret|password|credential)s?($|_)")
_NO_SECRET = re.compile(
    r"key_env|tokenizer.*|(max|num)_.*|(.*_)?tokens(_.*)?|(.*_)?per_token"
    r"|(bos|eos|pad|unk|sep|cls|mask)_token|(.*_)?token_ids?"
)


def is_secret(name: str) -> bool:
    """Whether an argument or environment variable of this name holds a credential: its value never reaches
    a run folder.  ``HF_TOKEN`` and ``api-key`` do; ``eos_token`` and counts of tokens do not."""
    plain = name.lower().replace("-", "_")
    return _SECRET.search(plain) is not None and _NO_SECRET.fullmatch(plain) is None
