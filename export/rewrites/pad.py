"""A number of tokens that divides into blocks: 197 becomes 198, with the one more hidden from attention.

A matrix product is computed block by block, and a CPU kernel wants blocks of rows that divide the rows evenly. 197 and 257
are primes: OpenVINO 2026.4 takes a quarter more time for the int8 products of 197 tokens than for those of 198 or 200 (two
threads, AVX512-VNNI; `benchmarks/token_padding.py`). The tokens that are added are copies of the last; a term far
below zero in front of each softmax gives them no attention, so no other token ever sees them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgessl.export.rewrites.axes import SUMS, Axes, attribute
from edgessl.export.surgery import part, sliced, weights_of

_LEAST = 96  #: with fewer tokens all rows are one block or two
_BLOCKS = range(16, 65)  #: rows of a block that kernels are quick with; ours, from the benchmark
_HIDDEN = -1e9  #: beside any real score its exponential is 0 in every float


def even_tokens(tokens: int) -> int:
    """The smallest number from `tokens` on whose rows divide into blocks of 16 to 64."""
    if tokens < _LEAST:
        return tokens
    return next(
        number for number in range(tokens, tokens + max(_BLOCKS)) if any(number % block == 0 for block in _BLOCKS)
    )


def padded(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a transformer's graph with an even number of tokens inside; the same where it is no transformer, or even.

    Values keep their names; what the graph gives keeps its shape.
    """
    axes = Axes.of(model)
    found = _entry(model, axes)
    if found is None:
        return model
    value, tokens = found
    work = _Padding(model, axes, value, tokens, even_tokens(tokens))
    for node in model.graph.node:
        work.take(node)
    return work.finished()


def _entry(model: onnx.ModelProto, axes: Axes) -> tuple[str, int] | None:
    """The value that the first block reads, `(batch, tokens, channels)`, and its tokens, where they are to be padded."""
    looked_over = {
        size
        for node in model.graph.node
        if node.op_type == "Softmax"
        for size in (axes.size(node.input[0], len(axes.shapes.get(node.input[0], ())) - 1),)
    }
    for node in model.graph.node:
        if node.op_type == "LayerNormalization" and len(axes.shapes.get(node.input[0], ())) == 3:
            tokens = axes.size(node.input[0], 1)
            if tokens is None or tokens not in looked_over or even_tokens(tokens) == tokens:
                return None
            return node.input[0], tokens
    return None


