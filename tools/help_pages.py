"""Renew the stored ``--help`` pages, which make ``profile --help`` as quick as the interpreter itself."""

from __future__ import annotations

from pathlib import Path

import typer
from typer.main import get_command
from typer.testing import CliRunner

from profiler.__main__ import HELP
from profiler.cli import app

WIDTH = 100


def pages() -> dict[str, str]:
    """File name → text, for the command and each of its subcommands."""
    commands: list[str] = sorted(getattr(get_command(app), "commands"))  # noqa: B009
    names = {"profile": ["--help"]} | {name.replace(" ", "-"): [*name.split(), "--help"] for name in commands}
    return {f"{name}.txt": _page(words) for name, words in names.items()}


def _page(words: list[str]) -> str:
    done = CliRunner().invoke(app, words, prog_name="profile", terminal_width=WIDTH, env={"TERM": "dumb"})
    if done.exit_code:
        raise typer.Exit(done.exit_code)
    return done.output


def main(folder: Path = Path(HELP)) -> None:
    folder.mkdir(exist_ok=True)
    for stale in folder.glob("*.txt"):
        stale.unlink()
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
