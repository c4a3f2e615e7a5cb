"""One line of text -> an encoder: every kind of source, its weights, its configuration, and what is refused."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edgessl.encoders.timm_models import create, encoder_from_timm, pooling_of, reparameterized
from edgessl.encoders.weights import load_weights, read_weights
from edgessl.errors import InputError, UnknownNameError
from edgessl.load import load_encoder
from edgessl.signals import InputSpec, image_spec
from edgessl.vision import vision_module

FACTORIES = """
import torch
from torch import nn
from edgessl.encoders import build_encoder
from edgessl.signals import InputSpec, image_spec

def sequence():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, 2), nn.ReLU(), nn.Conv2d(5, 7, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(7, 4)
    )
    model.input_size, model.mean, model.std, model.license = (16, 24), (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), "MIT"
    return model

class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 6)

    def forward(self, images):
        return self.layer(images.mean((2, 3)))

class Series(nn.Module):
    input = InputSpec(kind="series", shape=(4, 30), dtype="float32", units="g")

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv1d(4, 6, 5)

    def forward(self, windows):
        return self.layer(windows).mean(2)

def own(): return build_encoder("conv_small", image_spec(32, 32))
def number(): return 7
def broken(): raise KeyError("no such thing")
def maps(): return nn.Conv2d(3, 4, 3)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_factories.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    sys.modules.pop("my_factories", None)
    return "my_factories"


def small(classes: int = 0) -> Any:
    return vision_module("timm").create_model("mobilenetv3_small_050", num_classes=classes)


def test_a_checkpoint_is_read_with_its_facts(checkpoint: Path) -> None:
    loaded = load_encoder(str(checkpoint))
    assert loaded.encoder.input == image_spec(32, 40)
    assert (loaded.facts["made_by"], loaded.pooling) == ("test", "mean")
    assert loaded.preprocessing["size"] == [32, 40]
    with pytest.raises(InputError, match="trained so"):
        load_encoder(str(checkpoint), input=image_spec(64, 64))
    with pytest.raises(InputError, match="leave --weights out"):
        load_encoder(str(checkpoint), weights=checkpoint / "encoder.safetensors")


def test_a_timm_model_takes_size_and_statistics_from_its_configuration() -> None:
    loaded = load_encoder("timm:test_vit.r160_in1k")
    assert loaded.encoder.input == image_spec(160, 160)
    config = vision_module("timm.models").get_pretrained_cfg("test_vit.r160_in1k")
    assert loaded.preprocessing["mean"] == list(config.mean)
    assert loaded.preprocessing["crop"] == config.crop_pct
    assert loaded.preprocessing["fit"] == "crop"
    assert loaded.preprocessing["interpolation"] == config.interpolation
    assert loaded.facts["untrained"] is True
    assert "license" not in loaded.facts
    assert not loaded.encoder.training


@pytest.mark.parametrize("prefix", ["", "module.", "student.backbone.", "model."])
def test_weights_are_found_behind_prefixes_and_classifiers_are_left_out(tmp_path: Path, prefix: str) -> None:
    torch.manual_seed(1)
    model = small(classes=5).eval()
    state = {prefix + name: value.contiguous() for name, value in model.state_dict().items()}
    if prefix:
        state["projector.weight"] = torch.zeros(3)
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_encoder("timm:mobilenetv3_small_050", weights=tmp_path / "w.safetensors", input=image_spec(64, 64))
    images = torch.rand(2, 3, 64, 64)
    model.reset_classifier(0)
    with torch.no_grad():
        expected = model(loaded.encoder.normalize(images))
        torch.testing.assert_close(loaded.encoder.features(images), expected, rtol=1e-4, atol=1e-5)
    assert loaded.facts.get("weights_prefix", "") == prefix
    assert loaded.facts["weights_dropped"] == {"classifier": 2} | ({"projector": 1} if prefix else {})
    assert len(loaded.facts["weights_sha256"]) == 64
    assert loaded.facts["untrained"] is False