@dataclass
class _Padding:
    """The nodes of a graph, one after the other, with more tokens from `value` on.

    Attributes:
        model, axes: The graph as it was.
        value: Where padding begins.
        tokens, size: As they were, and as they become.
        more: Values that have more entries -> the axes along which they do.
        silent: Those of them in which the entries added are zero along the last axis.
        cut: Values that are there as they were, too.
    """

    model: onnx.ModelProto
    axes: Axes
    value: str
    tokens: int
    size: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    more: dict[str, frozenset[int]] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)
    cut: set[str] = field(default_factory=set)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    hidden: int = 0

    def __post_init__(self) -> None:
        self.weights = weights_of(self.model)
        if self.value in {entry.name for entry in self.model.graph.input}:
            self._begin()

    def take(self, given: onnx.NodeProto) -> None:
        """The next node."""
        node = onnx.NodeProto()
        node.CopyFrom(given)
        if self._begun:
            self._read_padded(node)
        self.nodes.append(node)
        if self.value in node.output:
            self._begin()

    @property
    def _begun(self) -> bool:
        return self._fresh in self.more

    @property
    def _fresh(self) -> str:
        return f"{self.value}.padded"

    def _begin(self) -> None:
        pads = np.array([0, 0, 0, 0, self.size - self.tokens, 0], np.int64)
        self._add("Pad", [self.value, self._constant(f"{self._fresh}.pads", pads)], self._fresh)
        # Copies of the last token are as safe to compute with as that one.
        self.nodes[-1].attribute.append(helper.make_attribute("mode", "edge"))
        self.more[self._fresh] = frozenset({1})

    def _read_padded(self, node: onnx.NodeProto) -> None:
        """Let a node read padded values where it can, and cut what it reads to the old size where it cannot."""
        named = [self._fresh if name == self.value else name for name in node.input]
        places = [place for place, name in enumerate(named) if name in self.more]
        if not places:
            return
        axes = frozenset() if self._taken_before(node, named) else self._axes_through(node, named, places)
        if axes is None:
            for place in places:
                node.input[place] = self._cut(named[place])
            return
        for place, name in enumerate(named):
            node.input[place] = name
        if node.op_type in SUMS:
            self._stretch(node)
        elif node.op_type == "Reshape":
            sizes = np.array(self.axes.stored[node.input[1]], np.int64)
            for axis in axes:
                sizes[axis] = self.size if sizes[axis] == self.tokens else sizes[axis]
            node.input[1] = self._constant(f"{node.output[0]}.shape", sizes)
        last = self._last_of(node.output[0])
        hides = node.op_type == "Softmax" and last in axes and attribute(node, "axis", -1) in (-1, last)
        if hides:
            self._hide(node)
        rounds = node.op_type in ("QuantizeLinear", "DequantizeLinear")  # 0 stays 0
        if hides or (rounds and node.input[0] in self.silent):
            self.silent.add(node.output[0])
        if axes:
            self.more[node.output[0]] = axes

    def _taken_before(self, node: onnx.NodeProto, named: Sequence[str]) -> bool:
        """Whether a node takes entries of the padded axis that lie before what was added, and none else."""
        axis, first, end = self.axes.taken(node) or (-1, 0, 0)
        return self.more.get(named[0]) == frozenset({axis}) and first >= 0 and 0 < end <= self.tokens

    def _axes_through(self, node: onnx.NodeProto, named: Sequence[str], places: Sequence[int]) -> frozenset[int] | None:
        """The axes of the output that have more entries; None where the node cannot be given more."""
        if len(node.output) != 1 or (node.op_type == "Reshape" and node.input[1] not in self.axes.stored):
            return None
        made: set[int] = set()
        for place in places:
            for axis in self.more[named[place]]:
                out = self.axes.through(node, place, axis)
                if out is None and not self._unheard(node, named, place, axis):
                    return None
                if out is not None or node.op_type == "Softmax":
                    made.add(axis if out is None else out)
        if node.op_type == "MatMul" and not self._meet(named):
            return None
        if node.op_type in (*SUMS, "MatMul") and not all(
            self._alike(node, place, made) for place in range(len(node.input))
        ):
            return None
        return frozenset(made)

    def _last_of(self, name: str) -> int:
        return len(self.axes.shapes[self._plain(name)]) - 1

    def _meet(self, named: Sequence[str]) -> bool:
        """Whether both factors of a product have more entries where they meet, or neither."""
        left, right = (self.more.get(name, frozenset()) for name in named)
        return (self._last_of(named[0]) in left) == (self._last_of(named[1]) - 1 in right)

    def _unheard(self, node: onnx.NodeProto, named: Sequence[str], place: int, axis: int) -> bool:
        """Whether what is added makes no difference along an axis that a node sums over."""
        rank = len(self.axes.shapes[node.input[place]])
        if node.op_type == "Softmax":
            return bool(axis == rank - 1 == attribute(node, "axis", -1) % rank)
        # A product over tokens: on its left what a softmax gave them, nothing.
        return node.op_type == "MatMul" and named[0] in self.silent and axis == (rank - 1 if place == 0 else rank - 2)

    def _alike(self, node: onnx.NodeProto, place: int, made: set[int]) -> bool:
        """Whether an operand of a sum has more entries where the others have, can be given more, or is stretched."""
        name = node.input[place]
        shape, rank = self.axes.shapes.get(name), len(self.axes.shapes[node.output[0]])
        if shape is None:
            return False
        has = {rank - len(shape) + axis for axis in self.more.get(self._fresh if name == self.value else name, ())}
        own = {axis for axis in made - has if axis >= rank - len(shape)}
        if node.op_type == "MatMul":  # rows are the left factor's, columns the right one's
            own -= {rank - 1 if place == 0 else rank - 2}
            return not {axis for axis in own if shape[axis - rank] != 1}
        return not {axis for axis in own if shape[axis - rank] != 1} or name in self.weights

    def _stretch(self, node: onnx.NodeProto) -> None:
        """More entries for a constant beside a padded value: copies of its last one."""
        rank = len(self.axes.shapes[node.output[0]])
        padded_at = {
            axis + rank - len(self.axes.shapes[self._plain(name)])
            for name in node.input
            for axis in self.more.get(name, ())
        }
        for place, name in enumerate(node.input):
            stored = self.weights.get(name)
            if stored is None:
                continue
            value = numpy_helper.to_array(stored)
            own = {axis - (rank - value.ndim) for axis in padded_at}
            widths = [
                (0, self.size - self.tokens if axis in own and value.shape[axis] == self.tokens else 0)
                for axis in range(value.ndim)
            ]
            if any(after for _, after in widths):
                fresh = ".".join(["padded", name, *(str(axis) for axis, (_, after) in enumerate(widths) if after)])
                node.input[place] = self._constant(fresh, np.pad(value, widths, mode="edge"))

    def _hide(self, node: onnx.NodeProto) -> None:
        """Subtract so much in front of a softmax that what was added gets nothing."""
        term = np.zeros(self.size, np.float32)
        term[self.tokens :] = _HIDDEN
        hidden = f"{node.output[0]}.hidden"
        self.hidden += 1
        self._add("Add", [node.input[0], self._constant(f"hidden.{self.tokens}", term)], hidden)
        node.input[0] = hidden

    def _plain(self, name: str) -> str:
        return self.value if name == self._fresh else name

    def _cut(self, name: str) -> str:
        """A padded value as it was."""
        if name == self._fresh:
            return self.value
        plain, value = f"{name}.tokens", name
        if plain in self.cut:
            return plain
        self.cut.add(plain)
        for step, axis in enumerate(sorted(self.more[name]), 1):
            made = plain if step == len(self.more[name]) else f"{plain}.{axis}"
            node, constants = sliced(value, axis, 0, self.tokens, made)
            self.nodes.append(node)
            self.constants |= constants
            value = made
        return plain

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def _add(self, kind: str, inputs: list[str], output: str) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output))

    def finished(self) -> onnx.ModelProto:
        """The graph; what it gives has the shape and the name that it had. As it was where padding never reached attention."""
        if not self.hidden:
            return self.model
        outputs = [entry.name for entry in self.model.graph.output]
        for name in outputs:
            if name in self.more:
                cut = self._cut(name)
                for node in self.nodes:
                    for names in (node.input, node.output):
                        for place, each in enumerate(names):
                            if each in (name, cut):
                                names[place] = f"{name}.more" if each == name else name
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        del model.graph.node[:], model.graph.value_info[:]
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in self.constants.items())
        return part(model, outputs)
