"""From the part of a sample that is seen, what a teacher makes of blocks that are not: what I-JEPA and Bootleg share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgessl.blocks.tokens import TokenDecoder, at_places, block_places, encode, encode_stages, tokens_of
from edgessl.encoders import EncoderModule


class BlockPrediction(nn.Module):
    """The predictor, and what it is held against.

    Attributes:
        levels: Stages of the teacher whose tokens are the target, one behind the other.
        predictor: Tokens of the context -> tokens at the places of a block.
        front: The pooled vector of the context as a token; None where it predicts nothing.
    """

    def __init__(
        self,
        encoder: EncoderModule,
        recipe: str,
        levels: Sequence[int],
        *,
        blocks: int,
        pooled: float,
        width: int,
        depth: int,
        heads: int,
    ) -> None:
        """Build it.

        Args:
            encoder: The student.
            recipe: Who asks, for messages.
            levels: As the attribute.
            blocks: Target blocks per sample.
            pooled: Weight of what is predicted from the pooled vector alone.
            width, depth, heads: Of the predictor.

        Raises:
            InputError: The encoder has no tokens, or the width cannot be shared among heads.
        """
        super().__init__()
        embed, dim = tokens_of(encoder, recipe), encoder.channels[-1]
        self.levels, self._grid, self._prefix = tuple(levels), embed.grid, embed.prefix
        self._blocks, self._weight = blocks, pooled
        self.predictor = TokenDecoder(embed.grid, dim, dim * len(levels), width=width, depth=depth, heads=heads)
        self.front = nn.Linear(encoder.dim, dim) if pooled else None

    def places(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Places of the context `(batch, kept)`, and of the blocks `(batch, blocks * places)`, one behind the other."""
        keep, blocks = block_places(batch, self._grid, generator, blocks=self._blocks)
        return keep, blocks.flatten(1)

    @torch.no_grad()
    def target(self, teacher: EncoderModule, samples: Tensor, ask: Tensor) -> Tensor:
        """The teacher's tokens at these places, of each level without mean and scale: `(batch, asked, outputs)`."""
        stages = encode_stages(teacher, samples)
        levels = [at_places(stages[level][:, self._prefix :], ask).float() for level in self.levels]
        return torch.cat([functional.layer_norm(level, level.shape[-1:]) for level in levels], 2)

    def forward(
        self, encoder: EncoderModule, samples: Tensor, keep: Tensor, ask: Tensor, target: Tensor
    ) -> dict[str, Tensor]:
        """`tokens` and `pooled`: smooth L1 to the target, from all tokens of the context and from its pool."""
        tokens = encode(encoder, samples, keep)
        terms = {"tokens": functional.smooth_l1_loss(self._predict(tokens, keep, ask), target)}
        if self.front is not None:
            pooled = self.front(encoder.pool(tokens)).unsqueeze(1)  # (batch, 1, dim), without a place
            guessed = self._predict(pooled, keep[:, :0], ask)
            terms["pooled"] = self._weight * functional.smooth_l1_loss(guessed, target)
        return terms

    def _predict(self, tokens: Tensor, keep: Tensor, ask: Tensor) -> Tensor:
        """Each block on its own, as in I-JEPA's paper: float32 `(batch, asked, outputs)`."""
        tokens, keep = (each.repeat_interleave(self._blocks, 0) for each in (tokens, keep))
        predicted: Tensor = self.predictor(tokens, keep, ask.reshape(len(tokens), -1))
        return predicted.reshape(*ask.shape, -1).float()
