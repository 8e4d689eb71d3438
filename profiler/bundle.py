"""``profile doctor --bundle``: what a bug report needs, in one archive, without what nobody else should have.

No prompt, no answer and no token of one is in it: of runs only what their manifests say and the lines of an
engine's log that tell of errors.  Every text goes through :func:`redacted`.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

from profiler import doctor, secret, store
from profiler.engines import vllm_log
from profiler.errors import InputError

MAX_CHARS = 1 << 20
# The same bytes for the same findings: an archive has no time of its own.
EPOCH = (1980, 1, 1, 0, 0, 0)
NAMES = re.compile(
    r"(CUDA|NVIDIA|NCCL|VLLM|HF|HUGGING_?FACE|TRANSFORMERS|TORCH|PYTORCH|OMP|MKL|KMP|RAY|PROFILER|PYTHON|LD)_?.*"
    r"|.*_proxy|TMPDIR|XDG_CACHE_HOME|CI|TERM|LANG|LC_ALL|VIRTUAL_ENV|CONDA_PREFIX",
    re.IGNORECASE,
)
HARMLESS = re.compile(
    r"(?!.*\d(\.\d+){3})[-0-9.,:]{0,24}"
    r"|true|false|on|off|yes|no|auto|spawn|fork|dumb|xterm(-256color)?|C(\.UTF-8)?",
    re.IGNORECASE,
)
_HOSTS = re.compile(
    r"(?<=://)(?!\*\*\*|127\.|localhost\b|\[::1\]|huggingface\.co\b|github\.com\b)[\w.-]+|(?<=@)[\w.-]+(?=[:/])"
)
# A version of four numbers follows "==" where packages are listed; a time in brackets has no "::".
_OCTET = r"(?:25[0-5]|2[0-4]\d|1?\d?\d)"
_ADDRESSES = re.compile(
    rf"(?<![\w.])(?<!==)(?!127\.|0\.0\.0\.0){_OCTET}(?:\.{_OCTET}){{3}}(?!\w|\.\d)"
    r"|\[(?!::1\])(?=[^\]]*::|(?:\w+:){7})[\da-f:.]+(?:%[\w.-]+)?\]",
    re.IGNORECASE,
)
_PROMPT = re.compile(r"prompt|messages|content", re.IGNORECASE)
README = """\
Made by `profile doctor --bundle` for a bug report.  Read it before you send it.

doctor.txt       what the doctor says of this machine
packages.txt     installed Python packages and their versions
environment.txt  names of variables that bear on a measurement; values only where they are numbers or switches
runs/N/          of each run named: its manifest (journal where it was interrupted), what is wrong with its
                 files, and the lines of the engine's log that tell of errors

Left out: prompts, answers, requests, samples.  Replaced in every text: secrets (***), the home directory (~),
the user's name (<user>), this machine's name (<host>), hosts in URLs and others' addresses (<address>).
"""


def write(out: Path, runs: Sequence[Path]) -> list[str]:
    """Write the archive, whole or not at all; its contents come back, a line each.

    Takes what ``doctor.text`` takes.  Raises InputError where ``out`` is there already or a folder is no run,
    before anything is measured, StoreError where it cannot be written.
    """
    if out.exists():
        raise InputError(f"{out} is there already; name another file")
    if not out.parent.is_dir():
        raise InputError(f"no folder {out.parent}; make it, or name another file")
    for folder in runs:
        if not store.is_run(folder):
            raise InputError(
                f"{folder} is not a run folder: a folder with {store.MANIFEST} or {store.JOURNAL}"
            )
    known = known_words(os.environ)
    texts = {name: redacted(text, known) for name, text in parts(runs)}
    with store.replacing(out) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), text, zipfile.ZIP_DEFLATED)
    return [f"{len(text.encode()):>9,} bytes  {name}" for name, text in texts.items()]


def parts(runs: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Name and text of each file, in the order of the archive, not yet redacted."""
    yield "README.txt", README
    yield "doctor.txt", doctor.text()
    yield "packages.txt", packages()
    yield "environment.txt", environment(os.environ)
    for number, folder in enumerate(runs, 1):
        yield from run_parts(f"runs/{number}", folder)


def run_parts(at: str, folder: Path) -> Iterator[tuple[str, str]]:
    """What a run says of itself, even where its files are damaged."""
    names = [name for name in (store.MANIFEST, store.JOURNAL) if (folder / name).is_file()]
    for name in names:
        yield f"{at}/{name}", _read(folder / name)
    yield f"{at}/faults.txt", "".join(f"{each}\n" for each in store.faults(folder)) or "none found\n"
    log = folder / "engine.log"
    if log.is_file():
        text = _read(log)
        lines = [line for line in vllm_log.telling_lines(text) if not _PROMPT.search(line)]
        yield f"{at}/engine.txt", "\n".join([vllm_log.explain(text) or "no failure we know", *lines, ""])


def packages() -> str:
    """``name==version`` of every distribution; not where it came from: that may be a private address."""
    found = {f"{each.metadata['Name']}=={each.version}" for each in metadata.distributions()}
    return "".join(f"{each}\n" for each in sorted(found, key=str.lower))


def environment(variables: Mapping[str, str]) -> str:
    """Names that bear on a measurement; values of numbers and switches, of others only that they are set."""
    lines = []
    for name in sorted(variables):
        if NAMES.fullmatch(name):
            is_shown = HARMLESS.fullmatch(variables[name]) and not secret.is_secret(name)
            lines.append(f"{name}={variables[name]}" if is_shown else f"{name} is set")
    return "\n".join([*lines, ""])


def known_words(variables: Mapping[str, str]) -> dict[str, str]:
    """Words of this machine and user → what stands for them; longest first, for one may hold another."""
    words = dict.fromkeys(secret.values(variables), secret.HIDDEN)
    full = {socket.gethostname(), socket.getfqdn()} - {"localhost", ""}
    words |= dict.fromkeys(full | {name.partition(".")[0] for name in full}, "<host>")
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = ""
    if user not in {"", "root"}:
        words[user] = "<user>"
    home = str(Path.home())
    if home != "/":
        words[home] = "~"
    return dict(sorted(words.items(), key=lambda pair: len(pair[0]), reverse=True))


def redacted(text: str, known: Mapping[str, str]) -> str:
    """``text`` without secrets, without the ``known`` words and without the addresses of others' machines."""
    text = secret.without(text, [word for word, shown in known.items() if shown == secret.HIDDEN])
    for word, shown in known.items():
        if shown != secret.HIDDEN:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", shown, text)
    return _ADDRESSES.sub("<address>", _HOSTS.sub("<address>", text))


def _read(file: Path) -> str:
    """The end of a text, where it is very long: there it says what happened last."""
    return file.read_bytes()[-MAX_CHARS:].decode(errors="replace")
