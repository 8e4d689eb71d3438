"""Tokenizers from local files: ``tokenizer.json``, sentencepiece models, ``tekken.json``, tiktoken ranks.

Nothing is fetched.  Counts are of the text alone: no token that opens or ends a text, no chat template.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from profiler.errors import InputError
from profiler.tokens.packages import needed

Encode = Callable[[str], Sequence[int]]
IN_FOLDER = ("tokenizer.json", "tekken.json", "tokenizer.model", "*.tiktoken", "tiktoken.model", "*.model*")
KINDS = "tokenizer.json, a sentencepiece .model, tekken.json or a .tiktoken file"

# How a text is split before ranks are applied, which the files of tiktoken do not say.
# Qwen: tokenization_qwen.py of Qwen/Qwen-7B.  OpenAI: tiktoken_ext/openai_public.py.
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_CL100K = _QWEN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
SPLITS = {"qwen": _QWEN, "cl100k": _CL100K}


class Encoder(Struct, frozen=True, kw_only=True):
    """One tokenizer.  ``encode``: text → token ids.  ``unknown_id``: what it writes for what it cannot;
    None where it can write any text."""

    name: str
    encode: Encode
    unknown_id: int | None = None

    def encoded(self, lines: Sequence[str]) -> tuple[list[int], int | None]:
        """Tokens of each line, apart from the others, and how many of all stand for text it cannot write."""
        found = [self.encode(line) if line else () for line in lines]
        lost = sum(1 for ids in found for each in ids if each == self.unknown_id)
        return [len(ids) for ids in found], None if self.unknown_id is None else lost


def opened(path: Path) -> Encoder:
    """The tokenizer at ``path``: a file, or a model's folder.

    Raises InputError when nothing is there, it is no tokenizer of a kind that can be read, or the package
    that reads it is missing.
    """
    if not path.exists():
        raise InputError(f"--tokenizer {path}: no such file or folder; tokenizers are read from local files")
    file = _in_folder(path) if path.is_dir() else path
    name = path.name if path.is_dir() else file.stem if file.suffix == ".json" else file.name
    if name in ("tokenizer", "tekken", "tokenizer.model"):  # says nothing: the folder does
        name = file.resolve().parent.name or name
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"--tokenizer {file}: cannot be read: {error.strerror}") from None
    if data.lstrip()[:1] == b"{":
        return _of_json(data, file, name)
    ranks = _ranks(data)
    return _tiktoken(ranks, _split_of(file), name, file) if ranks else _sentencepiece(file, name)


def _in_folder(folder: Path) -> Path:
    for pattern in IN_FOLDER:
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise InputError(f"--tokenizer {folder}: several tokenizers in it, name one: {names}")
        if found:
            return found[0]
    raise InputError(f"--tokenizer {folder}: no tokenizer in it ({KINDS})")


def _of_json(data: bytes, file: Path, name: str) -> Encoder:
    try:
        told = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"--tokenizer {file}: {error}") from None
    if isinstance(told.get("vocab"), list) and "pattern" in (told.get("config") or {}):
        return _tekken(told, name, file)
    if "model" not in told:
        raise InputError(f"--tokenizer {file}: no tokenizer ({KINDS})")
    package = needed("tokenizers")
    try:
        tokenizer = package.Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises a bare Exception
        raise InputError(f"--tokenizer {file}: {error}") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str) -> Sequence[int]:
        ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    unknown = told["model"].get("unk_token")
    unknown_id = tokenizer.token_to_id(unknown) if isinstance(unknown, str) else told["model"].get("unk_id")
    return Encoder(name=name, encode=encode, unknown_id=unknown_id)


def _tekken(told: dict[str, Any], name: str, file: Path) -> Encoder:
    """Mistral's format: the ranks of the first vocabulary entries, as many as the model uses."""
    config = told["config"]
    try:
        used = config["default_vocab_size"] - config["default_num_special_tokens"]
        ranks = {base64.b64decode(each["token_bytes"]): each["rank"] for each in told["vocab"][:used]}
    except (KeyError, TypeError, binascii.Error) as error:
        raise InputError(f"--tokenizer {file}: not a tekken.json ({error!r})") from None
    return _tiktoken(ranks, config["pattern"], name, file)


def _ranks(data: bytes) -> dict[bytes, int]:
    """``base64 rank`` lines of tiktoken; nothing where the file is of another kind."""
    found: dict[bytes, int] = {}
    for line in data.splitlines():
        word, _, rank = line.partition(b" ")
        if line and not rank.isdigit():
            return {}
        if line:
            try:
                found[base64.b64decode(word, validate=True)] = int(rank)
            except binascii.Error:
                return {}
    return found


def _split_of(file: Path) -> str:
    for name, split in SPLITS.items():
        if name in file.name.lower():
            return split
    raise InputError(
        f"--tokenizer {file}: a tiktoken file does not say how text is split before; known by file name are "
        f"{', '.join(SPLITS)}; the model's tokenizer.json says it"
    )


def _tiktoken(ranks: dict[bytes, int], split: str, name: str, file: Path) -> Encoder:
    package = needed("tiktoken")
    # The library ends the whole process over these.
    if len(set(ranks.values())) < len(ranks) or not all(bytes([each]) in ranks for each in range(256)):
        raise InputError(f"--tokenizer {file}: damaged: a byte without a rank, or a rank of two tokens")
    try:
        encoding = package.Encoding(name=name, pat_str=split, mergeable_ranks=ranks, special_tokens={})
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"--tokenizer {file}: damaged: {error}") from None
    return Encoder(name=name, encode=encoding.encode_ordinary)


def _sentencepiece(file: Path, name: str) -> Encoder:
    package = needed("sentencepiece")
    try:
        model = package.SentencePieceProcessor(model_file=str(file))
    except (RuntimeError, OSError):
        raise InputError(f"--tokenizer {file}: no tokenizer ({KINDS})") from None
    return Encoder(name=name, encode=model.encode, unknown_id=model.unk_id())