def test_a_torch_file_is_opened_without_running_code_and_the_teacher_is_preferred(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    teacher = {f"backbone.{name}": value + 1 for name, value in layer.state_dict().items()}
    student = {f"backbone.{name}": value for name, value in layer.state_dict().items()}
    torch.save({"epoch": 3, "student": student, "teacher": teacher}, tmp_path / "w.pth")
    other = torch.nn.Linear(3, 2)
    fitted = load_weights(other, tmp_path / "w.pth")
    torch.testing.assert_close(other.weight, layer.weight + 1)
    assert (fitted.container, fitted.prefix) == ("teacher", "backbone.")
    torch.save({"model": layer}, tmp_path / "pickled.pt")
    with pytest.raises(InputError, match="without running code"):
        read_weights(tmp_path / "pickled.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(InputError, match="no weights by name"):
        read_weights(tmp_path / "list.pt")


def test_weights_that_do_not_fit_are_named_and_counted(tmp_path: Path) -> None:
    state = {name: value.contiguous() for name, value in small().state_dict().items()}
    del state["blocks.0.0.bn1.bias"]
    state["conv_stem.weight"] = torch.zeros(4)
    state["blocks.9.strange"] = torch.zeros(1)
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    with pytest.raises(InputError) as told:
        load_encoder("timm:mobilenetv3_small_050", weights=path)
    for part in ("1 names missing: blocks.0.0.bn1.bias", "1 names unknown: blocks.9.strange", "conv_stem.weight (4,)"):
        assert part in str(told.value)
    path.write_bytes(b"not safetensors")
    with pytest.raises(InputError, match="no readable safetensors"):
        load_encoder("timm:mobilenetv3_small_050", weights=path)
    with pytest.raises(InputError, match="no weights file"):
        load_encoder("timm:mobilenetv3_small_050", weights=tmp_path / "none.pth")


def test_positions_of_another_size_are_resized(tmp_path: Path) -> None:
    model = vision_module("timm").create_model("test_vit", num_classes=0, img_size=160)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    loaded = load_encoder("timm:test_vit", weights=tmp_path / "w.safetensors", input=image_spec(64, 96))
    with torch.no_grad():
        assert loaded.encoder(torch.zeros(2, 64, 96, 3, dtype=torch.uint8)).shape == (2, loaded.encoder.dim)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("timm:resnet18x", {}, "did you mean 'resnet18'"),
        ("resnet18", {}, "type timm:resnet18"),
        ("conv_small", {}, "edgessl pretrain DATA --encoder conv_small"),
        ("no/such/folder", {}, "no such folder"),
        ("timm:resnet18", {"pretrained": True, "weights": Path("w")}, "not both"),
        ("timm:test_vit", {"input": image_spec(50, 64)}, "50x64"),
        ("timm:test_vit", {"pool": "attention"}, "a trained part"),
        ("timm:resnet10t", {"pool": "cls"}, "gives maps"),
        ("timm:levit_128s", {"pool": "gem"}, "stays 'mean'"),
        ("timm:resnet10t", {"options": {"tial": 1}}, "did you mean 'tail'"),
    ],
)
def test_what_cannot_be_loaded_says_what_can(source: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(source, **arguments)


def test_a_pool_may_be_chosen() -> None:
    torch.manual_seed(0)
    gem = load_encoder("timm:resnet10t", input=image_spec(32, 32), pool="gem")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        latent = gem.encoder.normalize(images)
        for stage in gem.encoder.stages:
            latent = stage(latent)
        expected = latent.clamp_min(1e-6).pow(3).mean((2, 3)).pow(1 / 3)
        torch.testing.assert_close(gem.encoder.features(images), expected)
    assert gem.pooling == "gem"
    assert load_encoder("timm:test_vit", pool="mean").pooling == "mean"


def test_a_sequence_of_a_factory_becomes_stages(module: str) -> None:
    loaded = load_encoder(f"{module}:sequence")
    encoder = loaded.encoder
    assert encoder.input == image_spec(16, 24)
    assert loaded.preprocessing["std"] == [1.0, 2.0, 4.0]
    assert loaded.facts["license"] == "MIT"
    assert (len(encoder.stages), encoder.cut, encoder.dim) == (4, 3, 4)
    images = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        expected = sys.modules[module].sequence()(encoder.normalize(images))
        torch.testing.assert_close(encoder.features(images), expected)


def test_a_factory_takes_weights_and_an_opaque_model_gets_a_tail_that_learns(module: str, tmp_path: Path) -> None:
    weights = {"layer.weight": torch.rand(6, 3), "layer.bias": torch.rand(6)}
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="type --size HEIGHTxWIDTH"):
        load_encoder(f"{module}:Opaque")
    loaded = load_encoder(f"{module}:Opaque", input=image_spec(16, 16), weights=tmp_path / "w.safetensors")
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        expected = images.mean((2, 3)) @ weights["layer.weight"].T + weights["layer.bias"]
        torch.testing.assert_close(loaded.encoder.features(images), expected)
    from edgessl.export.split import split_encoder

    assert sorted(value.numel() for value in split_encoder(loaded.encoder).tail_weights().values()) == [6, 36]


