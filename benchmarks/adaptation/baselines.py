"""Baselines of test-time adaptation that take no gradient; `trained_baselines.py` has those that do.

A baseline embeds a stream online: what `observe` returns is what the method serves for that batch. None sees a label.
The linear head was trained before, on labelled embeddings of clean frames, as the methods that need one assume; they
were made for classifiers, and the unit vector in front of the head is read off as the embedding.
"""

from __future__ import annotations

import copy
import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgessl.encoders.base import EncoderModule, unit_rows
from edgessl.errors import InputError

Frames = NDArray[np.uint8]  # (batch, height, width, 3)
Vectors = NDArray[np.float32]  # (batch, dim), unit rows
Head = tuple[NDArray[np.floating], NDArray[np.floating]]  # weight (classes, dim) and bias (classes,), on unit vectors


class Baseline(Protocol):
    """Something that serves embeddings and may change while it does.

    Attributes:
        name: For tables.
        logits: `(batch, classes)` of the batch observed last; None without a head.
    """

    name: str
    logits: NDArray[np.float32] | None

    def observe(self, frames: Frames) -> Vectors:
        """Embed a batch and learn from it, in the order that the method has."""


class Net(nn.Module):
    """A copy of an encoder with a linear head on its unit vectors: prepared images -> vectors, logits."""

    def __init__(self, encoder: EncoderModule, head: Head | None) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
        self.head = None
        if head is not None:
            weight, bias = (nn.Parameter(torch.tensor(each, dtype=torch.float32), requires_grad=False) for each in head)
            self.head = nn.Linear(weight.shape[1], len(weight))
            self.head.weight, self.head.bias = weight, bias

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        vectors = unit_rows(self.encoder.features(images))
        return vectors, None if self.head is None else self.head(vectors)


class NoAdaptation:
    """The encoder as it left the factory."""

    name = "no adaptation"

    def __init__(self, encoder: EncoderModule, head: Head | None = None) -> None:
        self.logits: NDArray[np.float32] | None = None
        self._net = Net(encoder, head)

    @torch.no_grad()
    def observe(self, frames: Frames) -> Vectors:
        vectors, self.logits = served(*self._net(prepared(self._net.encoder, frames)))
        return vectors


class BatchNormStats:
    """Batch norms normalise by statistics of the stream.

    With the defaults, those of the batch alone (Nado et al., arXiv:2006.10963). With a `prior`, mixed with the source's
    as if these had been seen in N frames (Schneider et al., arXiv:2006.16971, eq. 3: N / (N + n) and n / (N + n)). With
    a `memory`, n counts all frames since the start, up to so many, and the statistics run over them: ours, so that a
    small or correlated batch does not decide alone.

    Args:
        encoder: With batch norms.
        head: Linear head.
        prior: N, in frames.
        memory: Frames that the running statistics remember; 0 for the batch alone.
    """

    def __init__(
        self, encoder: EncoderModule, head: Head | None = None, *, prior: float = 0, memory: float = 0
    ) -> None:
        self.name = f"batch norm, prior {prior:g}" + (f", memory {memory:g}" if memory else "")
        self.logits: NDArray[np.float32] | None = None
        self._net = Net(encoder, head)
        for norm in batch_norms(self._net):
            norm.register_forward_pre_hook(_Reestimate(norm, prior, memory))

    @torch.no_grad()
    def observe(self, frames: Frames) -> Vectors:
        vectors, self.logits = served(*self._net(prepared(self._net.encoder, frames)))
        return vectors


class Neo:
    """Recentring of the embedding (NEO, arXiv:2510.05635): each feature vector less the stream's mean, plus the source's.

    As in the paper, the mean is that of all frames so far, this batch among them. The paper centres at the origin, where
    the features of a supervised net lie by neural collapse; a self-supervised encoder's do not, so they go back to where
    the source's were. The features are those in front of the normalisation to unit length.

    Args:
        encoder: Any.
        head: Linear head.
        source: Clean frames, unlabelled, for the source's mean.
        memory: Frames that the mean remembers; all when infinite. A finite one is the paper's continual variant, whose
            moving average we make independent of the batch's size.
    """

    def __init__(
        self, encoder: EncoderModule, head: Head | None = None, *, source: Frames, memory: float = math.inf
    ) -> None:
        self.name = "neo" if memory == math.inf else f"neo, memory {memory:g}"
        self.logits: NDArray[np.float32] | None = None
        self._net = Net(encoder, head)
        self._memory, self._seen = memory, 0.0
        self._source_mean = self._features(source).mean(0)
        self._mean = torch.zeros_like(self._source_mean)

    @torch.no_grad()
    def observe(self, frames: Frames) -> Vectors:
        features = self._features(frames)
        self._seen = min(self._seen + len(features), max(self._memory, len(features)))
        self._mean += (features.mean(0) - self._mean) * (len(features) / self._seen)
        recentred = unit_rows(features - self._mean + self._source_mean)
        head = self._net.head
        vectors, self.logits = served(recentred, None if head is None else head(recentred))
        return vectors

    @torch.no_grad()
    def _features(self, frames: Frames) -> Tensor:
        encoder = self._net.encoder
        return torch.cat([encoder.features(prepared(encoder, part)) for part in parts(frames)])


def prepared(encoder: EncoderModule, frames: Frames) -> Tensor:
    """uint8 frames -> images `(batch, 3, height, width)` in 0..1."""
    return encoder.prepare(torch.from_numpy(np.ascontiguousarray(frames)))


def parts(frames: Frames, size: int = 500) -> list[Frames]:
    """Frames in parts that fit into memory."""
    return [frames[start : start + size] for start in range(0, len(frames), size)]


def served(vectors: Tensor, logits: Tensor | None) -> tuple[Vectors, NDArray[np.float32] | None]:
    """Tensors as arrays of their own."""
    return vectors.detach().numpy().copy(), None if logits is None else logits.detach().numpy().copy()


def batch_norms(module: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """All of a module's.

    Raises:
        InputError: There is none.
    """
    found = [each for each in module.modules() if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d)]
    if not found:
        raise InputError("the encoder has no batch norm to adapt; choose one that has, such as conv_small")
    return found


class _Reestimate:
    """Set a batch norm's statistics from what is about to pass through it."""

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, prior: float, memory: float) -> None:
        self._source = (norm.running_mean.clone(), norm.running_var.clone())
        self._prior, self._memory, self._seen = prior, memory, 0.0
        self._mean, self._variance = (torch.zeros_like(each) for each in self._source)

    def __call__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        (x,) = inputs
        axes = [axis for axis in range(x.ndim) if axis != 1]
        variance, mean = torch.var_mean(x, axes, correction=0)
        self._seen = min(self._seen + len(x), max(self._memory, len(x)))
        share, apart = len(x) / self._seen, mean - self._mean
        self._mean = self._mean + share * apart
        self._variance = (1 - share) * self._variance + share * variance + share * (1 - share) * apart.square()
        trust = self._seen / (self._prior + self._seen)
        norm.running_mean = torch.lerp(self._source[0], self._mean, trust)
        norm.running_var = torch.lerp(self._source[1], self._variance, trust)
