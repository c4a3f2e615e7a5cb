"""What teachers say of every sample of a source, asked once and kept on disk.

A file `TEACHER-DATA.safetensors` per teacher and source, named by the beginnings of their digests. Read from it are only the
rows that a step asks for: the file is mapped into memory.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgessl.encoders import EncoderModule
from edgessl.errors import CheckpointError
from edgessl.files import write_atomic
from edgessl.sources import Source

_BATCH = 256


def kept_vectors(folder: Path, teacher: EncoderModule, weights_sha256: str, source: Source) -> Tensor:
    """Unit vectors `(samples, dim)` of a teacher, float32, in the order of the source; made where they are not there yet.

    Rows of samples that cannot be read are not numbers.

    Args:
        folder: Where the files are kept; made where it is missing.
        teacher: Asked on the device that it is on, without views.
        weights_sha256: Of its checkpoint.
        source: Samples of the shape that it takes.

    Raises:
        CheckpointError: The file is not what was written.
    """
    made = {
        "name": teacher.name,
        "options": teacher.options,
        "input": teacher.input.to_json(),
        "weights": weights_sha256,
    }
    wanted = {
        "teacher": hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest(),
        "data": source.digest(),
    }
    path = folder / f"{wanted['teacher'][:16]}-{wanted['data'][:16]}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        vectors = _asked(teacher, source)
        write_atomic(path, save({"vectors": vectors}, metadata=wanted | {"sha256": _digest(vectors)}))
    return _opened(path, wanted, (len(source), teacher.dim))


def _opened(path: Path, wanted: dict[str, str], shape: tuple[int, int]) -> Tensor:
    try:
        with safe_open(path, framework="pt") as file:
            vectors, told = file.get_tensor("vectors"), dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Delete it; the teacher is asked again") from error
    if told != wanted | {"sha256": _digest(vectors)} or (tuple(vectors.shape), vectors.dtype) != (shape, torch.float32):
        raise CheckpointError(f"{path} is not what was written. Delete it; the teacher is asked again")
    return torch.as_tensor(vectors)


@torch.no_grad()
def _asked(teacher: EncoderModule, source: Source) -> Tensor:
    teacher.eval()
    vectors = torch.full((len(source), teacher.dim), torch.nan)
    for batch in source.batches(_BATCH):
        vectors[torch.from_numpy(batch.indices)] = teacher(torch.from_numpy(batch.frames).to(teacher.mean.device)).cpu()
    return vectors


def _digest(vectors: Tensor) -> str:
    return hashlib.sha256(vectors.numpy().data).hexdigest()
