"""`edgessl evaluate`: how good embeddings are, beside the untrained encoder and raw samples."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgessl.cli.options import Data, Json, Overwrite, Seed, Series, Strict, parsed_series
from edgessl.cli.output import result, table, talk, talk_skipped
from edgessl.errors import InputError

if TYPE_CHECKING:
    from edgessl.signals import InputSpec

EXAMPLE = "edgessl evaluate runs/a labelled/ --full -o report/"


def evaluate(
    subjects: Annotated[
        list[Path],
        typer.Argument(metavar="CHECKPOINT_OR_BUNDLE...", help="The folders to judge: one, or a run's several seeds."),
    ],
    data: Data,
    test: Annotated[
        str, typer.Option(help="Samples to classify; default: the file's x_test, else a fifth of DATA is held out.")
    ] = "",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to make: evaluation.json, maps.png and curves.png.")
    ] = None,
    linear: Annotated[bool, typer.Option(help="Fit a linear probe too.")] = True,
    few_labels: Annotated[bool, typer.Option("--few-labels", help="Probe with 1, 5 and 10 labels per class.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Probe every stage: which one to cut at.")] = False,
    corruptions: Annotated[bool, typer.Option("--corruptions", help="Classify corrupted samples too.")] = False,
    full: Annotated[bool, typer.Option("--full", help="--few-labels, --layers and --corruptions.")] = False,
    by_group: Annotated[bool, typer.Option(help="Hold out whole subjects or recordings, where DATA says them.")] = True,
    seeds: Annotated[int, typer.Option(help="Repeats, for mean and spread of all that is random.")] = 1,
    series: Series = [],  # noqa: B006, typer reads it and nobody changes it
    seed: Seed = 0,
    strict: Strict = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Measure encoders beside themselves untrained and raw samples.

    Gives 20-NN accuracy, a linear probe, RankMe, LiDAR, alignment and uniformity on DATA. Labels are the
    sub-folders of an image folder, .cls files in shards, y_train and y_test, or a column of logs: --series
    label=NAME. Without labels there is no accuracy.
    """
    from edgessl.evaluate import evaluate as measure
    from edgessl.files import refuse_existing
    from edgessl.sources import has_test, open_source

    if output is not None:
        refuse_existing(output, overwrite=overwrite)
    opened = partial(open_source, strict=strict, spec=_input_of(subjects), windowing=parsed_series(series))
    queries = None
    if test:
        queries = opened(test, split="test" if has_test(test) else "train")
    elif has_test(data):
        queries = opened(data, split="test")
    samples = opened(data)
    found = measure(
        subjects,
        samples,
        queries,
        linear=linear,
        few_labels=few_labels or full,
        layers=layers or full,
        corruptions=corruptions or full,
        maps=output is not None,
        by_group=by_group,
        seeds=seeds,
        seed=seed,
    )
    for source in (samples, queries):
        talk_skipped((skipped.name, skipped.reason) for skipped in (source.skipped if source else ()))
    for note in found.notes:
        talk(f"note: {note}")
    if output is not None:
        from edgessl.evaluation.report import write_report

        write_report(output, found, overwrite=overwrite)
        talk(f"wrote {output}")
    text = "\n\n".join(f"{title}\n\n{table(rows)}" for title, rows in found.tables())
    result(found.to_json(), text, as_json=as_json)


def _input_of(subjects: list[Path]) -> InputSpec:
    """What all the subjects take."""
    specs = {subject: _input_of_one(subject) for subject in subjects}
    first = specs[subjects[0]]
    for subject, spec in specs.items():
        if (spec.kind, spec.shape) != (first.kind, first.shape):
            raise InputError(
                f"{subject} takes {spec.kind} samples {spec.shape}, {subjects[0]} takes {first.kind} samples "
                f"{first.shape}; evaluate them one by one"
            )
    return first


def _input_of_one(subject: Path) -> InputSpec:
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
