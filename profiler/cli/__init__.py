"""The command line: parse, one call, print, exit code.  Nothing is computed here.

A file a command, or two that print the same; ``base`` holds what they share.

Exit codes: 0 done; 1 a gate or claim failed, or more requests than --max-failed; 2 bad input; 3 undecided;
4 the measurement failed; 130 interrupted.
"""

from __future__ import annotations

import errno
import os
import sys
from types import TracebackType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from profiler import secret, without_pandas
from profiler.cli import (
    catalog,
    claims,
    compare,
    cost,
    export,
    frontier,
    gate,
    imports,
    plan,
    plot,
    report,
    run,
    sweep,
    terminal,
    tokens,
    trials,
    verify,
    view,
)
from profiler.cli.base import INTERRUPTED, at_hand, say, write
from profiler.errors import EngineError, ProfilerError

# Their words for runs may be addresses (s3://…), which are read from a copy on this machine.
READS = {"claims", "compare", "cost", "export", "frontier", "gate", "plan", "plot", "report", "tokens"}
READS |= {"verify", "view"}


ADVICE = {
    errno.EMFILE: "; raise the limit of open files (ulimit -n)",
    errno.ENFILE: "; this machine has no more files to open: end other programs",
    errno.ENOSPC: "; free some space",
    errno.EDQUOT: "; free some space or have the quota raised",
    errno.EAGAIN: "; raise the limit of processes (ulimit -u, or the container's)",
}


class Commands(TyperGroup):
    """Commands of one word or two: ``claims RUN…`` judges, ``claims run CLAIM`` measures."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        two = " ".join(args[:2])
        words = [two, *args[2:]] if two in self.commands else args
        return super().resolve_command(ctx, [words[0], *at_hand(words[1:])] if words[0] in READS else words)


app = typer.Typer(
    name="profile",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
TAKES_MORE = {"ignore_unknown_options": True, "allow_extra_args": True}  # for a family of options


def entry() -> None:
    """Run the command; an expected error becomes one message and its exit code, never a traceback."""
    terminal.settle_streams()
    terminal.catch_signals()
    without_pandas.keep_out()
    sys.excepthook = _say_fault
    try:
        code = app(standalone_mode=False)  # Ctrl-C comes back as 130, not as an exception
        if code == INTERRUPTED:
            say("interrupted")
        sys.stdout.flush()
        sys.exit(code or 0)
    except ProfilerError as error:
        _say_error(f"error: {error}")
        if isinstance(error, EngineError):
            for line in error.log_lines:
                _say_error(f"  | {line}")
        sys.exit(error.exit_code)
    except typer.TyperException as error:  # a word typer cannot parse; most can say of which option
        _say_error(f"error: {getattr(error, 'format_message', error.__str__)()}")
        sys.exit(2)
    except OSError as error:  # a full disk, a folder taken away: what was finished is on disk
        _say_error(f"error: {error}{ADVICE.get(error.errno or 0, '')}")
        sys.exit(ProfilerError.exit_code)
    except KeyboardInterrupt:  # before a command had begun, or after
        say("interrupted")
        sys.exit(INTERRUPTED)
    finally:
        terminal.be_deaf()


def _say_error(text: str) -> None:
    """Whatever it quotes, no credential is in it."""
    say(secret.without(text, secret.values(os.environ)))


def _say_fault(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A fault of ours: its traceback, which quotes what it stumbled over."""
    import traceback

    _say_error("".join(traceback.format_exception(kind, error, trace)).rstrip())


def _version(wanted: bool) -> None:
    if wanted:
        from profiler import __version__

        write(f"profile {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Measure what a language model costs to serve: speed, latency, memory, energy, cost per token."""


app.command(context_settings=TAKES_MORE)(run.run)
app.command()(run.resume)
app.command("compare")(compare.compare_runs)
app.command(context_settings=TAKES_MORE)(cost.cost)
app.command(cls=gate.Command)(gate.gate)
app.command()(verify.verify)
app.command()(export.export)
app.command(context_settings=TAKES_MORE)(plan.plan)
app.command(context_settings=TAKES_MORE)(frontier.frontier)
app.command()(report.report)
app.command()(plot.plot)
app.command()(view.view)
app.command()(tokens.tokens)
app.command()(claims.claims)
app.command("claims run")(trials.run_trial)
app.command()(sweep.sweep)
app.command("sweep status")(sweep.status)
app.command("import")(imports.import_results)
app.command("list")(catalog.list_catalog)
app.command()(catalog.doctor)
