"""Is the resize inside the graph the resize that the encoder was trained with, and what does it cost?

200 crops of real photographs (scikit-image's and scikit-learn's; a donkeycar folder with --drive or EDGESSL_DATA), of 12
sizes and shapes, are brought to 64x64 in the graph, by onnxruntime and by OpenVINO, and by Pillow, which rounds to whole
levels twice. Compared are the levels, and the embeddings of a conv_small that SimCLR trained for 200 steps on the demo's
day. Times are those of 480x640 and 720x1280 to 224x224, one frame, in turns with Pillow, as ratios; ONNX's own
Resize(antialias=1) stands beside it, with its error against Pillow, since not every engine antialiases.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import PIL
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import edgessl
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.encoders.camera import Resize, with_camera
from edgessl.export.graph import write_graph
from edgessl.recipes import build_recipe
from edgessl.signals import image_spec
from edgessl.sources.drive import drive
from edgessl.sources.images import read_image, resized

PHOTOGRAPHS, SIDE, STEPS, ROUNDS = 200, 64, 200, 30
SIZES = (
    (426, 640),
    (240, 320),
    (360, 640),
    (120, 160),
    (333, 251),
    (201, 407),
    (64, 64),
    (97, 64),
    (48, 40),
    (150, 150),
)
SIZES += ((299, 130), (72, 128))
RESULT = Path(__file__).parent / "results" / "resize_parity.json"

Run = Callable[[np.ndarray], np.ndarray]


def photographs(drive_folder: Path | None) -> list[np.ndarray]:
    """Crops of every size in `SIZES`, in turn."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    whole = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket(), *load_sample_images().images]
    rng = np.random.default_rng(0)
    if drive_folder is not None:
        paths = sorted(drive_folder.rglob("*.jpg"))
        whole += [read_image(paths[place], None) for place in rng.choice(len(paths), 20, replace=False)]
    crops: list[np.ndarray] = []
    while len(crops) < PHOTOGRAPHS:
        height, width = SIZES[len(crops) % len(SIZES)]
        fits = [photo for photo in whole if photo.shape[0] >= height and photo.shape[1] >= width]
        photo = fits[rng.integers(len(fits))]
        top, left = (int(rng.integers(photo.shape[i] - side + 1)) for i, side in enumerate((height, width)))
        crops.append(np.ascontiguousarray(photo[top : top + height, left : left + width]))
    return crops


