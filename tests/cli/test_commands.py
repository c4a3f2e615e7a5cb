"""The commands on a small bundle, from the words typed to the file written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgessl as library


def test_embed_writes_vectors_in_the_sources_order(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    done = edgessl("embed", bundle, frames_folder, "-o", tmp_path / "out.npz", "--batch", 5, "--json")
    assert done.code == 0
    with np.load(tmp_path / "out.npz") as file:
        vectors, names, space = file["vectors"], list(file["names"]), str(file["space_id"])
    assert vectors.shape == (39, 7)
    assert vectors.dtype == np.float32
    assert names == [f"a/{index:03d}.png" for index in range(0, 39, 2)] + [
        f"b/{index:03d}.png" for index in range(1, 39, 2)
    ]
    with library.open(bundle) as encoder:
        assert space == encoder.space_id == done.json["space_id"]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_embed_counts_and_names_what_it_skipped(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    done = edgessl("embed", bundle, frames_folder, "-o", tmp_path / "out.npz", "--json")
    assert [skipped["name"] for skipped in done.json["skipped"]] == ["a/broken.png"]
    assert "1 skipped" in done.talk
    assert "a/broken.png" in done.talk


def test_strict_makes_it_an_error_and_writes_nothing(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    done = edgessl("embed", bundle, frames_folder, "-o", tmp_path / "out.npz", "--strict")
    assert done.code == 1
    assert "broken.png" in done.talk
    assert list(tmp_path.iterdir()) == []


def test_adapt_embeds_learns_and_keeps_its_state(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ["adapt", bundle, frames_folder, "--state", tmp_path / "state", "-o", tmp_path / "out.npz"]
    done = edgessl(*words, "--log", tmp_path / "events.jsonl", "--json")
    assert done.code == 0, done.talk
    with np.load(tmp_path / "out.npz") as file:
        assert file["vectors"].shape == (39, 7)
        assert np.isfinite(file["vectors"]).all()
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == done.json["events"]
    assert any((tmp_path / "state").iterdir())
    assert edgessl(*words, "--overwrite").code == 0


@pytest.mark.parametrize("level", ["0", "1", "2", "auto", "recenter", "ports", "tail"])
def test_adapt_takes_every_level_by_number_and_by_name(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path, level: str
) -> None:
    done = edgessl(
        "adapt", bundle, frames_folder, "--state", tmp_path / "state", "-o", tmp_path / "out.npz", "--level", level
    )
    assert done.code == 0, done.talk


def test_an_unknown_level_is_refused_with_the_list(
    edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path
) -> None:
    words = ["adapt", bundle, frames_folder, "--state", tmp_path / "state", "-o", tmp_path / "out.npz"]
    done = edgessl(*words, "--level", "tails")
    assert done.code == 1
    assert "did you mean 'tail'" in done.talk


def test_a_level_out_of_range_lists_numbers_and_names(edgessl: Any, tmp_path: Path) -> None:
    done = edgessl("adapt", "no-bundle", "no-frames", "--state", "s", "-o", tmp_path / "out.npz", "--level", 3)
    assert done.code == 1
    assert "0, 1, 2, auto, ports, recenter, tail" in done.talk


@pytest.mark.parametrize("command", ["embed", "adapt"])
def test_a_folder_as_the_output_is_refused_before_any_work(edgessl: Any, tmp_path: Path, command: str) -> None:
    words = ["--state", tmp_path / "state"] if command == "adapt" else []
    done = edgessl(command, "no-bundle", "no-frames", *words, "-o", tmp_path, "--overwrite")
    assert done.code == 1
    assert f"give a file, such as -o {tmp_path / 'vectors.npz'}" in done.talk


def test_adapt_refuses_one_path_for_two_things(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    for state, log, told in (
        (tmp_path / "state", tmp_path / "." / "out.npz", "both -o and --log"),
        (bundle, tmp_path / "log", "is the bundle"),
        (frames_folder, tmp_path / "log", "is SOURCE"),
        (out, tmp_path / "log", "is -o"),
        (shutil.copytree(bundle, tmp_path / "other"), tmp_path / "log", "is a bundle"),
    ):
        done = edgessl("adapt", bundle, frames_folder, "--state", state, "-o", out, "--log", log)
        assert done.code == 1
        assert told in done.talk
    assert not out.exists()


def test_overwriting_a_file_of_vectors(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.npz").write_text("old")
    assert edgessl("embed", bundle, frames_folder, "-o", tmp_path / "out.npz", "--overwrite").code == 0
    with np.load(tmp_path / "out.npz") as file:
        assert len(file["vectors"]) == 39


def test_verify_passes_where_the_bundle_was_made(edgessl: Any, bundle: Path) -> None:
    done = edgessl("verify", bundle, "--json")
    assert done.code == 0
    assert [row["ok"] for row in done.json] == [True] * len(done.json)
    assert len(done.json) >= 2


def test_verify_refuses_wrong_vectors_with_exit_code_3(edgessl: Any, bundle: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    from edgessl.bundle import MANIFEST, signed
    from edgessl.files import sha256_of

    copy = Path(shutil.copytree(bundle, tmp_path / "robot.edgessl"))
    golden = load_file(copy / "golden.safetensors")
    save_file({**golden, "vectors": np.ascontiguousarray(golden["vectors"][::-1])}, copy / "golden.safetensors")
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["artefacts"]["golden.safetensors"]["sha256"] = sha256_of(copy / "golden.safetensors")
    (copy / MANIFEST).write_text(json.dumps(signed(manifest)))
    done = edgessl("verify", copy)
    assert done.code == 3
    assert "edgessl doctor" in done.talk


@pytest.mark.parametrize("command", ["verify", "inspect"])
def test_a_changed_byte_is_exit_code_4(edgessl: Any, bundle: Path, tmp_path: Path, command: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "robot.edgessl"))
    content = bytearray((copy / "encoder.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "encoder.onnx").write_bytes(content)
    done = edgessl(command, copy)
    assert done.code == 4
    assert "encoder.onnx" in done.talk


def test_inspect_tells_a_bundle_and_a_checkpoint(edgessl: Any, bundle: Path, checkpoint: Path) -> None:
    assert edgessl("inspect", bundle, "--json").json["dim"] == 7
    assert edgessl("inspect", checkpoint, "--json").json["encoder"]["name"] == "conv_small"
    assert "encoder.int8.onnx" in edgessl("inspect", bundle).out


def test_doctor_and_recipes_print_json(edgessl: Any) -> None:
    assert "onnxruntime" in [row["name"] for row in edgessl("doctor", "--json").json["facts"]]
    found = edgessl("recipes", "--json").json
    assert {"simclr", "vicreg", "byol", "mae"} <= {row["recipe"] for row in found["recipes"]}
    assert {"conv_small", "vit_micro"} <= {row["encoder"] for row in found["encoders"]}


def test_evaluate_shows_the_untrained_encoder_and_raw_pixels(edgessl: Any, bundle: Path, frames_folder: Path) -> None:
    done = edgessl("evaluate", bundle, frames_folder, "--no-linear", "--json")
    assert done.code == 0, done.talk
    names = [row["name"] for row in done.json["rows"]]
    assert names[0] == str(bundle)
    assert any(name.startswith("untrained conv_small") for name in names)
    assert names[-1] == "raw pixels"


def test_evaluate_refuses_what_is_neither(edgessl: Any, frames_folder: Path) -> None:
    done = edgessl("evaluate", frames_folder, frames_folder)
    assert done.code == 1
    assert "neither a checkpoint nor a bundle" in done.talk


@pytest.mark.parametrize("command", ["embed", "adapt", "export", "pretrain", "distill"])
def test_an_output_that_exists_is_refused_before_any_work(edgessl: Any, tmp_path: Path, command: str) -> None:
    output = tmp_path / ("there.edgessl" if command == "export" else "there")
    if command in ("embed", "adapt"):
        output.write_text("")
    else:
        output.mkdir()
    needed = {
        "embed": ["no-bundle", "no-frames"],
        "adapt": ["no-bundle", "no-frames", "--state", tmp_path / "state"],
        "export": ["no-checkpoint", "--calibrate", "no-frames"],
        "pretrain": ["no-frames", "--recipe", "simclr", "--encoder", "conv_small"],
        "distill": ["no-checkpoint", "no-frames", "--encoder", "conv_small"],
    }
    done = edgessl(command, *needed[command], "-o", output)
    assert done.code == 1
    assert "--overwrite" in done.talk
    assert list(tmp_path.iterdir()) == [output]


@pytest.mark.parametrize(
    ("words", "nearest"),
    [
        (["--recipe", "simclrr", "--encoder", "conv_small"], "simclr"),
        (["--recipe", "simclr", "--encoder", "conv_smal"], "conv_small"),
        (["--recipe", "simclr", "--encoder", "conv_small", "--set", "temperatur=1"], "temperature"),
        (["--recipe", "simclr", "--encoder", "conv_small", "--precision", "32-tru"], "32-true"),
    ],
)
def test_an_unknown_name_lists_the_names_and_the_nearest(
    edgessl: Any, frames_folder: Path, tmp_path: Path, words: list[str], nearest: str
) -> None:
    done = edgessl("pretrain", frames_folder, *words, "-o", tmp_path / "run")
    assert done.code == 1
    assert f"did you mean '{nearest}'" in done.talk
    assert "Choose one of" in done.talk
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--batch", 0], "batch must be at least 1, not 0"),
        (["--workers", -1], "workers must be at least 0, not -1"),
        (["--set", "temperature=abc"], "temperature of recipe 'simclr' is a number, not 'abc'"),
        (["--set", "hidden=1.5"], "hidden of recipe 'simclr' is a whole number, not 1.5"),
        (["--set", "views=1"], "type --set views.area=VALUE"),
        (
            ["--set", "encoder.foo=1"],
            "'foo'; did you mean 'pool'? Choose one of: depth, dim, padding, pool, stem, widths",
        ),
        (["--set", "encoder.dimm=1"], "did you mean 'dim'"),
        (["--set", "encoder.dim=big"], "dim of encoder 'conv_small' is a whole number, not 'big'"),
        (["--set", "encoder.widths=8"], "widths of encoder 'conv_small' is a list"),
        (["--set", "encoder.widths=[8,-1]"], "cannot be built with {'widths': [8, -1]}"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    edgessl: Any, frames_folder: Path, tmp_path: Path, words: list[str], told: str
) -> None:
    done = edgessl(
        "pretrain", frames_folder, "--recipe", "simclr", "--encoder", "conv_small", *words, "-o", tmp_path / "run"
    )
    assert done.code == 1
    assert told in done.talk
    assert "unexpected" not in done.talk
    assert list(tmp_path.iterdir()) == []


def test_evaluate_names_what_it_skipped(edgessl: Any, bundle: Path, frames_folder: Path) -> None:
    assert "1 skipped:\n  a/broken.png" in edgessl("evaluate", bundle, frames_folder, "--no-linear").talk


def test_a_training_names_what_it_skipped(edgessl: Any, frames_folder: Path, tmp_path: Path) -> None:
    small = ["--set", "encoder.widths=[4,6]", "--batch", 8, "--steps", 2, "--accelerator", "cpu", "--resume"]
    done = edgessl(
        "pretrain", frames_folder, "--recipe", "simclr", "--encoder", "conv_small", *small, "-o", tmp_path / "run"
    )
    assert done.code == 0, done.talk
    assert "1 skipped:\n  a/broken.png" in done.talk
    assert "starting at step 0" in done.talk


def test_an_unknown_engine_lists_the_engines(edgessl: Any, bundle: Path, frames_folder: Path, tmp_path: Path) -> None:
    done = edgessl("embed", bundle, frames_folder, "-o", tmp_path / "out.npz", "--engine", "onnxruntim")
    assert done.code == 1
    assert "did you mean 'onnxruntime'" in done.talk


def test_wrong_usage_is_exit_code_2(edgessl: Any) -> None:
    assert edgessl("embed", "robot.edgessl").code == 2
    assert edgessl("doctor", "--no-such-option").code == 2


def test_missing_data_says_what_can_be_given(edgessl: Any, bundle: Path, tmp_path: Path) -> None:
    done = edgessl("embed", bundle, tmp_path / "nothing", "-o", tmp_path / "out.npz")
    assert done.code == 1
    assert "FOLDER of images" in done.talk


@pytest.mark.slow
def test_pretrain_distill_and_export_follow_each_other(edgessl: Any, frames_folder: Path, tmp_path: Path) -> None:
    small = ["--set", "encoder.widths=[6,10,12]", "--batch", 8, "--steps", 3, "--accelerator", "cpu", "--json"]
    teacher, student, made = tmp_path / "a", tmp_path / "b", tmp_path / "c.edgessl"
    words = ["--recipe", "simclr", "--encoder", "conv_small", "--set", "encoder.dim=7"]
    done = edgessl("pretrain", frames_folder, *words, *small, "-o", teacher)
    assert done.code == 0, done.talk
    assert done.json["steps"] == 3
    words = ["--encoder", "conv_small", "--set", "encoder.dim=5"]
    done = edgessl("distill", teacher, frames_folder, *words, *small, "-o", student)
    assert done.code == 0, done.talk
    done = edgessl("export", student, "--calibrate", frames_folder, "-o", made, "--precision", "fp32", "--json")
    assert done.code == 0, done.talk
    with library.open(made) as encoder:
        assert encoder.dim == 5
