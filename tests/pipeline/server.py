"""A small Kubeflow Pipelines server for tests: real sockets, requests held against the API's own models and the IR.

It keeps what it is given and answers as Kubeflow does; it runs nothing. States of runs are what a test tells.
"""

from __future__ import annotations

import json
import ssl
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

_PREFIX = "/apis/v2beta1/"
_KINDS = {"NUMBER_INTEGER": int, "NUMBER_DOUBLE": float, "STRING": str, "BOOLEAN": bool, "LIST": list, "STRUCT": dict}
Body = dict[str, Any]


class Refused(Exception):
    """The server's answer to a wrong request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class State:
    """What the server knows, and how a test wants it to behave."""

    token: str = ""
    multi_user: bool = False
    login: bool = False  # answer everything with a page, as a proxy in front does
    states: list[Body] = field(default_factory=lambda: [{"state": "SUCCEEDED"}])  # of a run, one per question
    versions_hidden: bool = False  # do not return an uploaded package
    failures: list[int] = field(default_factory=list)  # statuses that the next questions for a run get first
    experiments: list[Body] = field(default_factory=list)
    pipelines: list[Body] = field(default_factory=list)
    versions: list[Body] = field(default_factory=list)
    runs: list[Body] = field(default_factory=list)
    schedules: list[Body] = field(default_factory=list)
    packages: dict[str, str] = field(default_factory=dict)
    numbers: Any = field(default_factory=lambda: count(1))

    def add(self, shelf: str, key: str, body: Body) -> Body:
        """Keep `body` under a new id and time of making."""
        number = next(self.numbers)
        made = datetime(2026, 1, 1, 0, 0, number, tzinfo=UTC).isoformat()
        kept = body | {key: f"{shelf}-{number}", "created_at": made}
        getattr(self, shelf).append(kept)
        return kept


def check_model(body: Any, model: str) -> None:
    """Refuse fields that the API's model does not have, at any depth."""
    if model.startswith("list["):
        for item in body:
            check_model(item, model[5:-1])
        return
    kind = getattr(kfp_server_api, model, None)
    if kind is not None and hasattr(kind, "allowable_values"):
        if body not in kind.allowable_values:
            raise Refused(400, f"{model} is none of {kind.allowable_values}: {body}")
    elif kind is not None:
        fields = {wire: kind.openapi_types[name] for name, wire in kind.attribute_map.items()}
        for name, value in body.items():
            if name not in fields:
                raise Refused(400, f"{model} has no field {name}")
            check_model(value, fields[name])


