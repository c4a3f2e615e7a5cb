"""What a loss, and a batch norm, see when a batch is shared by several processes: the whole batch.

Lightning averages gradients over processes. So that the average is the gradient of the loss of the whole batch, whatever
crosses processes here is differentiated as what it is: a sum over processes reaches every process's part, and its gradient is
the sum of theirs. Every process then holds the gradient of the sum of all local losses with respect to its own part, and the
mean of these is the gradient of the mean of the local losses. That mean is the loss of the whole batch both where each process
takes its own rows against all (SimCLR), and where each computes the same figure from all rows (VICReg). Nothing has to be
scaled by the number of processes; a term without gradient to other processes (a queue, a centre) is right as it is.

In one process everything here is the identity.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from edgessl.errors import InputError
from edgessl.vision import vision_module


def world_size() -> int:
    """Processes that train together; 1 when there is one."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this process is the first of them, which writes and speaks for all."""
    return world_size() == 1 or distributed.get_rank() == 0


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes, first process first: `(batch / world, ...)` -> `(batch, ...)`, with gradient."""
    if world_size() == 1:
        return rows
    return torch.cat(vision_module("lightly.utils.dist").gather(rows.contiguous()))


def averaged(values: Tensor) -> Tensor:
    """Mean over processes, elementwise, with gradient."""
    if world_size() == 1:
        return values
    mean: Tensor = _Sum.apply(values) / world_size()  # type: ignore[no-untyped-call]
    return mean


def united(found: dict[str, str]) -> dict[str, str]:
    """What all processes found, by name."""
    if world_size() == 1:
        return found
    parts: list[dict[str, str]] = [{} for _ in range(world_size())]
    distributed.all_gather_object(parts, found)
    return {name: reason for part in parts for name, reason in part.items()}


def norms_across(module: nn.Module, device: str) -> None:
    """Make every batch norm of `module` take its statistics from the whole batch, in place; names of weights stay.

    Args:
        module: What is trained.
        device: `cpu`, where torch's SyncBatchNorm does not run and `AcrossBatchNorm` stands in; else it is used.

    Raises:
        InputError: A batch norm with something built in, which has no such twin on the CPU.
    """
    if device != "cpu":
        vision_module("timm.layers").convert_sync_batchnorm(module)  # torch's own drops the activation of timm's norms
        return
    for name, part in module.named_modules():
        if not isinstance(part, nn.modules.batchnorm._BatchNorm):
            continue
        if type(part) not in (nn.BatchNorm1d, nn.BatchNorm2d, AcrossBatchNorm):
            raise InputError(
                f"{name} is a {type(part).__name__}, which several processes cannot share on a CPU; "
                "type --devices 1, or --accelerator gpu"
            )
        part.__class__ = AcrossBatchNorm  # everything it holds stays where it is


class AcrossBatchNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.BatchNorm1d` and `nn.BatchNorm2d` with the mean and variance of the batches of all processes.

    Each process must bring as many rows as the others.
    """

    def forward(self, input: Tensor) -> Tensor:
        """`(batch, channels, ...)` -> the same."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        full = input.to(
            torch.promote_types(input.dtype, torch.float32)
        )  # as torch's, where the input is in half precision
        mean = averaged(full.mean(axes))  # (channels,)
        centred = full - mean.view(shape)
        variance = averaged(centred.square().mean(axes))
        self._follow(mean.detach(), variance.detach(), input.numel() // input.shape[1] * world_size())
        out = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes."""

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Running statistics, as torch keeps them: of the unbiased variance."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / max(count - 1, 1), share)


class _Sum(torch.autograd.Function):
    """Sum over processes; the gradient of the sum of what all processes make of it is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total
