"""How far a student is from its teacher: one function per objective."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """1 - cosine between vectors that belong together, their mean.

    Args:
        student, teacher: `(..., dim)` of one shape: vectors of samples, or of the places of maps.
    """
    return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()


def relations(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence between the similarities of each sample to all others, as student and teacher see them.

    CompRess (Koohpayegani et al. 2020, arXiv:2010.14713, eq. 1 and 2, each in its own space) with the batch in place of its
    memory; so no projector is needed.

    Args:
        student: `(batch, dim)`.
        teacher: `(batch, teacher dim)`.
        temperature: Cosines are divided by it before the softmax over the batch.
    """
    a, b = functional.normalize(student, dim=1), functional.normalize(teacher, dim=1)
    itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
    logits, targets = ((unit @ unit.T / temperature).masked_fill(itself, -1e4) for unit in (a, b))
    return functional.kl_div(logits.log_softmax(1), targets.log_softmax(1), log_target=True, reduction="batchmean")


def similarity(
    student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """Cross entropy of a sample's similarities to a queue: SEED (Fang et al. 2021, arXiv:2101.04731, eq. 3 to 5).

    The teacher's own vector of the sample stands behind the queue, as in the paper: it is the nearest one.

    Args:
        student: `(batch, teacher dim)`, projected.
        teacher: Unit vectors `(batch, teacher dim)`.
        queue: Unit vectors of the teacher `(size, teacher dim)`.
        temperature, teacher_temperature: What the cosines of each are divided by before the softmax.
    """
    unit = functional.normalize(student, dim=1)
    logits, targets = (
        torch.cat([rows @ queue.to(rows).T, (rows * teacher).sum(1, keepdim=True)], 1) / divisor
        for rows, divisor in ((unit, temperature), (teacher, teacher_temperature))
    )
    return functional.cross_entropy(logits, targets.softmax(1))