def check_order(body: Body, packages: dict[str, str]) -> None:
    """Refuse a run whose pipeline is no valid IR, or whose parameters are not those of the pipeline."""
    if "pipeline_spec" in body:
        document = body["pipeline_spec"]
    else:
        version = body["pipeline_version_reference"]["pipeline_version_id"]
        pipeline, platform = yaml.safe_load_all(packages[version])
        document = {"pipeline_spec": pipeline, "platform_spec": platform}
    spec = json_format.ParseDict(document["pipeline_spec"], pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(document["platform_spec"], pipeline_spec_pb2.PlatformSpec())
    given = body["runtime_config"]["parameters"]
    wanted = spec.root.input_definitions.parameters
    for name, parameter in wanted.items():
        has_default = parameter.is_optional or parameter.HasField("default_value")
        if name not in given and not has_default:
            raise Refused(400, f"parameter {name} is missing")
    for name, value in given.items():
        if name not in wanted:
            raise Refused(400, f"parameter {name} is unknown")
        kind = pipeline_spec_pb2.ParameterType.ParameterTypeEnum.Name(wanted[name].parameter_type)
        if not isinstance(value, _KINDS[kind]):
            raise Refused(400, f"parameter {name} is no {kind}: {value!r}")


class _Handler(BaseHTTPRequestHandler):
    state: State

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_DELETE = do_GET

    def _serve(self) -> None:
        url = urlparse(self.path)
        self._query = {name: values[0] for name, values in parse_qs(url.query).items()}
        length = int(self.headers.get("Content-Length") or 0)
        self._raw = self.rfile.read(length)
        if self.state.login:
            return self._send(200, "text/html", b"<html>Log in</html>")
        try:
            if self.state.token and self.headers.get("Authorization") != f"Bearer {self.state.token}":
                raise Refused(401, "Unauthenticated")
            if not url.path.startswith(_PREFIX):
                raise Refused(404, "Not Found")
            status, answer = 200, self._answer(self.command, url.path.removeprefix(_PREFIX).split("/"))
        except Refused as refused:
            status, answer = refused.status, {"message": str(refused)}
        self._send(status, "application/json", json.dumps(answer).encode())

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, verb: str, path: list[str]) -> Body:
        state = self.state
        match verb, path:
            case "GET", ["healthz"]:
                return {"multi_user": state.multi_user}
            case "GET", ["experiments" | "pipelines" as shelf]:
                return {shelf: self._found(getattr(state, shelf))}
            case "GET", ["pipelines", pipeline, "versions"]:
                mine = [version for version in state.versions if version["pipeline_id"] == pipeline]
                found = self._found(mine)
                if self._query.get("sort_by") == "created_at desc":
                    found = found[::-1]
                return {"pipeline_versions": found[: int(self._query.get("page_size", 10))]}
            case "GET", ["pipelines", _, "versions", version] if not state.versions_hidden:
                (kept,) = [kept for kept in state.versions if kept["pipeline_version_id"] == version]
                pipeline, platform = yaml.safe_load_all(state.packages[version])
                return kept | {"pipeline_spec": {"pipeline_spec": pipeline, "platform_spec": platform}}
            case "GET", ["recurringruns"]:
                return {"recurringRuns": self._found(state.schedules)}
            case "GET", ["runs", run]:
                if state.failures:
                    raise Refused(state.failures.pop(0), "for a moment")
                now = state.states.pop(0) if len(state.states) > 1 else state.states[0]
                return {"run_id": run} | now
            case "POST", ["experiments"]:
                return state.add("experiments", "experiment_id", self._body("V2beta1Experiment"))
            case "POST", ["pipelines"]:
                return state.add("pipelines", "pipeline_id", self._body("V2beta1Pipeline"))
            case "POST", ["pipelines", "upload_version"]:
                return self._upload()
            case "POST", ["runs"]:
                return state.add("runs", "run_id", self._order("V2beta1Run"))
            case "POST", ["recurringruns"]:
                return state.add("schedules", "recurring_run_id", self._order("V2beta1RecurringRun"))
            case "DELETE", ["recurringruns", schedule]:
                state.schedules[:] = [kept for kept in state.schedules if kept["recurring_run_id"] != schedule]
                return {}
        raise Refused(404, f"{verb} {'/'.join(path)}")

    def _found(self, things: list[Body]) -> list[Body]:
        if self.state.multi_user and "versions" not in self.path and not self._query.get("namespace"):
            raise Refused(400, "namespace is empty")
        predicates = json.loads(self._query.get("filter") or "{}").get("predicates", [])
        for predicate in predicates:
            assert predicate["operation"] in (1, "EQUALS")  # the enum in JSON, either way
            assert predicate["key"] == "display_name"
        names = {predicate["stringValue"] for predicate in predicates}
        return [thing for thing in things if not names or thing["display_name"] in names]

    def _body(self, model: str) -> Body:
        assert self.headers["Content-Type"] == "application/json"
        body: Body = json.loads(self._raw)
        check_model(body, model)
        if self.state.multi_user and model != "V2beta1Run" and "namespace" not in body:
            raise Refused(400, "namespace is empty")
        return body

    def _order(self, model: str) -> Body:
        body: Body = json.loads(self._raw)
        check_model(body, model)
        if body["experiment_id"] not in [kept["experiment_id"] for kept in self.state.experiments]:
            raise Refused(404, "no such experiment")
        check_order(body, self.state.packages)
        return body

    def _upload(self) -> Body:
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        message = BytesParser(EmailMessage).parsebytes(head + self._raw)
        (part,) = message.iter_parts()  # type: ignore[attr-defined]
        text = part.get_payload(decode=True).decode()
        pipeline, platform = yaml.safe_load_all(text)
        json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec())
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
        wanted = {"display_name": self._query["name"], "pipeline_id": self._query["pipelineid"]}
        wanted["description"] = self._query.get("description", "")
        made = self.state.add("versions", "pipeline_version_id", wanted)
        self.state.packages[made["pipeline_version_id"]] = text
        return made


class KubeflowServer:
    """The server, running until it is closed; with a certificate's PEM file (key included) it speaks TLS."""

    def __init__(self, certificate: Path | None = None, address: str = "127.0.0.1") -> None:
        self.state = State()
        handler = type("Handler", (_Handler,), {"state": self.state})
        self._http = ThreadingHTTPServer((address, 0), handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://{address}:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
