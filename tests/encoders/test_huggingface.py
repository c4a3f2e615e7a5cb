"""Hugging Face folders that transformers wrote here: the same vectors, no network, no code and no pickle from a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edgessl.encoders.huggingface import MODELS
from edgessl.errors import InputError, UnknownNameError
from edgessl.load import load_encoder
from edgessl.signals import image_spec
from edgessl.vision import vision_module

pytestmark = pytest.mark.slow

VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
#: model_type -> (configuration class, its arguments, what the model gives for (1, 3, height, width))
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "dinov2": ("Dinov2Config", {**VIT, "image_size": 28, "patch_size": 7}),
    "dinov2_with_registers": ("Dinov2WithRegistersConfig", {**VIT, "image_size": 28, "patch_size": 7}),
    "dinov3_vit": ("DINOv3ViTConfig", {**VIT, "image_size": 32, "patch_size": 8, "num_register_tokens": 2}),
    "dinov3_convnext": (
        "DINOv3ConvNextConfig",
        {"hidden_sizes": [8, 12, 16, 20], "depths": [1, 1, 2, 1], "image_size": 32},
    ),
    "vit": ("ViTConfig", {**VIT, "image_size": 32, "patch_size": 8}),
    "siglip_vision_model": ("SiglipVisionConfig", {**VIT, "image_size": 32, "patch_size": 8}),
}


@pytest.fixture(scope="module")
def transformers() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        pytest.importorskip("transformers", reason="pip install 'edgessl[hf]'")
        vision_module("torchvision")
        import transformers

        transformers.utils.logging.disable_progress_bar()
        yield transformers


@pytest.fixture(scope="module")
def folders(transformers: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hf")
    for kind, (config, arguments) in TINY.items():
        torch.manual_seed(0)
        model = getattr(transformers, MODELS[kind][0])(getattr(transformers, config)(**arguments)).eval()
        with torch.no_grad():  # a class token and layer scales of zero would hide mistakes
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
        model.save_pretrained(root / kind)
    return {kind: root / kind for kind in TINY}


def reference(transformers: Any, folder: Path, kind: str, images: torch.Tensor) -> torch.Tensor:
    model = getattr(transformers, MODELS[kind][0]).from_pretrained(folder, local_files_only=True).eval()
    arguments = {"interpolate_pos_encoding": True} if kind.startswith(("vit", "siglip")) else {}
    with torch.no_grad():
        told = model(images, **arguments)
    return told.last_hidden_state[:, 0] if kind == "vit" else told.pooler_output


def test_every_model_type_of_the_table_is_tested() -> None:
    assert set(TINY) | {"siglip"} == set(MODELS)


@pytest.mark.parametrize("kind", TINY)
@pytest.mark.parametrize("other_size", [False, True])
def test_a_folder_gives_what_transformers_gives(
    transformers: Any, folders: dict[str, Path], kind: str, other_size: bool
) -> None:
    size = (56, 28) if "dinov2" in kind else (64, 32)
    loaded = load_encoder(str(folders[kind]), input=image_spec(*size) if other_size else None)
    height, width = loaded.encoder.input.shape[:2]
    images = torch.rand(3, 3, height, width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = loaded.encoder.features(images)
    expected = reference(transformers, folders[kind], kind, loaded.encoder.normalize(images))
    torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    assert len(loaded.encoder.stages) == (4 if kind == "dinov3_convnext" else 5)
    assert loaded.encoder.cut < len(loaded.encoder.stages)
    assert len(loaded.encoder.ports) >= 3
    assert loaded.pooling == MODELS[kind][3]
    assert loaded.facts["model_type"] == kind
    assert len(loaded.facts["weights_sha256"]) == 64


def test_a_mean_leaves_class_and_registers_out(transformers: Any, folders: dict[str, Path]) -> None:
    folder = folders["dinov3_vit"]
    encoder = load_encoder(str(folder), pool="mean").encoder
    images = torch.rand(2, 3, 32, 32)
    model = transformers.DINOv3ViTModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        tokens = model(encoder.normalize(images)).last_hidden_state
        torch.testing.assert_close(encoder.features(images), tokens[:, 3:].mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "fit"),
    [
        ({"size": {"height": 16, "width": 16}}, "stretch"),
        ({"size": 16}, "stretch"),
        ({"size": {"shortest_edge": 16}}, "crop"),
        ({"size": {"height": 20, "width": 20}, "do_center_crop": True, "crop_size": 16}, "crop"),
    ],
)
def test_a_folder_says_whether_pictures_are_stretched(
    folders: dict[str, Path], tmp_path: Path, said: dict[str, Any], fit: str
) -> None:
    folder = copied(folders["vit"], tmp_path)
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    assert load_encoder(str(folder)).preprocessing["fit"] == fit


def test_statistics_size_crop_and_licence_come_from_the_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["vit"], tmp_path)
    said = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4], "resample": 2, "do_center_crop": True}
    said |= {"size": {"shortest_edge": 20}, "crop_size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")
    loaded = load_encoder(str(folder))
    assert loaded.encoder.input == image_spec(16, 16)
    assert loaded.preprocessing == {
        "mean": [0.5, 0.4, 0.3],
        "std": [0.2, 0.3, 0.4],
        "interpolation": "bilinear",
        "crop": 0.8,
        "fit": "crop",
        "size": [16, 16],
    }
    assert loaded.facts["license"] == "apache-2.0"


def test_what_does_not_fit_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["vit"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    with pytest.raises(InputError, match=r"names missing: layers\.3"):
        load_encoder(str(folder))
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "vit_mea"}))
    with pytest.raises(UnknownNameError, match="dinov2_with_registers"):
        load_encoder(str(folder))


def test_a_pickle_is_not_read_and_code_in_a_folder_does_not_run(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copied(folders["vit"], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('it ran')\n")
    assert load_encoder(str(folder)).encoder.dim == 32
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="never read"):
        load_encoder(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"neither encoder\.json"):
        load_encoder(str(folder))


def test_a_size_that_is_no_multiple_of_the_patch_names_the_nearest(folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"type --size 32x32"):
        load_encoder(str(folders["vit"]), input=image_spec(30, 32))


def copied(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target
