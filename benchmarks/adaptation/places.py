"""Figure 5: place recognition on Nordland, from summer to winter, against the summer map as it was made.

    EDGESSL_DATA=/path/to/data python benchmarks/adaptation/places.py --folder /tmp/adapt

An encoder per seed learns from the summer frames alone (VICReg, positions kept), and is exported in int8. VICReg keeps the
dimensions of its embedding apart, which leaves recentring something to bring back; SimCLR left winter hardly more than
chance. Its embeddings of the summer frames are the map, which is never made again. The winter drive passes in order, in
batches of 8; a frame's most similar one of the map must be at most one frame away (recall@1). Frames that the data set
calls dark, in tunnels, are in the winter drive as it comes, but neither in the map nor scored. What counts is the first
pass, online; a second one over the same drive is told beside it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from contenders import learner, levels, plain
from corruptions import Frames
from harness import Report, Vectors, chosen, options, story, through
from numpy.typing import NDArray

from edgessl.blocks.image_views import ImageViewConfig
from edgessl.checkpoint import read_checkpoint
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.metrics import places_found
from edgessl.pretrain import pretrain
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from edgessl.trainer import Run

BATCH, TOLERANCE, RISE, PASSES = 8, 1, 0.20, 2
STEPS = 800
#: a camera that is bolted to a train hardly sways
VIEWS = ImageViewConfig(
    area=(0.9, 1.05),
    aspect=(0.95, 1.05),
    turn_deg=1.0,
    flip=0.0,
    light=0.3,
    contrast=(0.8, 1.2),
    gain=(0.8, 1.2),
    blur=0.0,
    noise=0.03,
)


def nordland(data: Path) -> tuple[Frames, Frames, NDArray[np.bool_]]:
    """Summer and winter, uint8 `(n, 32, 64, 3)` aligned by index, and which frames are lit `(n,)`."""
    with np.load(data / "nordland" / "nordland_64x32.npz", allow_pickle=False) as file:
        summer, winter, dark = file["summer"], file["winter"], file["dark"]
    return rgb(summer), rgb(winter), ~dark


def rgb(grey: NDArray[np.uint8]) -> Frames:
    """`(n, height, width)` -> three equal channels, last."""
    return np.ascontiguousarray(np.repeat(grey[..., None], 3, -1))


def place_bundle(summer: Frames, folder: Path, seed: int, steps: int) -> Path:
    """A bundle whose encoder learned from summer frames; made where it is not there yet."""
    path = folder / f"nordland{seed}.edgessl"
    if path.exists():
        return path
    names = [f"summer/{index:04d}" for index in range(len(summer))]
    source = ArraySource("nordland summer", summer, image_spec(*summer.shape[1:3]), names)
    checkpoint = folder / f"nordland{seed}"
    if not checkpoint.exists():
        pretrain(
            source,
            recipe="vicreg",
            encoder="conv_small",
            encoder_options={"pool": "flat"},
            recipe_options={"views": VIEWS},
            output=checkpoint,
            run=Run(steps=steps, batch=128, lr=2e-3, seed=seed, log_every=50),
        )
    encoder, facts = read_checkpoint(checkpoint)
    config = ExportConfig(targets=("onnx", "openvino"), precision="int8")
    export(encoder, facts, source, path, config=config, say=lambda step: print(f"  {step}", flush=True))
    return path


def main() -> None:
    parser = options(__doc__, count=0)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training, where there is no encoder yet")
    given = parser.parse_args()
    report = Report("places", __doc__ or "", given)
    summer, winter, lit = nordland(Path(given.data))
    where = np.arange(len(summer), dtype=np.float64)
    if given.count:
        summer, winter, lit, where = (each[: given.count] for each in (summer, winter, lit, where))

    def recall(queries: Vectors, bank: Vectors) -> float:
        found = places_found(queries[lit], where[lit], bank, where[lit], tolerance=TOLERANCE)
        return float(found.mean())

    for seed in given.seeds:
        bundle = place_bundle(summer[lit], given.folder, seed, given.steps)
        for engine in given.engine:
            with plain(bundle, engine) as observer:
                bank = through(observer, summer[lit], 250)
                none = recall(through(observer, winter, BATCH), bank)
            report.add(seed=seed, engine=engine, level="none", recall=none)
            for level in (each.name for each in chosen(levels(engine), given.only)):
                with learner(bundle, engine, level, seed) as observer:
                    for index in range(1, PASSES + 1):
                        got = recall(through(observer, winter, BATCH), bank)
                        row = {"seed": seed, "engine": engine, "level": level, "drive": index, "recall": got}
                        report.add(**row, rise=got / none - 1 if none else float("nan"), **story(observer))
    for level in (each.name for each in chosen(levels(""), given.only)):
        got = report.mean("recall", level=level, drive=1) / report.mean("recall", level="none") - 1
        report.claim(f"{level}: recall@1 of the first winter drive, relative rise over none", got, least=RISE)
    report.write()


if __name__ == "__main__":
    main()