def test_a_factory_of_series_and_one_of_an_own_encoder(module: str) -> None:
    series = load_encoder(f"{module}:Series").encoder
    with torch.no_grad():
        assert series(torch.rand(3, 4, 30)).shape == (3, 6)
    assert series.input.kind == "series"
    assert load_encoder(f"{module}:own").encoder.dim == 128


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("number", "gave int, not an nn.Module"),
        ("broken", "KeyError: 'no such thing'"),
        ("maps", "not \\(2, dim\\)"),
        ("sequnce", "did you mean 'sequence'"),
    ],
)
def test_a_factory_at_fault_is_told_so(module: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_encoder(f"{module}:{name}", input=image_spec(16, 16))


def test_a_module_that_cannot_be_imported_is_named() -> None:
    with pytest.raises(InputError, match="cannot be imported"):
        load_encoder("no_such_module:factory")
    with pytest.raises(UnknownNameError, match="pickle_encoder"):
        load_encoder("json:pickle_encoder")


def test_series_input_is_refused_for_a_timm_model() -> None:
    with pytest.raises(InputError, match="takes images"):
        load_encoder("timm:resnet10t", input=InputSpec(kind="series", shape=(4, 30), dtype="float32", units="g"))


def test_an_attention_pool_is_the_model_s_own() -> None:
    model = vision_module("timm").create_model("test_vit", num_classes=0, global_pool="map", class_token=False)
    whole = copy.deepcopy(model).eval()
    encoder = encoder_from_timm(model, image_spec(160, 160)).eval()
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        torch.testing.assert_close(encoder.features(images), whole(encoder.normalize(images)), rtol=1e-4, atol=1e-5)
    assert pooling_of(whole) == "attention"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "stages"),
    [
        ("mobilenetv3_small_050", 64, 7),
        ("efficientnet_lite0", 64, 8),
        ("ghostnet_050", 64, 11),
        ("fastvit_t8", 64, 5),
        ("repvit_m0_9", 64, 5),
        ("levit_128s", 224, 4),
        ("levit_conv_128s", 224, 4),
        ("edgenext_xx_small", 64, 5),
        ("tiny_vit_5m_224", 64, 5),
        ("mobilevit_xxs", 64, 6),
        ("regnety_002", 64, 5),
        ("vit_small_patch14_reg4_dinov2", 70, 14),
        ("vit_small_patch16_dinov3", 64, 14),
        ("deit_tiny_distilled_patch16_224", 64, 14),
    ],
)
def test_a_family_of_timm_taken_apart_and_merged_is_the_same_function(name: str, size: int, stages: int) -> None:
    torch.manual_seed(0)
    whole = create(name, (size, size)).eval()
    encoder = reparameterized(encoder_from_timm(copy.deepcopy(whole), image_spec(size, size)).eval())
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        expected = whole(encoder.normalize(images))
        torch.testing.assert_close(encoder.features(images), expected, rtol=1e-4, atol=1e-4)
        latent = encoder.normalize(images)
        for stage, channels in zip(encoder.stages, encoder.channels, strict=True):
            latent = stage(latent)
            assert latent.shape[encoder.channel_axis] == channels
    assert len(encoder.stages) == stages
    assert 3 <= len(encoder.ports) <= 6
    assert any(True for part in (*encoder.stages[encoder.cut :], encoder.pool) for _ in part.parameters())
