"""`edgessl evaluate`: how good embeddings are, beside the untrained encoder and raw pixels."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgessl.cli.options import Data, Json, Seed, Strict
from edgessl.cli.output import result, table, talk, talk_skipped
from edgessl.errors import InputError

if TYPE_CHECKING:
    from edgessl.signals import InputSpec

EXAMPLE = "edgessl evaluate runs/a labelled/"


def evaluate(
    subject: Annotated[Path, typer.Argument(metavar="CHECKPOINT_OR_BUNDLE", help="The folder to judge.")],
    data: Data,
    test: Annotated[
        str, typer.Option(help="Samples to classify; default: the file's x_test, else a fifth of DATA is held out.")
    ] = "",
    linear: Annotated[bool, typer.Option(help="Fit a linear probe too.")] = True,
    seed: Seed = 0,
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Measure an encoder beside itself untrained and raw pixels.

    Gives 20-NN accuracy, a linear probe and RankMe on DATA. Labels are the sub-folders of an image
    folder, or y_train and y_test; without them only RankMe is given.
    """
    from edgessl.evaluate import evaluate as measure
    from edgessl.sources import open_source

    spec = _input_of(subject)
    queries = None
    if test:
        queries = open_source(test, split="test" if _has_test(test) else "train", strict=strict, spec=spec)
    elif _has_test(data):
        queries = open_source(data, split="test", strict=strict, spec=spec)
    samples = open_source(data, strict=strict, spec=spec)
    found = measure([subject], samples, queries, linear=linear, seed=seed)
    for source in (samples, queries):
        talk_skipped((skipped.name, skipped.reason) for skipped in (source.skipped if source else ()))
    rows = [row.to_json() for row in found.rows]
    for note in found.notes:
        talk(f"note: {note}")
    result(found.to_json(), f"{found.queries} samples against {found.bank}\n\n{table(rows)}", as_json=as_json)


def _input_of(subject: Path) -> InputSpec:
    from edgessl.bundle import MANIFEST, open_bundle
    from edgessl.checkpoint import FACTS, read_facts
    from edgessl.signals import InputSpec

    if (subject / MANIFEST).is_file():
        return open_bundle(subject, verify=False).input
    if not (subject / FACTS).is_file():
        raise InputError(
            f"{subject} is neither a checkpoint nor a bundle; give a folder that `edgessl pretrain`, `edgessl distill` "
            "or `edgessl export` wrote"
        )
    return InputSpec.from_json(read_facts(subject)["input"])


def _has_test(data: str) -> bool:
    path = Path(data).expanduser()
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return "x_test.npy" in file.namelist()
