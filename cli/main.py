"""The `edgessl` program: its commands in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import edgessl
from edgessl.cli import (
    adapt,
    bench,
    build,
    demo,
    diff,
    distill,
    doctor,
    embed,
    evaluate,
    export,
    index,
    inspect,
    lint,
    node,
    pretrain,
    recipes,
    sign,
    state,
    state_export,
    verify,
)
from edgessl.cli.failures import guarded

#: name -> (function, example that stands at the end of its help), in the order of use; `GROUP NAME` in a group
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
    "bench": (bench.bench, bench.EXAMPLE),
    "doctor": (doctor.doctor, doctor.EXAMPLE),
    "embed": (embed.embed, embed.EXAMPLE),
    "adapt": (adapt.adapt, adapt.EXAMPLE),
    "index build": (index.build, index.BUILD),
    "index query": (index.query, index.QUERY),
    "node dora": (node.dora, node.DORA),
    "node ros2": (node.ros2, node.ROS2),
    "node zenoh": (node.zenoh, node.ZENOH),
    "state list": (state.list_, state.LIST),
    "state rollback": (state.rollback, state.ROLLBACK),
    "state reset": (state.reset, state.RESET),
    "state plot": (state.plot, state.PLOT),
    "state export": (state_export.export, state_export.EXAMPLE),
    "demo": (demo.demo, demo.EXAMPLE),
}

#: group -> what its commands are for
GROUPS = {
    "index": "Find what is near, among vectors that are kept.",
    "node": "Be a node of a robot: frames in, vectors out.",
    "state": "Look at what was learned, and go back.",
}


class _InOrder(TyperGroup):
    """Lists groups where their commands stand in the table; typer would list them before every command."""

    def list_commands(self, ctx: Any) -> list[str]:
        names = dict.fromkeys(name.partition(" ")[0] for name in COMMANDS)
        return [name for name in names if name in self.commands]


# Plain help: it starts faster, and an example can be copied out of it.
app = typer.Typer(
    name="edgessl",
    cls=_InOrder,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)
_groups = {"": app} | {name: typer.Typer(no_args_is_help=True, rich_markup_mode=None) for name in GROUPS}
for _name, _about in GROUPS.items():
    app.add_typer(_groups[_name], name=_name, help=_about)
for _name, (_function, _example) in COMMANDS.items():
    _group, _, _word = _name.rpartition(" ")
    # \b keeps the lines as they are.
    _groups[_group].command(_word, epilog=f"\b\nExample:\n  {_example}")(guarded(_name, _function))


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
