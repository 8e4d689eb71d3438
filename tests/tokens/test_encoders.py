"""Tokenizers from local files: counts against known truth and against their makers' own code."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from profiler import tokens
from profiler.errors import InputError

TEXTS = ["low lower lowest", "হ্যালো বিশ্ব", "မင်္ဂလာပါ", "ہیلو دنیا، 2026", "Grüße, 你好 1234567 \U0001f600", "x"]
MERGES = (b"lo", b"low", b"er")  # in this order, above the 256 bytes


def tokenizer_json(model: dict, folder: Path, **more) -> Path:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "model": model, "added_tokens": [], **more}))
    return path


def byte_ranks() -> dict[bytes, int]:
    return {bytes([n]): n for n in range(256)} | {merge: 256 + n for n, merge in enumerate(MERGES)}


def ranks_file(path: Path) -> Path:
    lines = (f"{base64.b64encode(word).decode()} {rank}" for word, rank in byte_ranks().items())
    path.write_text("\n".join(lines) + "\n")
    return path


def mistral(name: str) -> Path:
    package = pytest.importorskip("mistral_common")
    return Path(package.__file__).parent / "data" / name


def test_a_trained_bpe_counts_as_its_merges_say(tmp_path):
    """Trained on one word alone it learns that word whole; what it never saw stays bytes."""
    package = pytest.importorskip("tokenizers")
    trained = package.Tokenizer(package.models.BPE())
    trained.pre_tokenizer = package.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = package.pre_tokenizers.ByteLevel.alphabet()
    trainer = package.trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[], show_progress=False
    )
    trained.train_from_iterator(["lower"] * 50, trainer)
    path = tmp_path / "tokenizer.json"
    trained.save(str(path))
    counts, unknown = tokens.opened(path).encoded(["lower", "lower lower", "মা", ""])
    assert counts == [1, 3, len("মা".encode()), 0]
    assert unknown is None


def test_what_a_tokenizer_cannot_write_is_told(tmp_path):
    vocabulary = {"[UNK]": 0, "good": 1, "day": 2}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "[UNK]"}
    path = tokenizer_json(model, tmp_path, pre_tokenizer={"type": "WhitespaceSplit"})
    assert tokens.opened(path).encoded(["good day", "good မင်္ဂလာပါ"]) == ([2, 2], 1)


def test_counts_leave_out_what_opens_a_text_and_truncation(tmp_path):
    model = {"type": "WordLevel", "vocab": {"[CLS]": 0, "a": 1}, "unk_token": "[CLS]"}
    opening = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [0], "tokens": ["[CLS]"]}},
    }
    short = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    split = {"type": "WhitespaceSplit"}
    path = tokenizer_json(model, tmp_path, pre_tokenizer=split, post_processor=opening, truncation=short)
    assert tokens.opened(path).encoded(["a a a a a"])[0] == [5]


@pytest.mark.parametrize("name", ["qwen.tiktoken", "my-cl100k.tiktoken"])
def test_ranks_merge_lowest_first(tmp_path, name):
    """``low`` is one token, `` low`` keeps its space apart, ``er`` one: counted by hand."""
    pytest.importorskip("tiktoken")
    opened = tokens.opened(ranks_file(tmp_path / name))
    assert opened.encoded(["low", "lower", "low lower", "မ"])[0] == [1, 2, 4, 3]


def test_qwen_splits_digits_one_by_one_and_cl100k_by_three(tmp_path):
    pytest.importorskip("tiktoken")
    ranks = byte_ranks() | {b"12": 300, b"123": 301}
    lines = "\n".join(f"{base64.b64encode(word).decode()} {rank}" for word, rank in ranks.items())
    for name, count in (("qwen", 6), ("cl100k", 2)):
        path = tmp_path / f"{name}.tiktoken"
        path.write_text(lines)
        assert tokens.opened(path).encoded(["123123"])[0] == [count]


def test_tekken_is_counted_as_mistral_counts_it():
    file = mistral("tekken_240911.json")
    from mistral_common.tokens.tokenizers.tekken import Tekkenizer

    theirs = Tekkenizer.from_file(str(file))
    ours = tokens.opened(file)
    assert ours.name == "tekken_240911"
    assert ours.encoded(TEXTS)[0] == [len(theirs.encode(text, bos=False, eos=False)) for text in TEXTS]


@pytest.mark.parametrize("name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_sentencepiece_is_counted_as_mistral_counts_it(name):
    file = mistral(name)
    from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer

    theirs = SentencePieceTokenizer(str(file))
    counts, unknown = tokens.opened(file).encoded(TEXTS)
    assert counts == [len(theirs.encode(text, bos=False, eos=False)) for text in TEXTS]
    assert unknown == 0


def test_a_models_folder_is_enough(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    tokenizer_json({"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}, folder)
    assert tokens.opened(folder).name == "my-model"
    assert tokens.opened(folder / "tokenizer.json").name == "my-model"


def complaint_of(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        tokens.opened(path)
    return str(caught.value)


def test_what_is_no_tokenizer(tmp_path):
    pytest.importorskip("sentencepiece")
    assert "no such file or folder" in complaint_of(tmp_path / "none")
    assert "no tokenizer in it" in complaint_of(tmp_path)
    for name, data in (
        ("text.model", b"just words"),
        ("empty.model", b""),
        ("config.json", b'{"hidden_size": 8}'),
        ("list.json", b"[1]"),
        ("bad.tiktoken", b"!!! 0\n"),
    ):
        (tmp_path / name).write_bytes(data)
        assert "no tokenizer" in complaint_of(tmp_path / name)
    (tmp_path / "broken.json").write_bytes(b'{"model": ')
    assert "broken.json" in complaint_of(tmp_path / "broken.json")
    (tmp_path / "odd.json").write_bytes(b'{"model": {"type": "Abacus"}}')
    assert "odd.json" in complaint_of(tmp_path / "odd.json")
    (tmp_path / "tekken.json").write_bytes(b'{"config": {"pattern": "x"}, "vocab": []}')
    assert "not a tekken.json" in complaint_of(tmp_path / "tekken.json")


def test_damaged_ranks_end_in_words_and_not_in_the_library(tmp_path):
    pytest.importorskip("tiktoken")
    few, twice = byte_ranks(), byte_ranks() | {b"ab": 0}
    del few[b"a"]
    for ranks in (few, twice):
        lines = "\n".join(f"{base64.b64encode(word).decode()} {rank}" for word, rank in ranks.items())
        (tmp_path / "qwen.tiktoken").write_text(lines)
        assert "damaged" in complaint_of(tmp_path / "qwen.tiktoken")
    words = [
        {"token_bytes": base64.b64encode(word).decode(), "rank": rank} for word, rank in byte_ranks().items()
    ]
    sizes = {"default_vocab_size": len(words), "default_num_special_tokens": 0}
    for pattern in ("(", 5):
        told = {"config": sizes | {"pattern": pattern}, "vocab": words}
        (tmp_path / "tekken.json").write_text(json.dumps(told))
        assert "damaged" in complaint_of(tmp_path / "tekken.json")
    (tmp_path / "m" / "tokenizer.json").mkdir(parents=True)
    assert "cannot be read" in complaint_of(tmp_path / "m")


def test_a_folder_with_several_asks_which(tmp_path):
    for name in ("a.tiktoken", "b.tiktoken"):
        ranks_file(tmp_path / name)
    assert "several tokenizers in it, name one: a.tiktoken, b.tiktoken" in complaint_of(tmp_path)


def test_ranks_that_do_not_say_their_split(tmp_path):
    assert "does not say how text is split" in complaint_of(ranks_file(tmp_path / "mine.tiktoken"))


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tiktoken", None)
    message = complaint_of(ranks_file(tmp_path / "qwen.tiktoken"))
    assert "needs tiktoken" in message
    assert "moe-profiler[tokens]" in message
