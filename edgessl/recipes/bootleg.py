"""Bootleg: I-JEPA whose targets are what the teacher says at several depths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.recipes.ijepa import IJEPA, IJEPAConfig


@dataclass(frozen=True, kw_only=True)
class BootlegConfig(IJEPAConfig):
    """Settings of Bootleg: those of I-JEPA, and how many depths are predicted.

    Attributes:
        levels: Blocks of the teacher whose outputs are targets, evenly spaced up to the last; ours, not verified.
    """

    levels: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.levels < 1:
            raise InputError(f"levels counts blocks of the teacher, 1 or more, not {self.levels}")


class Bootleg(IJEPA):
    """Self-distillation of hidden layers (Lowe et al. 2026, arXiv:2603.15553).

    From the paper: the student sees a part, the teacher, its slow average, the whole, and one predictor gives the
    teacher's hidden features of several blocks at the hidden places, one behind the other. Inferred, and so ours: which
    blocks, a layer norm of each, smooth L1, and I-JEPA's masks and momentum. The term on the pooled vector is ours too;
    see `ijepa`.
    """

    title = "bootleg"
    config = BootlegConfig

    def levels(self, encoder: EncoderModule) -> Sequence[int]:
        """Blocks of the teacher whose tokens are predicted, between embedding and last norm."""
        depth, count = len(encoder.stages) - 2, self.settings.levels
        return sorted({max(1, round(depth * (i + 1) / count)) for i in range(count)})