def trained() -> EncoderModule:
    """conv_small after 200 steps of SimCLR on the demo's day."""
    torch.manual_seed(0)
    encoder = build_encoder("conv_small", image_spec(SIDE, SIDE)).train()
    recipe = build_recipe("simclr", encoder).train()
    optimizer = torch.optim.AdamW(recipe.parameters(), lr=recipe.defaults.lr)
    day = torch.from_numpy(drive("day", 600, size=SIDE)[0])
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        rows = torch.randperm(len(day), generator=generator)[:64]
        loss = torch.stack(list(recipe(recipe.views(encoder.prepare(day[rows]), generator)).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        recipe.after_step(step, STEPS)
    return encoder.eval()


def opened(path: Path) -> dict[str, Run]:
    """The graph in every engine that is installed, two threads each."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    runs: dict[str, Run] = {"onnxruntime": lambda frames: session.run(None, {"frames": frames})[0]}
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import openvino
    except ModuleNotFoundError:
        return runs
    settings = {"INFERENCE_NUM_THREADS": 2, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

    def run(frames: np.ndarray) -> np.ndarray:
        request.infer({0: frames}, share_inputs=True)
        return np.array(request.get_output_tensor(0).data)

    return runs | {"openvino": run}


def written(module: torch.nn.Module, height: int, width: int, folder: Path, output: str) -> dict[str, Run]:
    """`module` as a graph, in every engine."""
    path = folder / f"{output}_{height}x{width}.onnx"
    example = (torch.zeros(2, height, width, 3, dtype=torch.uint8),)
    write_graph(module.eval(), example, path, inputs=["frames"], outputs=[output], dynamic=["frames"])
    return opened(path)


def parity(crops: list[np.ndarray], encoder: EncoderModule, folder: Path) -> dict[str, Any]:
    """Per engine: errors in grey levels, and the smallest cosine."""
    off: dict[str, list[np.ndarray]] = {}
    cosines: dict[str, list[float]] = {}
    for height, width in SIZES:
        levels = written(Resize((height, width), (SIDE, SIDE)), height, width, folder, "levels")
        vectors = written(with_camera(encoder, height, width), height, width, folder, "vectors")
        for frame in (crop for crop in crops if crop.shape[:2] == (height, width)):
            reference = resized(frame, (SIDE, SIDE))
            with torch.no_grad():
                expected = encoder(torch.from_numpy(np.array(reference)[None])).numpy()[0]
            for engine, run in levels.items():
                difference = np.abs(run(frame[None])[0].transpose(1, 2, 0) - reference)
                off.setdefault(engine, []).append(difference)
                cosines.setdefault(engine, []).append(float(vectors[engine](frame[None])[0] @ expected))
    return {
        engine: {
            "photographs": len(each),
            "mean_levels": float(np.mean([difference.mean() for difference in each])),
            "worst_photograph_mean_levels": float(max(difference.mean() for difference in each)),
            "largest_levels": float(max(difference.max() for difference in each)),
            "smallest_cosine": min(cosines[engine]),
        }
        for engine, each in off.items()
    }


def onnx_resize(height: int, width: int, side: int, path: Path) -> dict[str, Run]:
    """ONNX's own antialiased resize, for comparison."""
    nodes = [
        helper.make_node("Transpose", ["frames"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["first"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Resize", ["float", "", "", "size"], ["levels"], antialias=1, mode="linear", axes=[2, 3]),
    ]
    graph = helper.make_graph(
        nodes,
        "resize",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["batch", height, width, 3])],
        [helper.make_tensor_value_info("levels", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array([side, side], np.int64), "size")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return opened(path)


def timed(photo: np.ndarray, height: int, width: int, folder: Path) -> list[dict[str, Any]]:
    """Each form's time over Pillow's, in turns, and its error against Pillow."""
    frame = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC))[None]
    forms = {
        "bands of matrix products": written(Resize((height, width), (224, 224)), height, width, folder, "levels"),
        "Resize(antialias=1)": onnx_resize(height, width, 224, folder / "resize.onnx"),
    }
    reference = resized(frame[0], (224, 224)).transpose(2, 0, 1)
    rows = []
    for form, runs in forms.items():
        for engine, run in runs.items():
            ratios, times = [], []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                resized(frame[0], (224, 224))
                between = time.perf_counter()
                levels = run(frame)[0]
                times.append(time.perf_counter() - between)
                ratios.append(times[-1] / (between - began))
            rows.append(
                {
                    "camera": [height, width],
                    "form": form,
                    "engine": engine,
                    "time_over_pillow_median": float(np.median(ratios)),
                    "time_over_pillow_least": float(np.min(ratios)),
                    "least_ms": 1e3 * min(times),
                    "mean_levels": float(np.abs(levels - reference).mean()),
                    "largest_levels": float(np.abs(levels - reference).max()),
                }
            )
            print(rows[-1])
    return rows


def main() -> None:
    """Compare, time, print, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    told = os.environ.get("EDGESSL_DATA")
    found = Path(told) / "donkeycar" if told else None
    parser.add_argument("--drive", type=Path, default=found, help="A folder of a robot's frames, .jpg.")
    parser.add_argument("--result", type=Path, default=RESULT)
    arguments = parser.parse_args()
    folder = arguments.drive if arguments.drive is not None and arguments.drive.is_dir() else None
    crops = photographs(folder)
    with tempfile.TemporaryDirectory() as name:
        engines = parity(crops, trained(), Path(name))
        print(engines)
        times = [row for size in ((480, 640), (720, 1280)) for row in timed(crops[0], *size, Path(name))]
    from importlib.metadata import version

    result = {
        "claim": "the graph's resize is Pillow's: under 0.5 grey levels on average, cosine of embeddings at least 0.999",
        "holds": all(row["mean_levels"] < 0.5 and row["smallest_cosine"] >= 0.999 for row in engines.values()),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": {"system": platform.platform(), "threads": 2},
        "versions": {"edgessl": edgessl.__version__, "torch": torch.__version__, "pillow": PIL.__version__}
        | {engine: version(engine) for engine in engines},
        "robot_frames": folder is not None,
        "engines": engines,
        "times": times,
    }
    arguments.result.write_text(json.dumps(result, indent=2) + "\n")
    print("holds:", result["holds"], "->", arguments.result)


if __name__ == "__main__":
    main()
