"""``docs/reliability/compat.json`` (shape: ``tools/compat.py``) as a section of ``docs/reliability.md``."""

from __future__ import annotations

from typing import Any

CAUTION = (
    "An environment without torch leaves out the transformers engine, vLLM, Chromium and what is measured"
    " against the clock (marker `timing`): these are tried with Python 3.11 only, by `make test`. Logs and"
    " `/metrics` of more versions of vLLM are read from texts, recorded or composed:"
    " `tests/engines/fixtures/README.md` says which is which."
)


def lines(record: dict[str, Any]) -> list[str]:
    """The section of ``docs/reliability.md``."""
    text = [
        "## Compatibility",
        "",
        f"`{record['command']}`, {record['utc']}, {record['machine']['cores']} cores.",
        "",
    ]
    text += _table(
        "Python, without torch", record.get("pythons"), "profile_run_rc", "`profile run` exit code"
    )
    text += _table("transformers, the engine's own tests", record.get("transformers"), "seconds", "seconds")
    if tried := record.get("vllm"):
        text += [
            "### vLLM, CPU builds that ran `profile run --engine vllm --model tiny-moe --scenario smoke`",
            "",
        ]
        text += [
            "| version | requests | output tokens | memory parts | metrics | routing |",
            "|---|---|---|---|---|---|",
        ]
        text += [
            f"| {version} | {each['requests_ok']} ok, {each['requests_failed']} failed "
            f"| {each['output_tokens']} | {len(each['memory'])} | {len(each['metrics'])} "
            f"| {each['routing_missing'] or 'recorded'} |"
            for version, each in tried.items()
        ]
        text += [""]
    return [*text, CAUTION]


def _table(title: str, found: dict[str, Any] | None, last: str, head: str) -> list[str]:
    if not found:
        return []
    rows = [
        f"| {name} | {each['passed']} | {each['failed']} | {each['skipped']} | {each[last]} |"
        for name, each in found.items()
    ]
    return [
        f"### {title}",
        "",
        f"| version | passed | failed | skipped | {head} |",
        "|---|---|---|---|---|",
        *rows,
        "",
    ]
