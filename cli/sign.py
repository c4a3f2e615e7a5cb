"""`edgessl sign`: vouch for a bundle, or make the key for it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edgessl.cli.options import Json, Overwrite
from edgessl.cli.output import result
from edgessl.errors import InputError

EXAMPLE = "edgessl sign robot.edgessl --key private.pem"


def sign(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="[BUNDLE]", help="Folder NAME.edgessl written by `edgessl export`.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key to sign with, PEM.")] = None,
    new_key: Annotated[
        Path | None, typer.Option(help="Make a key pair: this file, and its .pub.pem beside it.")
    ] = None,
    password_env: Annotated[str, typer.Option(help="Environment variable with the private key's password.")] = "",
    signature: Annotated[Path | None, typer.Option(help="The file to write; default: BUNDLE.sig beside it.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Sign every file of BUNDLE, without a network.

    `edgessl verify BUNDLE --key public.pem` then refuses any file that was changed, added or removed. Keep the private
    key to yourself; the public one goes to every device, by another way than the bundle.
    """
    from edgessl.signing import new_key as make_key
    from edgessl.signing import sign_bundle

    password = _password(password_env)
    if new_key is not None:
        if bundle is not None or key is not None:
            raise InputError(f"--new-key makes a key and signs nothing; type: edgessl sign --new-key {new_key}")
        public = make_key(new_key, password=password)
        facts = {"private": str(new_key), "public": str(public)}
        result(facts, f"private key {new_key}: keep it\npublic key {public}: for every device", as_json=as_json)
        return
    if bundle is None or key is None:
        raise InputError(
            "give a bundle and a key: edgessl sign robot.edgessl --key private.pem (or --new-key private.pem)"
        )
    written = sign_bundle(bundle, key, password=password, signature=signature, overwrite=overwrite)
    facts = {"bundle": str(bundle), "signature": str(written)}
    result(facts, f"{bundle} is signed -> {written}", as_json=as_json)


def _password(name: str) -> str:
    """A password comes through the environment: a command line is seen by every process."""
    if not name:
        return ""
    if not os.environ.get(name):
        raise InputError(f"the environment has no {name}, or it is empty; set it, or leave out --password-env")
    return os.environ[name]
