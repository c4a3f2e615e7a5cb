"""Baselines of test-time adaptation that learn by gradients, in PyTorch: Tent, CoTTA, and fine-tuning of the tail."""

from __future__ import annotations

import copy

import numpy as np
import torch
from baselines import Frames, Head, Net, Vectors, batch_norms, parts, prepared, served
from numpy.typing import NDArray
from torch import Tensor

from edgessl.blocks.image_views import ImageViewConfig, random_image_view
from edgessl.encoders.base import EncoderModule, unit_rows
from edgessl.export.objectives import Source, objective
from edgessl.export.split import split_encoder

#: CoTTA's augmentations, as near as our views come: its shift of 1/16 is that of a crop, its hue a tint.
COTTA_VIEWS = ImageViewConfig(
    area=(0.81, 1.21),
    aspect=(1.0, 1.0),
    turn_deg=15.0,
    light=1.0,
    contrast=(0.7, 1.3),
    saturation=(0.5, 1.5),
    tint=0.06,
    gamma=(0.7, 1.3),
    gain=(0.6, 1.4),
    grey=0.0,
    blur=1.0,
    blur_sigma=(0.00003, 0.5 / 32),
    noise=0.005,
)


class Tent:
    """Entropy minimisation (Tent, arXiv:2006.10726): scales and shifts of the batch norms follow the head's entropy.

    Batch norms normalise by the batch. One step of Adam per batch; what is served is what the loss was taken of, before
    the step, as in the paper's online setting.

    Args:
        encoder: With batch norms.
        head: Linear head.
        lr: As the paper has it for CIFAR-10-C.
    """

    name = "tent"

    def __init__(self, encoder: EncoderModule, head: Head, *, lr: float = 1e-3) -> None:
        self.logits: NDArray[np.float32] | None = None
        self._net = _by_the_batch(Net(encoder, head))
        affine = [weight for norm in batch_norms(self._net) for weight in (norm.weight, norm.bias)]
        self._optimizer = torch.optim.Adam([weight.requires_grad_() for weight in affine], lr=lr)

    @torch.enable_grad()
    def observe(self, frames: Frames) -> Vectors:
        vectors, logits = self._net(prepared(self._net.encoder, frames))
        self._optimizer.zero_grad()
        soft_entropy(logits, logits).backward()
        self._optimizer.step()
        vectors, self.logits = served(vectors, logits)
        return vectors


class CoTTA:
    """A student follows its own average (CoTTA, arXiv:2203.13591): all weights, cross entropy to a teacher's prediction.

    The teacher is the student's moving average. Where the source net is unsure of a batch, its prediction is the mean
    over augmented copies. Some of the student's weights go back to the source's after each step. Served is the teacher's
    prediction; of vectors, that is the mean of those it comes from, at unit length (ours: the paper has logits only).

    Args:
        encoder: With batch norms.
        head: Linear head; it learns with the rest.
        source: Clean frames, unlabelled: below the 5 % quantile of the source net's confidence on them it is unsure. The
            paper has 0.92 for its CIFAR-10 net.
        seed: Of augmentations and restored weights.
        lr: Adam's.
        keep: Of the teacher, per step.
        restore: Share of the weights that go back.
        copies: Augmented copies.
    """

    name = "cotta"

    def __init__(
        self,
        encoder: EncoderModule,
        head: Head,
        *,
        source: Frames,
        seed: int,
        lr: float = 1e-3,
        keep: float = 0.999,
        restore: float = 0.01,
        copies: int = 32,
    ) -> None:
        self.logits: NDArray[np.float32] | None = None
        net = Net(encoder, head)
        with torch.no_grad():
            sure = torch.cat([_confidence(net(prepared(encoder, part))[1]) for part in parts(source)])
        self.threshold = float(sure.quantile(0.05))
        self._anchor = _by_the_batch(net)
        self._teacher, self._student = copy.deepcopy(net), copy.deepcopy(net).requires_grad_()
        self._optimizer = torch.optim.Adam(self._student.parameters(), lr=lr)
        self._keep, self._restore, self._copies = keep, restore, copies
        self._generator = torch.Generator().manual_seed(seed)

    @torch.enable_grad()
    def observe(self, frames: Frames) -> Vectors:
        images = prepared(self._teacher.encoder, frames)
        vectors, logits = self._taught(images)
        self._optimizer.zero_grad()
        soft_entropy(self._student(images)[1], logits).backward()
        self._optimizer.step()
        self._follow()
        vectors, self.logits = served(vectors, logits)
        return vectors

    @torch.no_grad()
    def _taught(self, images: Tensor) -> tuple[Tensor, Tensor]:
        if float(_confidence(self._anchor(images)[1]).mean()) >= self.threshold:
            vectors, logits = self._teacher(images)
            return vectors, logits
        seen = [self._teacher(random_image_view(images, self._generator, COTTA_VIEWS)) for _ in range(self._copies)]
        vectors, logits = (torch.stack(each).mean(0) for each in zip(*seen, strict=True))
        return unit_rows(vectors), logits

    @torch.no_grad()
    def _follow(self) -> None:
        nets = (self._teacher, self._student, self._anchor)
        for teacher, student, source in zip(*(net.parameters() for net in nets), strict=True):
            teacher.lerp_(student, 1 - self._keep)
            back = torch.rand(student.shape, generator=self._generator) < self._restore
            student.copy_(torch.where(back, source, student))


