"""The `edgessl` program: its commands in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

import edgessl
from edgessl.cli import (
    adapt,
    build,
    demo,
    diff,
    distill,
    doctor,
    embed,
    evaluate,
    export,
    inspect,
    lint,
    pretrain,
    recipes,
    sign,
    verify,
)
from edgessl.cli.failures import guarded

#: name -> (function, example that stands at the end of its help), in the order of use
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "recipes": (recipes.recipes, recipes.EXAMPLE),
    "pretrain": (pretrain.pretrain, pretrain.EXAMPLE),
    "distill": (distill.distill, distill.EXAMPLE),
    "evaluate": (evaluate.evaluate, evaluate.EXAMPLE),
    "export": (export.export, export.EXAMPLE),
    "lint": (lint.lint, lint.EXAMPLE),
    "inspect": (inspect.inspect, inspect.EXAMPLE),
    "sign": (sign.sign, sign.EXAMPLE),
    "verify": (verify.verify, verify.EXAMPLE),
    "diff": (diff.diff, diff.EXAMPLE),
    "build": (build.build, build.EXAMPLE),
    "doctor": (doctor.doctor, doctor.EXAMPLE),
    "embed": (embed.embed, embed.EXAMPLE),
    "adapt": (adapt.adapt, adapt.EXAMPLE),
    "demo": (demo.demo, demo.EXAMPLE),
}

# Plain help: it starts faster, and an example can be copied out of it.
app = typer.Typer(
    name="edgessl",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
for _name, (_function, _example) in COMMANDS.items():
    # \b keeps the lines as they are.
    app.command(_name, epilog=f"\b\nExample:\n  {_example}")(guarded(_name, _function))


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgessl {edgessl.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Self-supervised encoders from pretraining to a robot, where they keep learning without labels and without torch.

    EDGESSL_DEBUG=1 shows the traceback of an error.
    """


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
