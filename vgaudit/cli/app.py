"""The commands, in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from vgaudit import __version__
from vgaudit.cli import baseline
from vgaudit.cli.check import check
from vgaudit.cli.compare import compare
from vgaudit.cli.convert import convert
from vgaudit.cli.demo import demo
from vgaudit.cli.doctor import doctor
from vgaudit.cli.explain import explain
from vgaudit.cli.fix import fix
from vgaudit.cli.gate import gate
from vgaudit.cli.inspect import inspect
from vgaudit.cli.report import report
from vgaudit.cli.retrain import retrain
from vgaudit.cli.rules import rules
from vgaudit.cli.scan import scan
from vgaudit.cli.schema import schema

__all__ = ["COMMANDS", "app"]

COMMANDS = (
    scan,
    inspect,
    convert,
    retrain,
    fix,
    compare,
    check,
    gate,
    report,
    rules,
    explain,
    schema,
    doctor,
    demo,
)

app = typer.Typer(
    name="vgaudit",
    help="Audits PyTorch models for vanishing gradients: where the gradient is lost, "
    "why, and what to do.",
    epilog="Exit codes: 0 pass, 1 gate failed, 2 usage, 3 cannot read or run, "
    "4 inconclusive, 70 internal error, 130 interrupted, 141 pipe closed, "
    "143 terminated.",
    add_completion=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(baseline.app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vgaudit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ] = False,
) -> None:
    """Holds the options that come before a command."""
