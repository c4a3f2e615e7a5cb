"""Cut an encoder into a frozen trunk with ports and a live tail."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgessl.blocks.folding import fold_batch_norms
from edgessl.encoders.base import EncoderModule, unit_rows

_MIXED = (
    256  # channels that are mixed at most: a quarter of a million numbers a frame, and as many in each snapshot; ours
)


class Trunk(nn.Module):
    """Frames and ports -> latents, and the channel statistics in front of each port.

    Inputs after the frames: scale and shift of each port, `(channels,)`, shallow first. Outputs after the latents: mean
    and mean square of each channel over a sample's positions, `(batch, channels)`, taken before that port is applied; and for
    ports that may mix channels the mean products of two, `(batch, channels, channels)`.
    """

    def __init__(self, encoder: EncoderModule) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, frames: Tensor, *ports: Tensor) -> tuple[Tensor, ...]:
        """`(batch, *sample)` and ports -> `(batch, *latent)` and statistics."""
        encoder = self.encoder
        latent = encoder.normalize(encoder.prepare(frames))
        statistics: list[Tensor] = []
        # Not a slice of the stages: it would stand in the names of everything that the graph holds.
        for index, stage in enumerate(encoder.stages):
            if index == encoder.cut:
                break
            latent = stage(latent)
            if index in encoder.ports:
                positions = [axis for axis in range(1, latent.ndim) if axis != encoder.channel_axis]
                statistics += [latent.mean(positions), latent.square().mean(positions)]
                number = encoder.ports.index(index)
                if number in may_mix(encoder):
                    flat = latent.flatten(2)
                    statistics.append(flat @ flat.transpose(1, 2) / flat.shape[2])
                shape = [1] * latent.ndim
                shape[encoder.channel_axis] = -1
                place = 2 * number
                latent = latent * ports[place].view(shape) + ports[place + 1].view(shape)
        return latent, *statistics


def may_mix(encoder: EncoderModule) -> tuple[int, ...]:
    """Numbers of the ports that may mix channels, if they stand right behind convolutions.

    Not the first: what stands in front of it has a map of its own (`runtimes/stem.py`), and mixing there as well gained nothing.
    """
    if encoder.channel_axis != 1:
        return ()
    channels = [encoder.channels[stage] for stage in encoder.ports]
    return tuple(index for index, count in enumerate(channels) if index and count <= _MIXED)


class Tail(nn.Module):
    """Latents -> unit vectors `(batch, dim)`."""

    def __init__(self, encoder: EncoderModule) -> None:
        super().__init__()
        self.stages = nn.ModuleList(encoder.stages[encoder.cut :])
        self.pool = encoder.pool

    def forward(self, latents: Tensor) -> Tensor:
        """`(batch, *latent)` -> `(batch, dim)`."""
        for stage in self.stages:
            latents = stage(latents)
        return unit_rows(self.pool(latents))


class Whole(Trunk):
    """Frames and ports -> unit vectors, latents and channel statistics: encoder and trunk are parts of its graph."""

    def forward(self, frames: Tensor, *ports: Tensor) -> tuple[Tensor, ...]:
        """`(batch, *sample)` and ports -> `(batch, dim)`, `(batch, *latent)` and statistics."""
        latent, *statistics = super().forward(frames, *ports)
        value = latent
        for index, stage in enumerate(self.encoder.stages):
            if index >= self.encoder.cut:
                value = stage(value)
        return unit_rows(self.encoder.pool(value)), latent, *statistics


@dataclass(frozen=True, kw_only=True)
class Split:
    """An encoder in two parts, ready for export.

    Attributes:
        encoder: In eval mode, batch norms folded into their convolutions where they follow one.
        latent: Shape of one sample's latent.
    """

    encoder: EncoderModule
    trunk: Trunk
    tail: Tail
    latent: tuple[int, ...]

    def identity_ports(self) -> tuple[Tensor, ...]:
        """Scales of one and shifts of zero."""
        ports: list[Tensor] = []
        for stage in self.encoder.ports:
            ports += [torch.ones(self.encoder.channels[stage]), torch.zeros(self.encoder.channels[stage])]
        return tuple(ports)

    def port_names(self) -> list[str]:
        """Names of the trunk graph's port inputs, in the order of `identity_ports`."""
        return [f"port{index}.{part}" for index in range(len(self.encoder.ports)) for part in ("scale", "shift")]

    def statistic_names(self) -> list[str]:
        """Names of the trunk graph's statistics outputs, in the order of `Trunk.forward`."""
        names = []
        for index in range(len(self.encoder.ports)):
            names += [f"port{index}.mean", f"port{index}.square"]
            names += [f"port{index}.products"] if index in may_mix(self.encoder) else []
        return names

    def tail_weights(self) -> dict[str, Tensor]:
        """Weights of the tail that its output depends on and that the trunk does not share, by name."""
        trunk = {id(parameter) for parameter in self.encoder.stages[: self.encoder.cut].parameters()}
        named = {name: parameter for name, parameter in self.tail.named_parameters() if id(parameter) not in trunk}
        if not named:
            return {}
        with torch.enable_grad():
            leaves = {name: parameter.detach().clone().requires_grad_() for name, parameter in named.items()}
            probe = torch.rand(2, *self.latent, generator=torch.Generator().manual_seed(0))
            vectors = torch.func.functional_call(self.tail, leaves, (probe,))
            used = torch.autograd.grad(vectors.square().sum() + vectors.sum(), list(leaves.values()), allow_unused=True)
        return {
            name: leaves[name].detach() for name, gradient in zip(leaves, used, strict=True) if gradient is not None
        }


@torch.no_grad()
def split_encoder(encoder: EncoderModule) -> Split:
    """Copy `encoder`, freeze it, fold its batch norms and cut it.

    The weights that stay are those of the folded tail: what learns on the device is what is stored.
    """
    encoder = copy.deepcopy(encoder).eval().requires_grad_(False)
    _explicit_attention(encoder)
    trunk, probe = Trunk(encoder).eval(), encoder.blank(2)
    bare = Split(encoder=encoder, trunk=trunk, tail=Tail(encoder).eval(), latent=())
    ports = bare.identity_ports()
    whole = Whole(encoder).eval()
    # What the exporter would fold later loses its name there, and a tail's weights must keep theirs.
    fold_batch_norms(encoder, lambda: whole(probe, *ports))
    latent = trunk(probe, *ports)[0]
    return Split(encoder=encoder, trunk=trunk, tail=Tail(encoder).eval(), latent=tuple(latent.shape[1:]))


def _explicit_attention(encoder: EncoderModule) -> None:
    """Fused attention off: its backward has no ONNX form, and some TensorRT releases compile its forward wrongly."""
    for module in encoder.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010, a type checker sees only what nn.Module declares
