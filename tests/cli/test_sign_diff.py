"""`edgessl sign`, `edgessl verify --key` and `edgessl diff`: what they print and how they leave."""

from __future__ import annotations

import json
import runpy
import shutil
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from edgessl.bundle import Kind, open_bundle, write_manifest
from edgessl.cli.diff import diff
from edgessl.cli.failures import guarded
from edgessl.cli.sign import sign
from edgessl.cli.verify import verify

app = typer.Typer(add_completion=False)
for name, function in (("sign", sign), ("verify", verify), ("diff", diff)):
    app.command(name)(guarded(name, function))


@pytest.fixture(autouse=True)
def no_debug(monkeypatch):
    monkeypatch.delenv("EDGESSL_DEBUG", raising=False)


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def tiny(root, tmp_path_factory) -> Path:
    write = runpy.run_path(str(root / "tests" / "runtimes" / "tiny_bundle.py"))["write_tiny_bundle"]
    return Path(write(tmp_path_factory.mktemp("cli") / "robot.edgessl"))


@pytest.fixture
def own(tiny, tmp_path) -> Path:
    return shutil.copytree(tiny, tmp_path / "robot.edgessl")


@pytest.fixture(scope="module")
def private(tmp_path_factory) -> Path:
    pytest.importorskip("model_signing", reason="pip install 'edgessl[sign]'")
    path = tmp_path_factory.mktemp("keys") / "private.pem"
    code, out, _ = run("sign", "--new-key", path, "--json")
    assert code == 0
    assert json.loads(out) == {"private": str(path), "public": str(path.with_name("private.pub.pem"))}
    return path


@pytest.fixture
def public(private) -> Path:
    return private.with_name("private.pub.pem")


def test_sign_then_verify(own, private, public):
    code, out, _ = run("sign", own, "--key", private)
    assert code == 0
    assert f"{own}.sig" in out
    code, out, talk = run("verify", own, "--key", public)
    assert code == 0
    assert "encoder int8" in out
    assert "10 files are as the owner of" in talk


def test_a_changed_file_leaves_with_4_before_anything_is_run(own, private, public, monkeypatch):
    assert run("sign", own, "--key", private)[0] == 0
    (own / "more").write_text("x")
    monkeypatch.setattr("edgessl.runtimes.verify.replay", lambda *_, **__: pytest.fail("it was run"))
    code, out, talk = run("verify", own, "--key", public)
    assert (code, out) == (4, "")
    assert "more" in talk
    assert len(talk.strip().splitlines()) == 1


def test_a_missing_signature_says_what_to_type(own, public):
    code, _, talk = run("verify", own, "--key", public)
    assert code == 1
    assert f"edgessl sign {own} --key private.pem" in talk


def test_an_encrypted_key_takes_its_password_from_the_environment(own, private, tmp_path, monkeypatch):
    del private  # asked for so that this is skipped without the extra
    monkeypatch.setenv("SECRET", "a b c")
    key, elsewhere = tmp_path / "k.pem", tmp_path / "out" / "robot.sig"
    assert run("sign", "--new-key", key, "--password-env", "SECRET")[0] == 0
    words = ("sign", own, "--key", key, "--signature", elsewhere)
    code, _, talk = run(*words)
    assert code == 1
    assert "--password-env" in talk
    assert run(*words, "--password-env", "SECRET")[0] == 0
    assert run("verify", own, "--key", key.with_name("k.pub.pem"), "--signature", elsewhere)[0] == 0
    assert "NOTHING" in run(*words, "--password-env", "NOTHING")[2]


@pytest.mark.parametrize("words", [("sign",), ("sign", "x.edgessl"), ("sign", "x.edgessl", "--new-key", "k.pem")])
def test_sign_with_half_of_what_it_needs(words):
    code, _, talk = run(*words)
    assert code == 1
    assert "edgessl sign" in talk


def test_a_signature_without_a_key_is_not_checked_silently(own):
    code, _, talk = run("verify", own, "--signature", "x.sig")
    assert code == 1
    assert "--key public.pem" in talk


def test_diff_of_a_bundle_with_itself(tiny):
    code, out, _ = run("diff", tiny, tiny)
    assert code == 0
    assert "vectors may be mixed: yes" in out
    for name in ("facts", "artefacts", "tensors", "volatile"):
        assert f"{name}: the same" in out


def test_diff_tells_what_differs_and_leaves_with_0(tiny, own):
    opened = open_bundle(own)
    kinds = {each.path: Kind(each.role, each.precision, each.engine, each.batch) for each in opened.artefacts}
    kept = {key: value for key, value in opened.manifest.items() if key not in ("artefacts", "sha256", "format")}
    write_manifest(own, kinds, kept | {"space_id": "other", "license": "x" * 500})
    code, out, _ = run("diff", tiny, own, "--run")
    assert code == 0
    assert "no: two spaces, tiny-6 and other" in out
    assert "x" * 60 not in out
    code, out, _ = run("diff", tiny, own, "--json")
    found = json.loads(out)
    assert code == 0
    assert not found["may_mix"]
    assert {"what": "license", "a": None, "b": "x" * 500} in found["facts"]


def test_diff_of_a_damaged_bundle_leaves_with_4(tiny, own):
    (own / "tail.onnx").write_bytes(b"x")
    assert run("diff", tiny, own)[0] == 4
