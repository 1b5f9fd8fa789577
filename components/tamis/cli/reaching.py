"""The options of commands that talk to a Kubeflow server."""

from __future__ import annotations

import functools
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from tamis.cli.loading import load
from tamis.core.errors import SettingsError

_OPTIONS = ("host", "namespace", "token_file", "ca_file")


def reaches_kubeflow(command: Callable[..., None]) -> Callable[..., None]:
    """Decorator: options for the server's address; the command gets them as one `Server` under the name `server`."""

    @functools.wraps(command)
    def call(*, host: str, namespace: str, token_file: Path | None, ca_file: str, **others: Any) -> None:
        server = load("tamis_pipelines.server").Server(host, namespace, _token(token_file), ca_file)
        command(server=server, **others)

    for option in (
        click.option(
            "--ca-file", default="", envvar="TAMIS_KUBEFLOW_CA", metavar="FILE", help="CA bundle for the server."
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="File with a bearer token; otherwise the variable TAMIS_KUBEFLOW_TOKEN, if set.",
        ),
        click.option(
            "--namespace",
            default="",
            envvar="TAMIS_KUBEFLOW_NAMESPACE",
            help="Your profile, on a server with several users.",
        ),
        click.option(
            "--host", default="", envvar="KF_PIPELINES_ENDPOINT", metavar="URL", help="Address of Kubeflow Pipelines."
        ),
    ):
        call = option(call)
    return call


def tamis(*arguments: str) -> str:
    """A command for the user to copy, with the options for the server that this command was given.

    Options that come from the environment are left out, because the user's next command has them too.
    """
    context = click.get_current_context()
    given = ["tamis", *arguments]
    for name in _OPTIONS:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            given += [f"--{name.replace('_', '-')}", str(context.params[name])]
    return shlex.join(given)


def _token(file: Path | None) -> str:
    if file is None:
        return os.environ.get("TAMIS_KUBEFLOW_TOKEN", "")
    if not file.is_file():
        raise SettingsError(f"no token file at {file}", action="check --token-file")
    return file.read_text(encoding="utf-8").strip()
