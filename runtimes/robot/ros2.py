"""A ROS 2 node: images in, vectors and diagnostics out. It has been run against a stand-in of rclpy only, never under ROS.

sub   image         sensor_msgs/Image, or `image/compressed`, sensor_msgs/CompressedImage, with `compressed`; the QoS of
                    sensors: best effort, depth 1, so the newest frame wins
pub   ~/vector      std_msgs/Float32MultiArray: one dimension, whose label is a JSON object with the stamp and frame_id of
                    the image's header, the version, the space id, drift, health and age
      /diagnostics  diagnostic_msgs/DiagnosticArray, once a second

There is no standard message of an embedding. `Float32MultiArray` is the plainest that every tool reads, but it has no header:
so what a header would say stands in the label, exactly: `"stamp": [sec, nanosec]` is the image's own, not the time at
which the vector was made.

rclpy and the packages of the messages come with ROS and are imported here only, when a node is run.
"""

# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from edgessl.errors import InputError
from edgessl.runtimes.robot.answer import Answer
from edgessl.runtimes.robot.parameters import TABLE
from edgessl.runtimes.robot.rounds import POLL_S, Rounds
from edgessl.runtimes.robot.seams import Frame, Status
from edgessl.runtimes.robot.service import Service
from edgessl.runtimes.robot.systemd import Notifier
from edgessl.sources.pixels import FILES, Size, rgb_from

NAME = "edgessl"
OK, WARN, ERROR = b"\x00", b"\x01", b"\x02"  # of diagnostic_msgs/DiagnosticStatus

_LOG = logging.getLogger("edgessl.node")


class RosNode:
    """rclpy's context and one node in it; use it in a `with`.

    Args:
        args: What ROS understands: `--ros-args -p level:=none -r image:=/camera/image_raw`.

    Raises:
        InputError: rclpy is not there.
    """

    def __init__(self, args: Sequence[str] = ()) -> None:
        try:
            import rclpy
            from rclpy.signals import SignalHandlerOptions
        except ModuleNotFoundError as error:
            raise InputError("'rclpy' comes with ROS 2: type source /opt/ros/DISTRO/setup.bash first") from error
        # Its own context, and no signal handlers: the node ends in its own order.
        rclpy.init(args=list(args), signal_handler_options=SignalHandlerOptions.NO)
        self._rclpy = rclpy
        self.node = rclpy.create_node(NAME)

    def parameters(self) -> dict[str, Any]:
        """The layer of parameters that ROS gave; those that were not given have no entry."""
        for entry in TABLE:
            self.node.declare_parameter(entry.name, "", _any_type())
        given = {entry.name: self.node.get_parameter(entry.name).value for entry in TABLE}
        return {name: value for name, value in given.items() if value not in (None, "")}

    def wall(self) -> float:
        """Seconds of the node's clock, which a simulation or a bag may drive (`use_sim_time`), as it drives the stamps."""
        return float(self.node.get_clock().now().nanoseconds) * 1e-9

    def run(self, service: Service, notifier: Notifier, *, compressed: bool = False) -> Status:
        """Answer images until a signal ends it; the last status."""
        from diagnostic_msgs.msg import DiagnosticArray
        from rclpy.qos import QoSProfile, ReliabilityPolicy
        from sensor_msgs.msg import CompressedImage, Image
        from std_msgs.msg import Float32MultiArray

        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        vectors = self.node.create_publisher(Float32MultiArray, "~/vector", 10)
        diagnostics = self.node.create_publisher(DiagnosticArray, "/diagnostics", 10)

        def take(message: Any) -> None:
            answer = service.embed(lambda: frame_of(message, service.size), stamp_s_of(message.header))
            if answer.vector is not None:
                vectors.publish(_vector_message(answer, message.header))

        topic, kind = ("image/compressed", CompressedImage) if compressed else ("image", Image)
        self.node.create_subscription(kind, topic, take, newest)
        with Rounds(service, lambda status: diagnostics.publish(self._diagnosis(status)), notifier=notifier) as rounds:
            while not rounds.stopping and self._rclpy.ok():
                self._rclpy.spin_once(self.node, timeout_sec=POLL_S)
                rounds.turn()
        return rounds.last

    def __enter__(self) -> RosNode:
        return self

    def __exit__(self, *error: object) -> None:
        self.node.destroy_node()
        self._rclpy.try_shutdown()

    def _diagnosis(self, status: Status) -> Any:
        from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

        level, message, values = diagnosis_of(status)
        told = DiagnosticStatus(level=level, name=NAME, message=message, hardware_id=str(status["space_id"]))
        told.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        array = DiagnosticArray(status=[told])
        array.header.stamp = self.node.get_clock().now().to_msg()
        return array


def frame_of(message: Any, size: Size | None) -> Frame:
    """The RGB frame `(height, width, 3)` of an Image or a CompressedImage.

    Raises:
        InputError: It is damaged, or no frame of RGB.
    """
    if hasattr(message, "format"):
        return rgb_from(message.data, _file_of(message.format), size=size)
    return rgb_from(
        message.data,
        message.encoding,
        height=message.height,
        width=message.width,
        step=message.step,
        big_endian=bool(message.is_bigendian),
        size=size,
    )


def stamp_s_of(header: Any) -> float | None:
    """Seconds since 1970 of a header's stamp; `None` where nobody set it."""
    stamp = header.stamp
    return stamp.sec + stamp.nanosec * 1e-9 if stamp.sec or stamp.nanosec else None


def label_of(answer: Answer, header: Any) -> str:
    """What a header would say of a vector, and the rest of the answer, as JSON."""
    told = {"stamp": [header.stamp.sec, header.stamp.nanosec], "frame_id": header.frame_id}
    return json.dumps(told | answer.facts(), sort_keys=True)


def diagnosis_of(status: Status) -> tuple[bytes, str, dict[str, str]]:
    """Level, message and values of a DiagnosticStatus."""
    health = str(status["health"])
    failed = health in ("failed", "engine failed")
    return (
        ERROR if failed else OK if health == "ok" else WARN,
        health,
        {
            key: value if isinstance(value, str) else json.dumps(value, default=str)
            for key, value in flat(status).items()
        },
    )


def flat(facts: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """`{"frames": {"stale": 2}}` -> `{"frames.stale": 2}`."""
    found: dict[str, Any] = {}
    for key, value in facts.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": value}
    return found


def _file_of(text: str) -> str:
    """`rgb8; jpeg compressed bgr8` -> `jpeg`: what image_transport writes there."""
    words = text.replace(";", " ").lower().split()
    return next((word for word in words if word in FILES), text)


def _vector_message(answer: Answer, header: Any) -> Any:
    from std_msgs.msg import Float32MultiArray, MultiArrayDimension

    values = [] if answer.vector is None else answer.vector.tolist()
    message = Float32MultiArray(data=values)
    message.layout.dim = [MultiArrayDimension(label=label_of(answer, header), size=len(values), stride=len(values))]
    return message


def _any_type() -> Any:
    from rcl_interfaces.msg import ParameterDescriptor

    return ParameterDescriptor(dynamic_typing=True)  # `threads:=2` is a whole number, `threads:='2'` text
