"""Runs on a Kubeflow Pipelines server, through Kubeflow's own client: submit, upload, schedule, follow."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tamis
from tamis.core.errors import InputError, TamisError

log = logging.getLogger(__name__)
NEWEST = "newest"
_FINISHED = frozenset({"SUCCEEDED", "FAILED", "SKIPPED", "CANCELED"})
_QUIET_SECONDS = 300.0  # how long a server may be away while a run is followed


class KubeflowError(TamisError):
    """The Kubeflow server cannot be reached, refuses, or a run on it failed."""

    code = "kubeflow"


@dataclass(frozen=True)
class Server:
    """Where Kubeflow Pipelines answers.

    `namespace` is the user's profile on servers with several users; empty elsewhere. `token` goes into the header
    `Authorization: Bearer …`. `ca_file` is a CA bundle for a private certificate.
    """

    host: str
    namespace: str = ""
    token: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:  # without the token
        return f"Server({self.host}, namespace={self.namespace or None})"


@dataclass(frozen=True)
class Order:
    """What is asked of the server for one run, or for every run of a schedule.

    Either `package` (a compiled pipeline's file) or `version` (name of an uploaded version of `pipeline`, or "newest").
    `constants` are the settings of pods that are compiled into the package; `workflow` says how large the run becomes.
    """

    pipeline: str
    arguments: dict[str, Any]
    name: str
    experiment: str
    package: Path | None = None
    version: str = ""
    service_account: str = ""
    root: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    workflow: str = ""


@dataclass(frozen=True)
class Made:
    """Something that the server made: its id, and its page in the UI."""

    id: str
    url: str


def check_time(cron: str, every: int) -> None:
    """Refuse a schedule without one clear time.

    Raises:
        InputError: when neither or both are given, or `cron` has not six fields.
    """
    if bool(cron) == bool(every):
        raise InputError("a schedule needs a time", allowed="one of --cron and --every")
    if cron and len(cron.split()) != 6 and not cron.startswith("@"):
        raise InputError(
            f"--cron '{cron}': {len(cron.split())} fields",
            allowed="six fields: second minute hour day month weekday, as in '0 0 3 * * *' for 3 o'clock every day",
        )


class Kubeflow:
    """A connection to a server."""

    def __init__(self, server: Server) -> None:
        """Connect.

        Raises:
            KubeflowError: when no server is named, it does not answer, or it refuses.
        """
        if not server.host:
            raise KubeflowError(
                "no Kubeflow server is named",
                allowed="--host https://…/pipeline, or KF_PIPELINES_ENDPOINT in the environment",
                action="without an ingress: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then "
                "--host http://127.0.0.1:8080",
            )
        if not re.match(r"https?://", server.host):
            raise KubeflowError(f"--host {server.host}: no scheme in it", allowed="http://… or https://…")
        if server.ca_file and not Path(server.ca_file).is_file():
            raise KubeflowError(f"no CA bundle at {server.ca_file}", action="check --ca-file")
        self.server = server
        several_users = self._greet()
        if several_users and not server.namespace:
            raise KubeflowError(
                f"{server.host} has a namespace per user, and none is given", allowed="--namespace NAME of your profile"
            )
        with self._explained("connecting"), warnings.catch_warnings(), _kfp_silenced():
            # kfp says at every start which servers it is for; the greeting has shown that this is one.
            warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
            from kfp import Client

            self._client = Client(
                host=server.host,
                namespace=server.namespace or "kubeflow",
                existing_token=server.token or None,
                ssl_ca_cert=server.ca_file or None,
            )

    def _greet(self) -> bool:
        """Ask for the server's health once; kfp's own client would ask five times. Returns: has it several users?"""
        import kfp_server_api

        configuration = kfp_server_api.Configuration(host=self.server.host.rstrip("/"))
        configuration.retries = 0
        configuration.ssl_ca_cert = self.server.ca_file or None
        if self.server.token:
            configuration.api_key = {"authorization": self.server.token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        with self._explained("asking for its health"), kfp_server_api.ApiClient(configuration) as client:
            service = kfp_server_api.HealthzServiceApi(client)
            response = service.healthz_service_get_healthz(_preload_content=False, _request_timeout=30)
            body = response.data
        try:
            health = json.loads(body)
            return bool(health.get("multi_user", False))
        except (ValueError, AttributeError):
            raise KubeflowError(
                f"{self.server.host} answers with a page that is no answer of Kubeflow Pipelines",
                action="it may want a login: give a token (TAMIS_KUBEFLOW_TOKEN or --token-file); or the address lacks "
                "its path, as in https://kubeflow.example/pipeline",
            ) from None

    def upload(self, pipeline: str, package: Path, version: str = "") -> tuple[str, Made]:
        """Upload a package as a version of `pipeline`, which is made if it is not there.

        Args:
            pipeline: the pipeline's name on the server.
            package: the compiled package.
            version: the version's name; made from the package's content if empty, so that an unchanged package is
                uploaded once.

        Returns:
            The version's name, and what was made or found.

        Raises:
            KubeflowError: when there is a version of this name that is not known to have the package's content.
        """
        import kfp_server_api

        content = hashlib.sha256(package.read_bytes()).hexdigest()
        name, about = version or f"{tamis.__version__}-{content[:12]}", f"package with the SHA-256 {content}"
        with self._explained(f"uploading {pipeline}"), _kfp_silenced():
            found = self._pipeline_id(pipeline)
            if found is not None and (there := self._version(found, name)) is not None:
                if version and there.description != about:
                    raise KubeflowError(
                        f"{pipeline} has a version '{name}' already, which is not known to be this package",
                        allowed="a version keeps its content, for runs and schedules name it",
                        action="choose another --version, or leave it out: the content then makes the name",
                    )
                log.info("%s: the version %s is there already", pipeline, name)
                return name, self._made_version(there.pipeline_version_id, found)
            if found is None:
                wanted = kfp_server_api.V2beta1Pipeline(
                    name=pipeline, display_name=pipeline, namespace=self.server.namespace or None
                )
                found = self._client.pipelines.pipeline_service_create_pipeline(wanted).pipeline_id
            made = self._client.upload_pipeline_version(str(package), name, pipeline_id=found, description=about)
        return name, self._made_version(made.pipeline_version_id, found)

    def submit(self, order: Order) -> Made:
        """Start one run."""
        with self._explained(f"submitting {order.name}"), _kfp_silenced():
            run = self._client.run_pipeline(job_name=order.name, **self._what(order))
        return self._made(run.run_id, f"runs/details/{run.run_id}")

    def schedule(
        self, order: Order, *, cron: str = "", every: int = 0, at_once: int = 1, replace: bool = False
    ) -> Made:
        """Start a run again and again.

        Args:
            order: what each run is.
            cron: six fields, seconds first.
            every: seconds between two starts, instead of `cron`.
            at_once: most runs at the same time.
            replace: take the place of schedules of the same name; otherwise they are an error.

        Raises:
            InputError: when the time is not clear, as `check_time` says.
            KubeflowError: when the server does not answer or refuses, or there is such a schedule.
        """
        check_time(cron, every)
        with self._explained(f"scheduling {order.name}"), _kfp_silenced():
            earlier = self._schedules(order.name)
            if earlier and not replace:
                raise KubeflowError(
                    f"there is a schedule called '{order.name}' already", action="choose another --name, or --replace"
                )
            made = self._client.create_recurring_run(
                job_name=order.name,
                cron_expression=cron or None,
                interval_second=every or None,
                max_concurrency=at_once,
                no_catchup=True,
                **self._what(order),
            )
            for old in earlier:
                self._client.delete_recurring_run(old)
        return self._made(made.recurring_run_id, f"recurringrun/details/{made.recurring_run_id}")

    def follow(self, run: Made, say: Callable[[str], None], *, every: float = 10.0, timeout: float = 0.0) -> None:
        """Wait for the end of a run and say when its steps change.

        Args:
            run: what `submit` returned.
            say: takes one line at a time.
            every: seconds between two looks.
            timeout: seconds to wait; 0: as long as it takes.

        Raises:
            KubeflowError: when the run does not succeed, with the failed steps' words, or the time is up. The run goes
                on when this stops waiting.
        """
        began = heard = time.monotonic()
        seen: dict[str, str] = {}
        while True:
            try:
                with self._explained("asking how the run is"), _kfp_silenced():
                    answer = self._client.get_run(run.id)
                heard = time.monotonic()
                for line in _changes(answer, seen):
                    say(line)
                if answer.state in _FINISHED:
                    return self._judge(answer, run)
            except KubeflowError as error:
                away = isinstance(error, _Away) and time.monotonic() - heard < _QUIET_SECONDS
                if not away:
                    raise
                log.warning("%s; asking again", error.problem)
            if timeout and time.monotonic() - began > timeout:
                raise KubeflowError(f"the run has not ended after {timeout:g} s", action=f"it goes on: {run.url}")
            time.sleep(every)

    def _judge(self, answer: Any, run: Made) -> None:
        if answer.state == "SUCCEEDED":
            return
        details = (answer.run_details.task_details if answer.run_details else None) or []
        failed = [f"{task.display_name}: {_words(task.error)}" for task in details if task.state == "FAILED"]
        reasons = failed or [_words(answer.error)]
        raise KubeflowError(
            f"the run ended as {answer.state}:\n  " + "\n  ".join(reasons),
            action=f"read the failed step's log at {run.url}; submitted again, finished steps are reused",
        )

    def _what(self, order: Order) -> dict[str, Any]:
        """The arguments of kfp's client that run and schedule share."""
        pipeline_id = version_id = None
        if order.package is None:
            pipeline_id, version_id = self._uploaded(order.pipeline, order.version)
        experiment = self._client.create_experiment(order.experiment, namespace=self.server.namespace or None)
        return {
            "experiment_id": experiment.experiment_id,
            "pipeline_package_path": str(order.package) if order.package else None,
            "params": order.arguments,
            "pipeline_id": pipeline_id,
            "version_id": version_id,
            "pipeline_root": order.root or None,
            "service_account": order.service_account or None,
        }

    def _uploaded(self, pipeline: str, version: str) -> tuple[str, str]:
        pipeline_id = self._pipeline_id(pipeline)
        if pipeline_id is None:
            raise KubeflowError(f"the server has no pipeline '{pipeline}'", action="tamis upload, then again")
        found = self._version(pipeline_id, "" if version == NEWEST else version)
        if found is None:
            raise KubeflowError(
                f"the pipeline '{pipeline}' has no version '{version}'",
                action="tamis upload; or --uploaded newest for the newest version",
            )
        return pipeline_id, found.pipeline_version_id

    def _pipeline_id(self, name: str) -> str | None:
        found = self._client.list_pipelines(namespace=self.server.namespace or None, filter=_called(name)).pipelines
        return found[0].pipeline_id if found else None

    def _version(self, pipeline_id: str, name: str) -> Any:
        """The version called `name`, or the newest if that is empty; None if there is none."""
        found = self._client.list_pipeline_versions(
            pipeline_id, page_size=1, sort_by="created_at desc", filter=_called(name) if name else None
        ).pipeline_versions
        return found[0] if found else None

    def _schedules(self, name: str) -> list[str]:
        found = self._client.list_recurring_runs(namespace=self.server.namespace or None, filter=_called(name))
        return [schedule.recurring_run_id for schedule in found.recurring_runs or []]

    def _made_version(self, version: str, pipeline: str) -> Made:
        return self._made(version, f"pipelines/details/{pipeline}/version/{version}")

    def _made(self, made: str, page: str) -> Made:
        return Made(made, f"{self.server.host.rstrip('/')}/#/{page}")

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn what the client raises into errors that say what to do."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        host = self.server.host
        try:
            yield
        except ApiException as error:
            raise _refusal(error, host, doing, self.server) from None
        except HTTPError as error:
            cause = getattr(error, "reason", None) or error
            if "certificate" in str(cause).lower():
                raise KubeflowError(
                    f"{host}: its certificate is not trusted ({cause})", action="give its CA bundle by --ca-file"
                ) from None
            raise _Away(
                f"{host} does not answer ({type(cause).__name__})",
                action="check the address, the network and the port-forward: "
                "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80",
            ) from None


class _Away(KubeflowError):
    """The server does not answer now; it may later."""


def _refusal(error: Any, host: str, doing: str, server: Server) -> KubeflowError:
    try:
        body = json.loads(error.body)
        said = str(body.get("message") or body.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        said = str(error.reason)
    seen = f"{host}, {doing}: {error.status or 'no answer'} {said[:1000]}".rstrip()
    if error.status == 0 and "certificate" in said.lower():
        return KubeflowError(seen, action="give the CA bundle of its certificate by --ca-file")
    if error.status == 401:
        state = "the token was not accepted" if server.token else "no token was given"
        return KubeflowError(f"{seen} ({state})", action="put a fresh one into TAMIS_KUBEFLOW_TOKEN or --token-file")
    if error.status == 403:
        return KubeflowError(seen, action=f"ask for the right to use the namespace '{server.namespace or 'kubeflow'}'")
    if error.status == 404:
        return KubeflowError(seen, action="check the address: it ends where the UI of Kubeflow Pipelines begins")
    if error.status in (0, 429) or (error.status or 0) >= 500:
        return _Away(seen, action="look at the log of the server: kubectl -n kubeflow logs deploy/ml-pipeline")
    return KubeflowError(seen, action="correct what the server names")


def _called(name: str) -> str:
    """The server's filter for things with this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _changes(answer: Any, seen: dict[str, str]) -> Iterator[str]:
    """A line for every step, and the run, whose state is new; `seen` holds the states of the last time."""
    details = (answer.run_details.task_details if answer.run_details else None) or []
    for task in sorted(details, key=lambda task: (str(task.start_time or ""), task.task_id)):
        name, state = task.display_name or "", task.state or ""
        drivers = name.endswith(("-driver", "-drivers")) or name in ("", "executor")
        if state and not drivers and seen.get(task.task_id) != state:
            seen[task.task_id] = state
            why = f": {_words(task.error)}" if state == "FAILED" else ""
            yield f"{name}: {state.lower()}{why}"
    if answer.state and seen.get("") != answer.state:
        seen[""] = answer.state
        yield f"run: {answer.state.lower()}"


def _words(status: Any) -> str:
    return (status.message if status is not None and status.message else "no reason given").strip()


@contextlib.contextmanager
def _kfp_silenced() -> Iterator[None]:
    """kfp prints links of its own form; ours say the same once."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
