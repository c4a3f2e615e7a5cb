"""`edgessl node`: an encoder in a robot, for dora, ROS 2 and Zenoh."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli.options import Json
from edgessl.cli.output import result
from edgessl.runtimes.robot.parameters import TABLE, Parameters, from_environment, parameters_from

if TYPE_CHECKING:
    from edgessl.runtimes.robot.seams import Status
    from edgessl.runtimes.robot.service import Service
    from edgessl.runtimes.robot.systemd import Notifier

DORA = "edgessl node dora robot.edgessl --state state/ --metrics 9400"
ROS2 = "edgessl node ros2 robot.edgessl --state state/ -- --ros-args -r image:=/camera/image_raw"
ZENOH = "edgessl node zenoh robot.edgessl --source camera:0 --connect tcp/192.168.1.7:7447"

_FLAGS = ("low_power",)


def _with_table(body: Callable[..., None]) -> Callable[..., None]:
    """`body(given, ...)` as a command with an option for every row of the table; `given` is what was typed of them."""

    def command(**typed: Any) -> None:
        given = {entry.name: typed.pop(entry.name) or None for entry in TABLE}
        body(given, **typed)

    own = list(inspect.signature(body, eval_str=True).parameters.values())[1:]
    options = [_option(entry.name, entry.about) for entry in TABLE]
    signature = inspect.Signature([*options, *own])
    command.__signature__ = signature  # type: ignore[attr-defined]
    command.__annotations__ = {}
    command.__doc__ = body.__doc__
    return command


def _option(name: str, about: str) -> inspect.Parameter:
    kind: Any = typer.Option(f"--{name.replace('_', '-')}", help=about)
    if name == "bundle":
        kind = typer.Argument(metavar="BUNDLE", help=about)
    annotation: Any = Annotated[bool if name in _FLAGS else str, kind]  # type: ignore[valid-type, unused-ignore]
    default: Any = False if name in _FLAGS else ""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


@_with_table
def dora(given: dict[str, Any], *, as_json: Json = False) -> None:
    """Be a node of a dora dataflow: images in, vectors out.

    Input `image`, outputs `vector`, `error` and `status`. Every option may also stand in the environment, as
    EDGESSL_MAX_AGE does for --max-age; see examples/dora/dataflow.yml.
    """
    from edgessl.runtimes.robot.dora import open_dataflow, run

    service, notifier = _opened(parameters_from(given, from_environment(os.environ)))
    with service:  # open before the dataflow begins, so that no frame waits for it
        status = run(service, open_dataflow(), notifier)
    _tell(status, as_json=as_json)


@_with_table
def ros2(
    given: dict[str, Any],
    *,
    ros: Annotated[
        list[str], typer.Argument(metavar="[-- ROS_ARGS]", help="What ROS understands, behind --: --ros-args ...")
    ] = [],  # noqa: B006, typer reads it and nobody changes it
    compressed: Annotated[bool, typer.Option("--compressed", help="Take CompressedImage of image/compressed.")] = False,
    as_json: Json = False,
) -> None:
    """Be a ROS 2 node: images in, vectors and diagnostics out.

    Subscribes `image`, publishes `~/vector` and `/diagnostics`. Every option is also a parameter of the node, and may
    stand in the environment, as EDGESSL_MAX_AGE does for --max-age.
    """
    from edgessl.runtimes.robot.ros2 import RosNode

    with RosNode(ros) as node:
        parameters = parameters_from(given, from_environment(os.environ), node.parameters())
        service, notifier = _opened(parameters, wall=node.wall)
        with service:
            status = node.run(service, notifier, compressed=compressed)
    _tell(status, as_json=as_json)


@_with_table
def zenoh(
    given: dict[str, Any],
    *,
    source: Annotated[
        str, typer.Option(envvar="EDGESSL_SOURCE", help="camera:0, - for standard input, or what `embed` takes.")
    ] = "camera:0",
    connect: Annotated[
        list[str], typer.Option(envvar="EDGESSL_CONNECT", help="Endpoint to connect to; may be repeated.")
    ] = [],  # noqa: B006, typer reads it and nobody changes it
    listen: Annotated[
        list[str],
        typer.Option(envvar="EDGESSL_LISTEN", help="Port on 127.0.0.1, or endpoint, to listen on; may be repeated."),
    ] = [],  # noqa: B006, as above
    multicast: Annotated[
        bool, typer.Option("--multicast", help="Look for others in the local network by multicast.")
    ] = False,
    key: Annotated[
        str, typer.Option(envvar="EDGESSL_KEY", help="In front of /vector, /error and /status.")
    ] = "edgessl",
    as_json: Json = False,
) -> None:
    """Embed the frames of a source and publish them with Zenoh.

    Publishes KEY/vector, KEY/error and KEY/status, and connects where it is told. Every option may also stand in the
    environment, as EDGESSL_MAX_AGE does for --max-age.
    """
    from edgessl.runtimes.robot.feed import feed
    from edgessl.runtimes.robot.opening import part
    from edgessl.sources import is_live

    robot = part("zenoh", package="zenoh")
    parameters = parameters_from(given, from_environment(os.environ))
    with robot.Publisher(key, connect=connect, listen=listen, multicast=multicast) as publisher:
        service, notifier = _opened(parameters)
        with service, feed(source, service.input, parameters.max_age) as frames:
            status = robot.run(service, frames, publisher, notifier, recorded=not is_live(source))
    _tell(status, as_json=as_json)


def _opened(parameters: Parameters, *, wall: Callable[[], float] = time.time) -> tuple[Service, Notifier]:
    from edgessl.runtimes.robot.log import start_log
    from edgessl.runtimes.robot.opening import open_service
    from edgessl.runtimes.robot.systemd import Notifier

    notifier = Notifier(os.environ)
    start_log(parameters.log)
    return open_service(parameters, wall=wall), notifier


def _tell(status: Status, *, as_json: bool) -> None:
    counts = ", ".join(f"{count} {outcome}" for outcome, count in status["frames"].items())
    result(status, f"frames: {counts}; learning {status['learning']}", as_json=as_json)
