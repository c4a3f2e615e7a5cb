"""A space is named for the function that makes it, and a manifest says where everything comes from."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgessl.encoders import build_encoder
from edgessl.encoders.camera import with_camera
from edgessl.export.config import ExportConfig
from edgessl.export.facts import manifest_of
from edgessl.export.samples import Samples
from edgessl.export.split import Split, Tail, Trunk
from edgessl.runtimes.verify import Golden
from edgessl.signals import image_spec
from edgessl.sources.arrays import ArraySource
from tests.export.hand_drafts import chain_net, graphs_of

SPEC = image_spec(32, 40)
FRAMES = np.random.default_rng(0).integers(0, 256, (5, 32, 40, 3), dtype=np.uint8)


def said(
    facts: dict[str, Any] | None = None,
    *,
    model: onnx.ModelProto | None = None,
    license: str = "",
    camera: bool = False,
) -> dict[str, Any]:
    torch.manual_seed(0)
    encoder = build_encoder("conv_small", SPEC, widths=(6, 10, 12), dim=7).eval()
    if camera:
        encoder = with_camera(encoder, 48, 64)
    split = Split(encoder=encoder, trunk=Trunk(encoder), tail=Tail(encoder), latent=(10, 8, 10))
    names = [f"{index}.png" for index in range(5)]
    golden = Golden(samples=FRAMES[:2], vectors=np.zeros((2, 7), np.float32), names=names[:2])
    return manifest_of(
        encoder,
        facts or {},
        ArraySource("laps", FRAMES, SPEC, names),
        Samples(golden=golden, frames=FRAMES[2:], names=names[2:]),
        split,
        graphs_of(model or chain_net(2)),
        Path("out/robot.edgessl"),
        ExportConfig(license=license),
    )


def test_a_space_is_named_for_its_function() -> None:
    """Other weights, another name; the same again, the same."""
    model = chain_net(2)
    name = said(model=model)["space_id"]
    digest = hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()
    assert name == f"conv_small-7-{digest[:12]}" == said(model=chain_net(2))["space_id"]
    assert said(model=chain_net(2, seed=1))["space_id"] != name


@pytest.mark.parametrize(
    ("typed", "known", "result"),
    [("MIT", "Apache-2.0", "MIT"), ("", "Apache-2.0", "Apache-2.0"), ("", None, "unknown"), ("", "", "unknown")],
)
def test_a_license_that_is_typed_counts_then_the_models_own(typed: str, known: str | None, result: str) -> None:
    assert said({"license": known}, license=typed)["license"] == result


def test_the_split_says_what_the_device_needs() -> None:
    split = said()["split"]
    assert split["latent"] == [10, 8, 10]
    assert all(set(port) == {"stage", "channels", "products"} for port in split["ports"])
    assert [port["channels"] for port in split["ports"]] == [(6, 10, 12)[port["stage"]] for port in split["ports"]]
    assert split["ports"]


def test_samples_are_named_and_digested() -> None:
    manifest = said()
    assert manifest["golden"] == {"names": ["0.png", "1.png"]}
    assert manifest["provenance"]["calibration"] == {
        "data": "laps",
        "frames": 3,
        "names_sha256": hashlib.sha256(b"2.png\n3.png\n4.png").hexdigest(),
        "samples_sha256": hashlib.sha256(FRAMES[2:].tobytes()).hexdigest(),
        "skipped": 0,
    }


def test_preprocessing_has_what_the_graph_does_beside_what_was_stated() -> None:
    plain, camera = said({"preprocessing": {"crop": 0.9}})["preprocessing"], said(camera=True)["preprocessing"]
    assert plain["crop"] == 0.9
    assert plain["resize"] is None
    assert camera["resize"]
    assert len(plain["mean"]) == len(plain["std"]) == 3


def test_it_is_plain_json_and_names_parent_and_checkpoint() -> None:
    manifest = said({"parent": "a" * 64, "made_by": "distill"})
    json.dumps(manifest, allow_nan=False)
    assert manifest["provenance"]["parent"] == "a" * 64
    assert manifest["provenance"]["checkpoint"]["made_by"] == "distill"
    assert (manifest["name"], manifest["dim"], manifest["onnx"]) == ("robot", 7, {"opset": 20, "ir_version": 10})
    assert "out/" not in json.dumps(manifest)


def test_no_folder_of_the_exporting_machine_is_in_it() -> None:
    facts = {
        "source": "/data/her/runs/a",
        "parent": {"path": "../b", "data": [{"name": "~/frames"}]},
        "recipe": "simclr",
        "hub": "timm/resnet18.a1_in1k",
    }
    provenance = said(facts)["provenance"]
    assert provenance["checkpoint"]["source"] == "a"
    assert provenance["parent"] == provenance["checkpoint"]["parent"] == {"path": "b", "data": [{"name": "frames"}]}
    assert (provenance["checkpoint"]["recipe"], provenance["checkpoint"]["hub"]) == ("simclr", "timm/resnet18.a1_in1k")
