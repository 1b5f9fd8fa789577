"""A server that replays over HTTP what a real Kubeflow Pipelines server answered; it runs nothing."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse

from tamis_pipelines.runs.reading import read
from tamis_pipelines.runs.run import Run
from tamis_pipelines.runs.text import progress_of
from tamis_pipelines.server import Connection, Server
from tests.recordings import recorded

# What users never see: names of what Kubeflow wraps around steps.
WRAPPERS = re.compile(
    r"\(\d+(:\d+)?\)|-driver\b|\bexecutor\b|\biteration|for-loop|exit-handler|onExit|\broot\b|no reason given"
)
Body = dict[str, Any]


@dataclass
class Case:
    """The answers of one run. Tests change what the server can say.

    Attributes:
        name: the recording's name.
        at: the time of the last change that the server knows, as in `startedAt`; None: the end.
        v1beta1: the status with which the old interface answers; other servers than 2.17 may not have it.
        manifest: whether it has the workflow's manifest.
        packed: pack the nodes, or unpack them; None: as recorded.
        errors: words that a newer server puts into `error` of v2beta1's tasks, by display name ("" for the run).
        schedule: the id of the schedule that has started it.
        later: times that `at` takes, one at every question for the run.
    """

    name: str
    at: str | None = None
    v1beta1: int = 200
    manifest: bool = True
    packed: bool | None = None
    errors: dict[str, str] = field(default_factory=dict)
    later: list[str | None] = field(default_factory=list)
    schedule: str = ""
    stopped: bool = False

    def __post_init__(self) -> None:
        self._v2, self._v1 = recorded(self.name, "v2beta1"), recorded(self.name, "v1beta1")

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self._v2[-1]["run"]["run_id"])

    @property
    def display_name(self) -> str:
        """The run's name."""
        return str(self._v2[-1]["run"]["display_name"])

    def workflow(self) -> Body:
        """The whole workflow, its nodes unpacked."""
        manifest: Body = json.loads(self._v1["pipeline_runtime"]["workflow_manifest"])
        if packed := manifest["status"].pop("compressedNodes", ""):
            manifest["status"]["nodes"] = json.loads(gzip.decompress(base64.b64decode(packed)))
        return manifest

    def times(self) -> list[str]:
        """Every time at which a node started or finished, in order."""
        nodes = self.workflow()["status"]["nodes"].values()
        return sorted({node[when] for node in nodes for when in ("startedAt", "finishedAt") if node.get(when)})

    def v2beta1(self) -> Body:
        """The answer of `GET /apis/v2beta1/runs/{id}` at the time `at`."""
        run = copy.deepcopy(self._v2[-1]["run"]) | ({"recurring_run_id": self.schedule} if self.schedule else {})
        for task in run["run_details"]["task_details"]:
            if task.get("display_name", "") in self.errors and task["state"] == "FAILED":
                task["error"] = {"code": 2, "message": self.errors[task.get("display_name", "")]}
        if "" in self.errors:
            run["error"] = {"code": 2, "message": self.errors[""]}
        if self.at is not None and self.at < run["finished_at"]:
            seen = [change for change in run["state_history"] if change["update_time"] <= self.at]
            run |= {"state": (seen or run["state_history"])[-1]["state"], "state_history": seen}
            run["run_details"]["task_details"] = [
                self._until(task, self.at) for task in run["run_details"]["task_details"]
                if task.get("start_time", "9") <= self.at
            ]  # fmt: skip
            del run["finished_at"]
        return run

    @staticmethod
    def _until(task: Body, at: str) -> Body:
        if task.get("end_time", "9") > at:
            task = {name: value for name, value in task.items() if name != "end_time"} | {"state": "RUNNING"}
        return task

    def v1beta1_answer(self) -> Body:
        """The answer of `GET /apis/v1beta1/runs/{id}` at the time `at`."""
        answer = copy.deepcopy(self._v1)
        if not self.manifest:
            answer["pipeline_runtime"] = {}
            return answer
        workflow, packed = self.workflow(), "compressedNodes" in answer["pipeline_runtime"]["workflow_manifest"]
        status = workflow["status"]
        if self.at is not None and self.at < status["finishedAt"]:
            nodes = {key: cut(node, self.at) for key, node in status["nodes"].items() if node["startedAt"] <= self.at}
            workflow["status"] = status = {"phase": "Running", "startedAt": status["startedAt"], "nodes": nodes}
        if packed if self.packed is None else self.packed:
            nodes = gzip.compress(json.dumps(status.pop("nodes")).encode())
            status["compressedNodes"] = base64.b64encode(nodes).decode()
        answer["pipeline_runtime"]["workflow_manifest"] = json.dumps(workflow)
        return answer