class TailFineTune:
    """The same tail as on the device, fine-tuned in PyTorch on the stream and nothing else: no memory, no guard.

    The loss is an objective of the device's own on two views of each frame, by default VICReg (arXiv:2105.04906)
    whitened with the source's statistics, plus the distance of each view from the frame's embedding at the factory.
    Batch norms are folded, as they are for export. Frames are collected until there are `batch` of them, then one step
    of SGD is taken; what is served was embedded before the steps that its batch sets off.

    Args:
        encoder: Any that can be split.
        head: Linear head; it stays as it is.
        source: Clean frames, unlabelled, for the source's mean and spread.
        seed: Of the views.
        views: How the two views differ from the frame.
        loss: A key of `edgessl.export.objectives.OBJECTIVES`.
        lr: Of SGD.
        momentum: Of SGD.
        batch: Frames of a step.
        distill: Weight of the distance from the factory's embedding.
    """

    def __init__(
        self,
        encoder: EncoderModule,
        head: Head | None = None,
        *,
        source: Frames,
        seed: int,
        views: ImageViewConfig,
        loss: str = "vicreg",
        lr: float = 0.01,
        momentum: float = 0.9,
        batch: int = 32,
        distill: float = 1.0,
    ) -> None:
        self.name = f"tail fine-tuning, {loss}"
        self.logits: NDArray[np.float32] | None = None
        split = split_encoder(encoder)
        self._encoder, self._tail = split.encoder, split.tail
        self._factory = copy.deepcopy(self._tail)
        self._head = Net(encoder, head).head
        self._objective, self._views, self._batch, self._distill = objective(loss), views, batch, distill
        self._generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            clean = torch.cat([self._tail(self._latents(prepared(encoder, part))) for part in parts(source)])
        self._source = Source(mean=clean.mean(0), std=clean.std(0, unbiased=False).clamp_min(1e-4))
        weights = [weight.requires_grad_() for weight in self._tail.parameters()]
        self._optimizer = torch.optim.SGD(weights, lr=lr, momentum=momentum)
        self._waiting: list[Frames] = []

    @torch.enable_grad()
    def observe(self, frames: Frames) -> Vectors:
        with torch.no_grad():
            vectors = self._tail(self._latents(prepared(self._encoder, frames)))
            logits = None if self._head is None else self._head(vectors)
        self._waiting += list(frames)
        while len(self._waiting) >= self._batch:
            self._step(np.stack(self._waiting[: self._batch]))
            del self._waiting[: self._batch]
        vectors, self.logits = served(vectors, logits)
        return vectors

    def _step(self, frames: Frames) -> None:
        images = prepared(self._encoder, frames)
        with torch.no_grad():
            latents = [self._latents(random_image_view(images, self._generator, self._views)) for _ in range(2)]
            wanted = self._factory(self._latents(images))
        self._optimizer.zero_grad()
        self._loss(*map(self._tail, latents), wanted).backward()
        self._optimizer.step()

    def _loss(self, a: Tensor, b: Tensor, wanted: Tensor) -> Tensor:
        away = sum(1 - (view * wanted).sum(1).mean() for view in (a, b)) / 2
        return sum(self._objective(a, b, self._source).values()) + self._distill * away

    def _latents(self, images: Tensor) -> Tensor:
        latents = self._encoder.normalize(images)
        for stage in self._encoder.stages[: self._encoder.cut]:
            latents = stage(latents)
        return latents


def soft_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of `softmax(logits)` to `softmax(wanted)`, both `(batch, classes)`, averaged; of itself, the entropy."""
    return -(wanted.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def _confidence(logits: Tensor) -> Tensor:
    return logits.softmax(1).amax(1)


def _by_the_batch(net: Net) -> Net:
    """Let batch norms normalise by what passes through them, in any mode."""
    for norm in batch_norms(net):
        norm.track_running_stats, norm.running_mean, norm.running_var = False, None, None
    return net
