"""One trace gives encoder and trunk, and both are what PyTorch computes."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from edgessl.encoders import EncoderModule
from edgessl.errors import InputError
from edgessl.export.graph import write_graph
from edgessl.export.graphs import Graphs
from edgessl.export.placement import quantizable
from edgessl.export.split import Split
from edgessl.export.surgery import static_batch
from edgessl.runtimes.engines import open_engine
from tests.export.conftest import smooth_frames
from tests.export.hand_graphs import is_sorted

pytestmark = pytest.mark.slow


def fed(split: Split, frames: np.ndarray) -> dict[str, np.ndarray]:
    """Frames and identity ports by name."""
    ports = zip(split.port_names(), split.identity_ports(), strict=True)
    return {"frames": frames} | {name: value.numpy() for name, value in ports}


def test_the_encoder_is_that_of_pytorch(graphs: Graphs, encoder: EncoderModule, frames: np.ndarray) -> None:
    with torch.no_grad():
        wanted = encoder(torch.from_numpy(frames[:7])).numpy()
    (reference,) = ReferenceEvaluator(graphs.encoder).run(None, {"frames": frames[:7]})
    np.testing.assert_allclose(reference, wanted, atol=2e-5)
    engine = open_engine("onnxruntime", graphs.encoder.SerializeToString())
    np.testing.assert_allclose(engine.run({"frames": frames[:7]})["vectors"], wanted, atol=1e-5)
    engine.close()


def test_trunk_and_tail_are_that_encoder(
    graphs: Graphs, split: Split, encoder: EncoderModule, frames: np.ndarray
) -> None:
    engine = open_engine("onnxruntime", graphs.trunk.SerializeToString())
    got = engine.run(fed(split, frames[:5]))
    engine.close()
    with torch.no_grad():
        given = torch.from_numpy(frames[:5])
        wanted = split.trunk(given, *split.identity_ports())
        vectors = split.tail(torch.from_numpy(got["latents"]))
        torch.testing.assert_close(vectors, encoder(given), atol=1e-5, rtol=1e-5)
    references = dict(zip(("latents", *split.statistic_names()), wanted, strict=True))
    # Products of channels are of use where a convolution takes in that they are mixed, which only the graph shows.
    assert [name for name in references if name in got or not name.endswith(".products")] == list(got)
    for name, value in got.items():
        np.testing.assert_allclose(value, references[name].numpy(), rtol=1e-4, atol=1e-4, err_msg=name)


def test_ports_that_move_something_do_so_as_in_pytorch(graphs: Graphs, split: Split, frames: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    feeds = fed(split, frames[:3])
    for name in split.port_names():
        feeds[name] = (feeds[name] + rng.normal(0, 0.3, feeds[name].shape)).astype(np.float32)
    engine = open_engine("onnxruntime", graphs.trunk.SerializeToString())
    got = engine.run(feeds)["latents"]
    engine.close()
    with torch.no_grad():
        ports = [torch.from_numpy(feeds[name]) for name in split.port_names()]
        wanted = split.trunk(torch.from_numpy(frames[:3]), *ports)[0].numpy()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_values_have_the_same_names_in_all_graphs(graphs: Graphs) -> None:
    """Ranges of the encoder are ranges of the trunk: what a port gives is what goes in."""
    weights = {entry.name for entry in graphs.encoder.graph.initializer}
    inner = {name: node for node in graphs.encoder.graph.node for name in node.output}
    shared = [node for node in graphs.trunk.graph.node if node.name in quantizable(graphs.trunk)]
    assert shared
    for node in shared:
        assert graphs.same.get(node.input[0], node.input[0]) in inner
        assert inner[node.output[0]].op_type == node.op_type
        assert node.input[1] in weights
    assert "latents" in graphs.same
    assert not [name for name in graphs.same.values() if name in graphs.same], "a port's input is no port's output"


def test_nodes_are_called_after_their_modules(graphs: Graphs, encoder: EncoderModule) -> None:
    modules = dict(encoder.named_modules())
    names = [node.name for node in graphs.trunk.graph.node]
    assert len(set(names)) == len(names)
    names += [node.name for node in graphs.encoder.graph.node]
    layers = quantizable(graphs.encoder)
    assert {name.rpartition("/")[0] for name in layers} == {
        path for path, module in modules.items() if hasattr(module, "weight") and module.weight.ndim > 1
    }
    for name in names:
        place = name.rpartition("/")[0]
        assert place in modules, name


def test_nothing_of_this_machine_is_in_them(graphs: Graphs, root: Path) -> None:
    for model in (graphs.encoder, graphs.trunk, static_batch(graphs.encoder, 1)):
        content = model.SerializeToString()
        for said in (
            str(root),
            str(Path.home()) + "/",
            tempfile.gettempdir() + "/",
            "site-packages",
            ".py",
            "Traceback",
        ):
            assert said.encode() not in content, said
        graph = model.graph
        everything = (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer, graph, model)
        assert len(everything) > 30
        for entry in everything:
            assert not entry.doc_string
            assert not entry.metadata_props


def test_they_are_what_every_engine_takes(graphs: Graphs) -> None:
    for model in (graphs.encoder, graphs.trunk, static_batch(graphs.encoder, 1)):
        assert is_sorted(model)
        assert model.ir_version == 10
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
        assert not model.functions
        assert not any(entry.external_data for entry in model.graph.initializer)
        onnx.checker.check_model(model, full_check=True)


def test_a_batch_of_one_is_the_same_encoder(graphs: Graphs, frames: np.ndarray) -> None:
    single = static_batch(graphs.encoder, 1)
    engines = [open_engine("onnxruntime", model.SerializeToString()) for model in (graphs.encoder, single)]
    wanted, got = (engine.run({"frames": frames[:1]})["vectors"] for engine in engines)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert engines[1].inputs["frames"].shape == (1, 32, 40, 3)
    shaped = onnx.shape_inference.infer_shapes(single).graph
    for entry in (*shaped.input, *shaped.output, *shaped.value_info):
        assert all(size.HasField("dim_value") for size in entry.type.tensor_type.shape.dim), entry.name
    assert static_batch(graphs.encoder, 1).SerializeToString() == single.SerializeToString()
    for engine in engines:
        engine.close()


def test_what_depends_on_the_batch_alone_is_computed_once(graphs: Graphs) -> None:
    kinds = {node.op_type for node in static_batch(graphs.encoder, 1).graph.node}
    assert not kinds & {"Shape", "Expand", "ConstantOfShape", "Loop", "If"}


def test_a_resize_in_front_is_part_of_it() -> None:
    from edgessl.encoders.camera import with_camera
    from edgessl.export.graphs import traced
    from edgessl.export.split import split_encoder
    from tests.export.conftest import trained_enough

    camera = with_camera(trained_enough("conv_small"), 48, 64)
    graphs, frames = traced(split_encoder(camera)), smooth_frames(3, 48, 64)
    with torch.no_grad():
        wanted = camera(torch.from_numpy(frames)).numpy()
    (got,) = ReferenceEvaluator(graphs.encoder).run(None, {"frames": frames})
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    assert not [name for name in quantizable(graphs.encoder) if "resize" in name]


def test_a_model_that_decides_by_its_values_is_refused_in_a_line(tmp_path: Path) -> None:
    class Fickle(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.mean() > 0 else -x

    with pytest.raises(InputError, match="torch cannot trace this encoder for it") as caught:
        write_graph(Fickle(), (torch.ones(2, 3),), tmp_path / "it.onnx", inputs=["x"], outputs=["y"], dynamic=["x"])
    assert "\n" not in str(caught.value)
