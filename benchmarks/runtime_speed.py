"""How fast edgessl's runtime is, beside PyTorch eager and beside fastembed's, on the same encoder and threads.

    pip install --target /path/to/fastembed fastembed
    EDGESSL_DATA=/path/to/data python benchmarks/runtime_speed.py --fastembed /path/to/fastembed

ViT-small and MobileNetV3-small of timm at 224 pixels, and our small CNN at 64, exported with `--precision auto` from real frames.
One frame at a time, from the camera's uint8 array to the unit vector, through the public call: `Encoder.embed`, the module under
`inference_mode`, `OnnxImageEmbedding.embed`. fastembed runs the same weights in a float ONNX file with its own preprocessing, in
this process and with this environment's onnxruntime; its settings are its defaults, except for the threads. The weights are
untrained; times do not depend on them. Contenders run in turns, but fastembed apart from eager: its workers spin.

Claims: the fastest engine in int8 takes ViT-small at least 4.5 times as fast as eager, and the fastest engine a small CNN at
least 3 times; edgessl is at least as fast as fastembed on every model, as it chooses and in fp32 on the same engine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgessl.bundle import open_bundle
from edgessl.encoders import build_encoder
from edgessl.encoders.base import EncoderModule
from edgessl.export.bundle import export
from edgessl.export.config import ExportConfig
from edgessl.export.pays import machine
from edgessl.load import load_encoder
from edgessl.metrics import cosines
from edgessl.runtimes.encoder import Encoder
from edgessl.runtimes.engines import EngineSettings
from edgessl.runtimes.timing import Comparison, compare, interleaved
from edgessl.signals import image_spec
from edgessl.sources import open_source

MODELS = {"vit_small_patch16_224": 4.5, "mobilenetv3_small_100": 3.0, "conv_small": 3.0}  # over eager, at least
THREADS, ROUNDS = 2, 31
ENGINES = ("onnxruntime", "openvino")
NOISE = 1.03  # what two runs of one contender may differ by
RESULT = Path(__file__).parent / "results" / "runtime_speed.json"


class Core(torch.nn.Module):
    """The encoder behind its preprocessing: what other runtimes are given, who have their own."""

    def __init__(self, encoder: EncoderModule) -> None:
        super().__init__()
        self.stages, self.pool = encoder.stages, encoder.pool

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        for stage in self.stages:
            pixels = stage(pixels)
        return self.pool(pixels)


def loaded(name: str) -> tuple[EncoderModule, dict[str, Any]]:
    torch.manual_seed(0)
    if name == "conv_small":
        return build_encoder(name, image_spec(64, 64)).eval(), {"made_by": "runtime_speed"}
    found = load_encoder(f"timm:{name}")
    return found.encoder, dict(found.facts)


def fastembed(encoder: EncoderModule, folder: Path, site: Path) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """fastembed on the encoder's weights; it takes images of Pillow, one by one.

    The folder stands last on the path: what both need is this environment's.
    """
    sys.path.append(str(site))
    from fastembed.image.onnx_embedding import OnnxImageEmbedding

    folder.mkdir()
    example = torch.zeros(2, 3, *encoder.input.shape[:2])
    torch.onnx.export(
        Core(encoder).eval(),
        (example,),
        folder / "model.onnx",
        input_names=["pixels"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    config = {"do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
    config |= {"image_mean": encoder.mean.flatten().tolist(), "image_std": encoder.std.flatten().tolist()}
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    # The name is that of a model it knows; the files are ours.
    model = OnnxImageEmbedding("Qdrant/resnet50-onnx", threads=THREADS, specific_model_path=str(folder), cuda=False)
    return lambda frames: np.stack(list(model.embed([Image.fromarray(frame) for frame in frames])))


def rows_of(name: str, frames: Path, folder: Path, site: Path | None, budget_s: float) -> list[dict[str, Any]]:
    """A model exported, and every contender timed."""
    encoder, facts = loaded(name)
    path = folder / f"{name}.edgessl"
    source = open_source(str(frames), spec=encoder.input)
    export(encoder, facts, source, path, config=ExportConfig(targets=("onnx", "openvino")), say=print)
    bundle, settings = open_bundle(path), EngineSettings(threads=THREADS)
    frame = np.ascontiguousarray(source.read(range(1))[1])
    with ExitStack() as stack:
        runs: dict[str, Callable[[], object]] = {"eager": lambda: _eager(encoder, frame)}
        for engine in ENGINES:
            for precision in dict.fromkeys((*bundle.precisions("encoder", engine), "fp32")):
                opened = stack.enter_context(Encoder(bundle, engine=engine, precision=precision, settings=settings))
                runs[f"edgessl {engine} {precision}"] = lambda opened=opened: opened.embed(frame)
        ours = {key: run for key, run in runs.items() if key != "eager"}
        eager = interleaved(runs, rounds=ROUNDS, budget_s=budget_s)
        beside: dict[str, list[float]] = {}
        if site is not None:
            theirs = fastembed(encoder, folder / f"{name}.fastembed", site)
            samples = np.ascontiguousarray(source.read(range(8))[1])
            same = float(cosines(_eager(encoder, samples).numpy(), theirs(samples)).min())
            if same < 0.9999:
                raise RuntimeError(f"fastembed does not run the same encoder: cosine {same}")
            # Apart from eager: its workers spin after each run, on the cores that eager would need next.
            beside = interleaved(ours | {"fastembed": lambda: theirs(frame)}, rounds=ROUNDS, budget_s=budget_s)
    rows = [
        _row(name, key, row, f"times_as_fast_as_{baseline}")
        for times, baseline in ((eager, "eager"), (beside, "fastembed"))
        if times
        for key, row in compare(times, baseline=baseline).items()
    ]
    print(*rows, sep="\n", flush=True)
    return rows


def _row(model: str, contender: str, row: Comparison, against: str) -> dict[str, Any]:
    facts = {"model": model, "contender": contender, "median_ms": round(row.median_ms, 3), "rounds": row.rounds}
    return facts | {against: round(1 / row.ratio, 3)}


def _eager(encoder: EncoderModule, frames: NDArray[np.uint8]) -> torch.Tensor:
    with torch.inference_mode():
        return encoder(torch.from_numpy(frames))


def judged(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every claim beside what was measured."""
    over = {
        against: {
            (row["model"], row["contender"]): row[f"times_as_fast_as_{against}"]
            for row in rows
            if f"times_as_fast_as_{against}" in row
        }
        for against in ("eager", "fastembed")
    }
    claims = []
    for model, least in MODELS.items():
        ours = [key for name, key in over["eager"] if name == model and key.startswith("edgessl")]
        if not ours:
            continue
        counted = [key for key in ours if model != "vit_small_patch16_224" or key.endswith("int8")]
        got = max((over["eager"][model, key] for key in counted), default=0.0)
        claims.append({"claim": f"{model} over eager", "least": least, "got": got, "ok": got >= least})
        # The first is what auto takes: the cheapest precision in onnxruntime.
        for what, key in (("as auto takes it", ours[0]), ("in fp32", "edgessl onnxruntime fp32")):
            if (model, key) in over["fastembed"]:
                got, claim = over["fastembed"][model, key], f"{model} over fastembed, {what}"
                claims.append({"claim": claim, "least": round(1 / NOISE, 3), "got": got, "ok": got >= 1 / NOISE})
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told = os.environ.get("EDGESSL_DATA")
    parser.add_argument("--frames", type=Path, default=Path(told) / "donkeycar" / "frames" if told else None)
    parser.add_argument("--fastembed", type=Path, help="Folder that `pip install --target` put it into.")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seconds", type=float, default=120.0, help="Per model, at most.")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.frames is None:
        parser.error("give a folder of images with --frames, or set EDGESSL_DATA")
    torch.set_num_threads(THREADS)
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            row
            for name in given.only
            for row in rows_of(name, given.frames, Path(folder), given.fastembed, given.seconds)
        ]
    claims = judged(rows)
    names = ("edgessl", "torch", "timm", "onnxruntime", "openvino", "numpy", "pillow")
    versions = {name: version(name) for name in (*names, *(["fastembed"] if given.fastembed else []))}
    result = {
        "claims": claims,
        "holds": all(claim["ok"] for claim in claims),
        "fastembed": "beside" if given.fastembed else "not measured: give --fastembed",
        "date": date.today().isoformat(),
        "machine": {"cpu": machine(), "cores": os.cpu_count(), "system": platform.platform(), "threads": THREADS},
        "versions": versions,
        "rows": rows,
    }
    given.result.write_text(json.dumps(result, indent=1) + "\n")
    for each in claims:
        print(f"{'ok  ' if each['ok'] else 'MISS'} {each['claim']}: {each['got']} (at least {each['least']})")


if __name__ == "__main__":
    main()
