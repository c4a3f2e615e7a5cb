"""A stand-in for rclpy: its messages are made from ROS's own definitions, its node hands over what a test gives it.

As with the real ones, a field that a message does not have, or a value of another type, is an error.
"""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

from rosbags.typesys import Stores, get_typestore

DEFINED = get_typestore(Stores.ROS2_HUMBLE).fielddefs
BASE, NAME, ARRAY, SEQUENCE = 1, 2, 3, 4
PLAIN = {
    "string": (str, ""),
    "bool": (bool, False),
    "byte": (bytes, b"\0"),
    "float32": (float, 0.0),
    "float64": (float, 0.0),
}
MESSAGES = {
    "builtin_interfaces": ("Time",),
    "std_msgs": ("Header", "Float32MultiArray", "MultiArrayDimension", "MultiArrayLayout"),
    "sensor_msgs": ("Image", "CompressedImage"),
    "diagnostic_msgs": ("DiagnosticArray", "DiagnosticStatus", "KeyValue"),
    "rcl_interfaces": ("ParameterDescriptor",),
}


class Message:
    """Base of the generated messages."""

    fields: dict[str, Any]

    def __init__(self, **given: Any) -> None:
        for name, kind in self.fields.items():
            object.__setattr__(self, name, default(kind))
        for name, value in given.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.fields:
            raise AttributeError(f"{type(self).__name__} has no field {name!r}")
        check(self.fields[name], value, f"{type(self).__name__}.{name}")
        object.__setattr__(self, name, value)


def default(kind: Any) -> Any:
    what, more = int(kind[0]), kind[1]
    if what == BASE:
        return PLAIN.get(more[0], (int, 0))[1]
    return message(more)() if what == NAME else []


def check(kind: Any, value: Any, where: str) -> None:
    what, more = int(kind[0]), kind[1]
    if what == BASE:
        wanted = PLAIN.get(more[0], (int, 0))[0]
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise AssertionError(f"{where} must be {more[0]}, not {value!r}")
    elif what == NAME:
        if not isinstance(value, message(more)):
            raise AssertionError(f"{where} must be {more}, not {value!r}")
    elif not isinstance(value, bytes):
        for part in value:
            check(more[0], part, where)


_made: dict[str, type[Message]] = {}


def message(name: str) -> type[Message]:
    """The class of `std_msgs/msg/Header`."""
    if name not in _made:
        _made[name] = type(name.rpartition("/")[2], (Message,), {"fields": dict(DEFINED[name][1])})
    return _made[name]


class FakeNode:
    """Keeps what it is told; `queue` holds the messages that will come."""

    def __init__(self, name: str, given: dict[str, Any], queue: list[Any]) -> None:
        self.name, self.given, self.queue = name, given, queue
        self.declared: dict[str, Any] = {}
        self.published: dict[str, list[Message]] = {}
        self.subscribed: list[tuple[Any, str, Any, Any]] = []
        self.now_ns = 1_000_000_000_000
        self.destroyed = False

    def declare_parameter(self, name: str, value: Any, descriptor: Message) -> None:
        assert descriptor.dynamic_typing or isinstance(self.given.get(name, value), type(value))
        self.declared[name] = self.given.get(name, value)

    def get_parameter(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(value=self.declared[name])

    def create_publisher(self, kind: type[Message], topic: str, depth: int) -> SimpleNamespace:
        def publish(sent: Message) -> None:
            assert isinstance(sent, kind)
            self.published.setdefault(topic, []).append(sent)

        return SimpleNamespace(publish=publish)

    def create_subscription(self, kind: type[Message], topic: str, call: Any, qos: Any) -> None:
        self.subscribed.append((kind, topic, call, qos))

    def get_clock(self) -> SimpleNamespace:
        seconds, rest = divmod(self.now_ns, 10**9)
        stamp = message("builtin_interfaces/msg/Time")(sec=seconds, nanosec=rest)
        now = SimpleNamespace(nanoseconds=self.now_ns, to_msg=lambda: stamp)
        return SimpleNamespace(now=lambda: now)

    def destroy_node(self) -> None:
        self.destroyed = True


class FakeRos:
    """The packages of ROS, to be put into `sys.modules`."""

    def __init__(self, given: dict[str, Any], queue: list[Any]) -> None:
        self.node = FakeNode("", given, queue)
        self.args: list[str] | None = None
        self.up = False
        self.signals = SimpleNamespace(NO="no signal handlers")
        rclpy = ModuleType("rclpy")
        rclpy.init, rclpy.create_node, rclpy.ok = self.init, self.create_node, lambda: self.up
        rclpy.spin_once, rclpy.try_shutdown = self.spin_once, self.try_shutdown
        self.modules = {
            "rclpy": rclpy,
            "rclpy.signals": ModuleType("rclpy.signals"),
            "rclpy.qos": ModuleType("rclpy.qos"),
        }
        self.modules["rclpy.signals"].SignalHandlerOptions = self.signals
        self.modules["rclpy.qos"].QoSProfile = lambda **qos: SimpleNamespace(**qos)
        self.modules["rclpy.qos"].ReliabilityPolicy = SimpleNamespace(BEST_EFFORT="best effort", RELIABLE="reliable")
        for package, names in MESSAGES.items():
            module = ModuleType(f"{package}.msg")
            for name in names:
                setattr(module, name, message(f"{package}/msg/{name}"))
            self.modules |= {package: ModuleType(package), f"{package}.msg": module}

    def install(self, monkeypatch: Any) -> None:
        for name, module in self.modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    def init(self, *, args: list[str], signal_handler_options: str) -> None:
        assert signal_handler_options == self.signals.NO
        self.args, self.up = args, True

    def create_node(self, name: str) -> FakeNode:
        self.node.name = name
        return self.node

    def spin_once(self, node: FakeNode, timeout_sec: float) -> None:
        assert timeout_sec > 0
        if not node.queue:
            self.up = False
            return
        given = node.queue.pop(0)
        for kind, _, call, _ in node.subscribed:
            if isinstance(given, kind):
                call(given)

    def try_shutdown(self) -> None:
        self.up = False