def cut(node: Body, at: str) -> Body:
    """A node as it was at a time: what had not finished by then is running and says nothing yet."""
    finished = node.get("finishedAt")
    if finished is not None and finished <= at:
        return node
    gone = ("finishedAt", "message", "outputs", "progress")
    return {name: value for name, value in node.items() if name not in gone} | {"phase": "Running"}


class _Handler(BaseHTTPRequestHandler):
    server: _Http

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        url = urlparse(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        answer = self._answer(self.command, url.path, query)
        status, body = (200, answer) if answer is not None else (404, {"message": "not found"})
        if "/v1beta1/runs/" in url.path:
            status = next((case.v1beta1 for run_id, case in self.server.cases.items() if run_id in url.path), 404)
        if status != 200:
            body = {"message": "refused by the test"}
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET

    def _answer(self, verb: str, path: str, query: dict[str, str]) -> Body | None:
        cases = self.server.cases
        match verb, path.strip("/").split("/"):
            case "GET", ["apis", "v2beta1", "healthz"]:
                return self.server.health
            case "GET", ["apis", "v2beta1", "experiments"]:
                return {"experiments": [{"experiment_id": "exp-1", "display_name": "tamis"}]}
            case "GET", ["apis", "v2beta1", "recurringruns"]:
                found = [{"recurring_run_id": "schedule-1", "display_name": "nightly"}]
                return {"recurringRuns": [one for one in found if one["display_name"] in query.get("filter", "")]}
            case "GET", ["apis", "v2beta1", "runs"]:
                return {"runs": _listed(cases, query)}
            case "GET", ["apis", "v2beta1", "runs", run_id] if run_id in cases:
                case = cases[run_id]
                if case.later:
                    case.at = case.later.pop(0)
                return case.v2beta1()
            case "GET", ["apis", "v1beta1", "runs", run_id] if run_id in cases:
                return cases[run_id].v1beta1_answer()
            case "POST", ["apis", "v2beta1", "runs", action] if action.endswith(":terminate"):
                cases[action.removesuffix(":terminate")].stopped = True
                return {}
        return None


def _listed(cases: dict[str, Case], query: dict[str, str]) -> list[Body]:
    predicates = json.loads(query.get("filter") or "{}").get("predicates", [])
    names = {predicate["stringValue"] for predicate in predicates if predicate["key"] == "display_name"}
    found = [case.v2beta1() for case in cases.values() if not names or case.display_name in names]
    found.sort(key=lambda run: str(run["created_at"]), reverse=query.get("sort_by") == "created_at desc")
    return found[: int(query.get("page_size") or 20)]


class _Http(ThreadingHTTPServer):
    cases: dict[str, Case]
    health: Body
    asked: list[str]


class RecordedServer:
    """The server, running until it is closed."""

    def __init__(self, *cases: Case) -> None:
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.cases = {case.run_id: case for case in cases}
        self._http.asked = []
        self._http.health = {"tag_name": "2.17.0", "multi_user": False, "pipeline_store": "database"}
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def asked(self) -> list[str]:
        """Every request, as in "GET /apis/…"."""
        return self._http.asked

    @property
    def health(self) -> Body:
        """The answer about the server's health; tests change it."""
        return self._http.health

    def know(self, *cases: Case) -> None:
        """Know these runs, and no others."""
        self._http.cases = {case.run_id: case for case in cases}

    def close(self) -> None:
        """Stop."""
        self._http.shutdown()
        self._http.server_close()


Serve = Callable[..., tuple[Case, RecordedServer]]


def look(case: Case, server: RecordedServer) -> Run:
    """The run of a case as Tamis reads it now."""
    return read(Connection(Server(server.url)), case.run_id)


def progress(run: Run) -> dict[str, str]:
    """The progress of each step by its title."""
    return {step.title: progress_of(step) for step in run.steps}


def without_pods(screen: str) -> str:
    """A screen without the lines for logs: names of pods have those of Kubeflow's templates in them."""
    return "\n".join(line for line in screen.splitlines() if not line.startswith(("    log:     ", "    stored:  ")))
