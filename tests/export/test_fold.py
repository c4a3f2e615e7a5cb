"""Where ports stand behind convolutions the export says which constants take them in; elsewhere it says nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgessl.bundle import open_bundle
from edgessl.encoders import EncoderModule, build_encoder
from edgessl.errors import BundleError, EngineError
from edgessl.export.bundle import export
from edgessl.export.calibrate import observe
from edgessl.export.config import ExportConfig
from edgessl.export.constants import constants_of
from edgessl.export.fold import probe_ports
from edgessl.export.graphs import convolutions, traced
from edgessl.export.placement import PLACEMENTS
from edgessl.export.quantize import quantized
from edgessl.export.split import Split, split_encoder
from edgessl.export.surgery import weights_of
from edgessl.export.train_step import StepConfig
from edgessl.metrics import cosines
from edgessl.runtimes.adapt.served import Served
from edgessl.runtimes.adapt.serving import Serving
from edgessl.runtimes.encoder import open_encoder
from edgessl.runtimes.engines import open_engine, read_constants
from edgessl.runtimes.fold import mixing
from edgessl.runtimes.port import before
from edgessl.runtimes.split import Trunk
from edgessl.sources.arrays import ArraySource
from tests.export.conftest import IMAGES, smooth_frames, trained_enough
from tests.export.hand_graphs import conv_net

CONFIG = ExportConfig(
    targets=("onnx", "openvino"), precision="int8", calibration=40, statistics=40, golden=24, anchors=9,
    step=StepConfig(batch=4, anchors=3),
)  # fmt: skip


def written(encoder: EncoderModule, folder: Path, config: ExportConfig = CONFIG) -> Path:
    frames = smooth_frames(72)
    source = ArraySource("frames", frames, IMAGES, [str(row) for row in range(len(frames))])
    return export(encoder, {"recipe": "none"}, source, folder / "robot.edgessl", config=config).path


@pytest.fixture(scope="module")
def conv() -> EncoderModule:
    return trained_enough("conv_small")


@pytest.fixture(scope="module")
def folding(conv: EncoderModule, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(conv, tmp_path_factory.mktemp("fold"))


def ports_of(split: Split, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        given = split.trunk(torch.from_numpy(smooth_frames(24, seed=7)), *split.identity_ports())[1:]
    seen = dict(zip(split.statistic_names(), given, strict=True))
    spreads = [
        (seen[f"port{index}.square"].mean(0) - seen[f"port{index}.mean"].mean(0) ** 2).sqrt().numpy()
        for index in range(len(split.encoder.ports))
    ]
    return [
        (
            rng.uniform(0.7, 1.4, len(each)).astype(np.float32),
            (0.2 * rng.normal(size=len(each)) * each).astype(np.float32),
        )
        for each in spreads
    ]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.99999), ("int8", 0.995)])
def test_the_folded_encoder_does_what_pytorch_does_with_ports(
    conv: EncoderModule, folding: Path, engine: str, precision: str, bound: float
) -> None:
    split, frames = split_encoder(conv), smooth_frames(40, seed=8)
    ports = ports_of(split)
    with torch.no_grad():
        moved = [torch.from_numpy(each) for port in ports for each in port]
        wanted = split.tail(split.trunk(torch.from_numpy(frames), *moved)[0]).numpy()
    with open_encoder(folding, engine=engine, precision=precision) as encoder, Serving(encoder) as serving:
        plain = encoder.embed(frames)
        serving.use(Served(number=1, ports=tuple(ports)))
        assert serving.info()["path"] == "folded"
        given = serving.embed(frames)
    assert cosines(wanted, given).mean() > bound
    assert 1 - cosines(wanted, given).mean() < (1 - cosines(wanted, plain).mean()) / 2


def with_mixing(split: Split, frames: np.ndarray, ports: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """PyTorch's vectors, each port's channels multiplied by its matrix right behind its stage."""
    encoder, hooks = split.encoder, []
    for stage, (scale, shift) in zip(encoder.ports, ports, strict=True):
        matrix = torch.from_numpy(scale if scale.ndim == 2 else np.diag(scale))

        def mix(
            _: object, __: object, out: torch.Tensor, matrix: torch.Tensor = matrix, shift: np.ndarray = shift
        ) -> torch.Tensor:
            return torch.einsum("dc,nchw->ndhw", matrix, out) + torch.from_numpy(shift)[:, None, None]

        hooks.append(encoder.stages[stage].register_forward_hook(mix))
    try:
        with torch.no_grad():
            return np.asarray(encoder(torch.from_numpy(frames)).numpy())
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("precision", "bound"), [("fp32", 0.99999), ("int8", 0.995)])
def test_ports_that_mix_channels_do_what_pytorch_does_with_matrices(
    conv: EncoderModule, folding: Path, engine: str, precision: str, bound: float
) -> None:
    split, frames = split_encoder(conv), smooth_frames(40, seed=8)
    with open_encoder(folding, engine=engine, precision=precision) as encoder, Serving(encoder) as serving:
        assert mixing(encoder.bundle, engine=engine, precision=precision, trunk=precision) == (1,)
        with Trunk(encoder.bundle, engine=engine, precision=precision) as trunk:
            ports = probe_ports(trunk, frames, mixed=True)
            with pytest.raises(EngineError, match="open one with these ports"):
                trunk.run(frames, ports)
        assert [scale.ndim for scale, _ in ports] == [1, 2]
        wanted = with_mixing(split, frames, ports)
        plain = encoder.embed(frames)
        serving.use(Served(number=1, ports=tuple(ports)))
        assert serving.info()["path"] == "folded"
        tail = encoder.bundle.tensors("weights")
        for path, extra in (("folded", {}), ("split", {"tail": tail})):
            serving.use(Served(number=2, ports=tuple(ports), **extra))
            assert serving.info()["path"] == path
            given = serving.embed(frames)
            assert cosines(wanted, given).mean() > bound
            assert 1 - cosines(wanted, given).mean() < (1 - cosines(wanted, plain).mean()) / 2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_comes_before_a_port_that_mixes_is_found_from_what_comes_behind_it(folding: Path, engine: str) -> None:
    bundle, frames, options = open_bundle(folding), smooth_frames(9, seed=8), {"engine": engine, "precision": "fp32"}
    with Trunk(bundle, **options) as trunk:
        probes = probe_ports(trunk, frames, mixed=True)
        ports = [trunk.identity[0], probes[1]]
        wanted = trunk.run(frames, trunk.identity)
        np.testing.assert_allclose(np.diagonal(wanted.products[1], axis1=1, axis2=2), wanted.squares[1], rtol=1e-4)
    with Trunk(bundle, **options, ports=ports) as mixed:
        given = mixed.run(frames, ports)
    assert np.abs(given.latents - wanted.latents).max() > 0.1 * np.abs(wanted.latents).max()
    found = before(ports[1], given.means[1].mean(0, dtype=float), given.products[1].mean(0, dtype=float))
    for mine, theirs in zip(found, (wanted.means[1], wanted.products[1]), strict=True):
        np.testing.assert_allclose(mine, theirs.mean(0), atol=1e-3 * np.abs(theirs).max())


@pytest.mark.slow
def test_the_sources_covariance_of_channels_is_that_of_its_frames(folding: Path) -> None:
    bundle = open_bundle(folding)
    source = bundle.tensors("source")
    assert {name for name in source if name.endswith(".covariance")} == {"embedding.covariance", "port1.covariance"}
    np.testing.assert_allclose(np.diagonal(source["port1.covariance"]), source["port1.var"], rtol=1e-3, atol=1e-6)
    with Trunk(bundle, engine="onnxruntime", precision="int8") as trunk:
        channels = trunk.channels[1]
    assert source["port1.covariance"].shape == (channels, channels)


@pytest.mark.slow
def test_every_encoder_of_the_bundle_has_its_own_record(folding: Path) -> None:
    folds = open_bundle(folding).manifest["split"]["folds"]
    files = {"encoder.onnx", "encoder.int8.onnx", "openvino/encoder.fp32.xml", "openvino/encoder.int8.xml"}
    files |= {"trunk.fp32.onnx", "trunk.int8.onnx", "openvino/trunk.fp32.xml", "openvino/trunk.int8.xml"}
    assert set(folds) == files
    assert {len(ports) for ports in folds.values()} == {2}
    assert all(port["steps"] for port in folds["encoder.int8.onnx"])


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_constant_that_is_not_there_or_another_one_is_refused_by_the_engine(folding: Path, engine: str) -> None:
    bundle = open_bundle(folding)
    graph = bundle.graph("encoder", "int8", engine)
    (port, _) = bundle.manifest["split"]["folds"][graph.relative_to(folding).as_posix()]
    with pytest.raises(BundleError, match="gone"):
        read_constants(engine, graph, [port["bias"], "gone"])
    constants = read_constants(engine, graph, [port["scale"]])
    (name,) = constants
    for other in (constants[name][:-1], constants[name].astype(np.int32)):
        with pytest.raises(BundleError, match=name):
            open_engine(engine, graph, constants={name: other})


@pytest.mark.slow
def test_a_transformer_has_no_record_and_is_served_in_halves(tmp_path: Path) -> None:
    config = ExportConfig(precision="fp32", statistics=40, golden=24, anchors=9, step=StepConfig(batch=4, anchors=3))
    torch.manual_seed(0)
    encoder = build_encoder("vit_micro", IMAGES, dim=12, depth=3, heads=3, patch=8).eval()
    split, frames = split_encoder(encoder), smooth_frames(9, seed=8)
    ports = ports_of(split)
    path = written(encoder, tmp_path, config)
    assert "folds" not in open_bundle(path).manifest["split"]
    with torch.no_grad():
        moved = [torch.from_numpy(each) for port in ports for each in port]
        wanted = split.tail(split.trunk(torch.from_numpy(frames), *moved)[0]).numpy()
    with open_encoder(path, precision="fp32") as opened, Serving(opened) as serving:
        serving.use(Served(number=1, ports=tuple(ports)))
        assert serving.info()["path"] == "split"
        np.testing.assert_allclose(serving.embed(frames), wanted, atol=1e-4)


def test_the_convolution_is_found_by_what_the_port_reads() -> None:
    model = conv_net(ports=True)
    model.graph.output[0].name = "latents"
    next(node for node in model.graph.node if node.output[0] == "vectors").output[0] = "latents"
    assert convolutions(model, 1) == ["stages.0/Conv"]
    assert convolutions(model, 2) == []  # there is no second port
    assert convolutions(model, 0) == []


def test_a_value_that_goes_around_its_port_is_not_folded() -> None:
    model = conv_net(ports=True)
    model.graph.output[0].name = "latents"
    next(node for node in model.graph.node if node.output[0] == "vectors").output[0] = "latents"
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Max"
    relu.input.append("c0")
    assert convolutions(model, 1) == []


def test_constants_are_found_in_float_and_behind_pairs() -> None:
    def names(model: onnx.ModelProto) -> tuple[str, ...]:
        one = constants_of(model, "stages.0/Conv")
        assert one is not None
        return one.weight, one.scale, one.bias, one.steps

    model = conv_net()
    assert names(model) == ("k0", "", "b0", "")
    ranges = observe(model, smooth_frames(8, 16, 8)[:, :9, :7])
    rounded = quantized(model, ranges, PLACEMENTS["onnxruntime"])
    assert names(rounded) == ("k0_quantized", "k0_scale", "b0_quantized", "b0_quantized_scale")
    assert names(quantized(model, ranges, PLACEMENTS["symmetric"])) == ("k0_quantized", "k0_scale", "b0", "")


def test_weights_that_another_node_reads_too_are_not_folded() -> None:
    model = conv_net()
    next(node for node in model.graph.node if node.name == "stages.1.1/Conv").input[2] = "b0"
    assert constants_of(model, "stages.0/Conv") is None
    assert weights_of(model)["b0"].dims == [6]


def test_a_convolution_without_a_bias_gets_one() -> None:
    torch.manual_seed(0)
    fresh = build_encoder("conv_small", IMAGES, widths=(6, 10, 12)).eval()  # its norms add nothing yet
    graphs = traced(split_encoder(fresh))
    names = convolutions(graphs.trunk, 2)
    assert names == ["stages.0.0/Conv", "stages.1.1/Conv"]
    for model in (graphs.encoder, graphs.trunk):
        for name in names:
            assert getattr(constants_of(model, name), "bias", "") == f"{name}.bias"


def test_a_residual_sum_in_front_of_a_port_has_no_constants_to_fold_into() -> None:
    graphs = traced(split_encoder(build_encoder("res_small", IMAGES, widths=(6, 10, 12)).eval()))
    assert convolutions(graphs.trunk, 2) == []
