"""`edgessl index`: places that are known, and which of them are nearest to a sample."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgessl.cli.options import BundlePath, EngineName, Json, Overwrite, Precision, Series, Split, Strict, parsed_series
from edgessl.cli.output import result, table, talk_about
from edgessl.errors import InputError
from edgessl.files import refuse_existing

if TYPE_CHECKING:
    from edgessl.sources import Source

BUILD = "edgessl index build vectors.npz -o places.index"
QUERY = "edgessl index query places.index robot.edgessl image.png -k 5"


def build(
    vectors: Annotated[
        Path, typer.Argument(metavar="VECTORS", help="An .npz or .parquet file of `edgessl embed` or `edgessl adapt`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="NAME.index, the folder to write.")],
    numbers: Annotated[
        str, typer.Option(help="How a number is kept: f32, f16 (half the size), or i8 (a quarter, and less exact).")
    ] = "f32",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make an index of the vectors in a file.

    The same comes of `edgessl embed ... -o NAME.index` at once. Quarantined vectors are left out.
    """
    refuse_existing(output, overwrite=overwrite)
    if output.suffix.lower() != ".index":
        raise InputError(f"{output} is no name of an index; give one that ends in .index, such as -o places.index")
    from edgessl.runtimes.sinks.index import Places, write_index
    from edgessl.runtimes.sinks.npz import NpzVectors
    from edgessl.runtimes.sinks.parquet import ParquetVectors
    from edgessl.runtimes.sinks.whole import write_whole

    readers: dict[str, Any] = {".npz": NpzVectors, ".parquet": ParquetVectors}
    if vectors.suffix.lower() not in readers:
        raise InputError(f"{vectors} is no file of vectors; give one that ends in {' or '.join(readers)}")
    held = readers[vectors.suffix.lower()](vectors)
    write_whole(output, lambda path, rows: write_index(path, rows, numbers), held)
    places = Places(output)
    facts = {"output": str(output), "count": places.count, "dim": places.space.dim, "space_id": places.space.space_id}
    text = f"{places.count} vectors of {places.space.dim} in space {places.space.space_id} -> {output}"
    result(facts | {"numbers": numbers}, text, as_json=as_json)


def query(
    index: Annotated[Path, typer.Argument(metavar="INDEX", help="Folder NAME.index.")],
    bundle: BundlePath,
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="An image file, or what `edgessl embed` takes.")],
    nearest: Annotated[int, typer.Option("--nearest", "-k", min=1, help="How many, at most.")] = 5,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    batch: Annotated[int, typer.Option(help="Samples per run.")] = 32,
    split: Split = "train",
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    strict: Strict = False,
    as_json: Json = False,
) -> None:
    """Name what in an index is nearest to each sample, with the cosine.

    Small indexes are searched exactly; in large ones one of the nearest may be missed.
    """
    from edgessl.runtimes.encoder import open_encoder
    from edgessl.runtimes.sinks.index import Places
    from edgessl.runtimes.vectors import quarantining, vectors_of
    from edgessl.sources import open_source
    from edgessl.sources.arrays import ArraySource
    from edgessl.sources.images import SUFFIXES, one_image

    places = Places(index)
    with open_encoder(bundle, engine=engine, precision=precision) as encoder:
        places.refuse_space(encoder.space_id)
        samples: Source
        if encoder.input.kind == "image" and Path(source).suffix.lower() in SUFFIXES:
            frame = one_image(Path(source), (encoder.input.shape[0], encoder.input.shape[1]))
            samples = ArraySource(source, frame[None], encoder.input, [source])
        else:
            samples = open_source(
                source,
                split=split,
                strict=strict,
                windowing=parsed_series(series),
                spec=encoder.input,
                labelled=False,
            )
        found = vectors_of(samples, quarantining(encoder), batch=batch, strict=strict)
        near = places.nearest(found.vectors, nearest, encoder.space_id)
    talk_about(found)
    facts = [
        {"name": name, "nearest": [{"name": one.name, "cosine": one.cosine} for one in row]}
        for name, row in zip(found.names, near, strict=True)
    ]
    lines = [
        {"sample": name, "nearest": one.name, "cosine": one.cosine}
        for name, row in zip(found.names, near, strict=True)
        for one in row
    ]
    result(facts, table(lines), as_json=as_json)
