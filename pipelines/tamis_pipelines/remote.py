"""Starting runs on a Kubeflow Pipelines server, through Kubeflow's own client: submit, upload, schedule."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tamis
from tamis.core.errors import InputError
from tamis_pipelines.server import Connection, KubeflowError, Server, called, kfp_silenced
from tamis_pipelines.uploaded import UnknownPackageError, check_uploaded

log = logging.getLogger(__name__)
NEWEST = "newest"


@dataclass(frozen=True)
class Order:
    """What to run: one run, or every run of a schedule.

    Attributes:
        pipeline: the pipeline's name.
        arguments: the run's parameters.
        name: the run's name.
        experiment: Kubeflow's group for the run.
        package: the pipeline compiled for this run.
        version: name of an uploaded version of `pipeline`, or "newest", which runs instead of `package`.
        upload: the command that uploads such a version for this run.
        service_account: of the pods; empty: the server's.
        root: where artifacts go; empty: the server's place.
        constants: the settings of pods that are compiled into the package.
        compiled: the other settings that are compiled into it (`CompileSettings`).
        workflow: how large the run becomes, in words.
        costs: what the run may spend on services, in words.
    """

    pipeline: str
    arguments: dict[str, Any]
    name: str
    experiment: str
    package: Path
    version: str = ""
    upload: str = ""
    service_account: str = ""
    root: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)
    compiled: Mapping[str, Any] = field(default_factory=dict)
    workflow: str = ""
    costs: str = ""


@dataclass(frozen=True)
class Made:
    """An object that the server made: its id, and its page in the UI."""

    id: str
    url: str


def check_time(cron: str, every: int) -> None:
    """Check that a schedule has exactly one time.

    Raises:
        InputError: when neither or both are given, or `cron` does not have six fields.
    """
    if bool(cron) == bool(every):
        raise InputError("a schedule needs one time", allowed="either --cron or --every")
    if cron and len(cron.split()) != 6 and not cron.startswith("@"):
        raise InputError(
            f"--cron '{cron}': {len(cron.split())} fields",
            allowed="six fields: second minute hour day month weekday, as in '0 0 3 * * *' for 3 o'clock every day",
        )


class Kubeflow:
    """Starts runs on a server."""

    def __init__(self, server: Server) -> None:
        """Connect.

        Raises:
            KubeflowError: when the address is wrong, the server does not answer, or it refuses.
        """
        self.connection = Connection(server)
        self.server = server
        self._client = self.connection.client

    def upload(self, pipeline: str, package: Path, version: str = "") -> tuple[str, Made]:
        """Upload a package as a version of `pipeline`, and create the pipeline if it does not exist.

        Args:
            pipeline: the pipeline's name on the server.
            package: the compiled package.
            version: the version's name. If empty, the package's content gives the name, and an unchanged package is
                not uploaded again.

        Returns:
            The version's name and page.

        Raises:
            KubeflowError: when a version of this name exists that may have other content.
        """
        import kfp_server_api

        content = hashlib.sha256(package.read_bytes()).hexdigest()
        name, about = version or f"{tamis.__version__}-{content[:12]}", f"package with the SHA-256 {content}"
        with self.connection.explained(f"uploading {pipeline}"), kfp_silenced():
            found = self._pipeline_id(pipeline)
            if found is not None and (there := self._version(found, name)) is not None:
                if version and there.description != about:
                    raise KubeflowError(
                        f"{pipeline} already has a version '{name}', which may have other content than this package",
                        allowed="a version never changes, because runs and schedules refer to it",
                        action="choose another --version, or leave it out to let the content give the name",
                    )
                log.info("%s: the version %s is already on the server", pipeline, name)
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
        with self.connection.explained(f"submitting {order.name}"), kfp_silenced():
            run = self._client.run_pipeline(job_name=order.name, **self._what(order))
        return self._made(run.run_id, f"runs/details/{run.run_id}")

    def schedule(
        self, order: Order, *, cron: str = "", every: int = 0, at_once: int = 1, replace: bool = False
    ) -> Made:
        """Create a schedule, which starts a run again and again.

        Args:
            order: what to run.
            cron: six fields, seconds first.
            every: seconds between two starts, instead of `cron`.
            at_once: the largest number of runs at the same time.
            replace: replace schedules of the same name. Otherwise they are an error.

        Raises:
            InputError: as `check_time` does.
            KubeflowError: when the server does not answer or refuses, or a schedule of this name exists.
        """
        check_time(cron, every)
        with self.connection.explained(f"scheduling {order.name}"), kfp_silenced():
            earlier = self._schedules(order.name)
            if earlier and not replace:
                raise KubeflowError(
                    f"a schedule called '{order.name}' already exists", action="choose another --name, or use --replace"
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

    def _what(self, order: Order) -> dict[str, Any]:
        """The arguments of kfp's client for a run and for a schedule."""
        pipeline_id = version_id = None
        if order.version:
            pipeline_id, version_id = self._uploaded(order.pipeline, order.version)
            self._compare(order, pipeline_id, version_id)
        experiment = self._client.create_experiment(order.experiment, namespace=self.server.namespace or None)
        return {
            "experiment_id": experiment.experiment_id,
            "pipeline_package_path": None if order.version else str(order.package),
            "params": order.arguments,
            "pipeline_id": pipeline_id,
            "version_id": version_id,
            "pipeline_root": order.root or None,
            "service_account": order.service_account or None,
        }

    def _uploaded(self, pipeline: str, version: str) -> tuple[str, str]:
        pipeline_id = self._pipeline_id(pipeline)
        if pipeline_id is None:
            raise KubeflowError(f"the server has no pipeline '{pipeline}'", action="run tamis upload first")
        found = self._version(pipeline_id, "" if version == NEWEST else version)
        if found is None:
            raise KubeflowError(
                f"the pipeline '{pipeline}' has no version '{version}'",
                action="run tamis upload, or use --uploaded newest",
            )
        return pipeline_id, found.pipeline_version_id

    def _compare(self, order: Order, pipeline: str, version: str) -> None:
        """Check that the uploaded package is one for this run; if the server does not return it, say so."""
        what = f"the version '{order.version}' of {order.pipeline}"
        path = f"/apis/v2beta1/pipelines/{pipeline}/versions/{version}"
        try:
            found = self.connection.request("GET", path, doing="reading an uploaded version")
            check_uploaded(found.get("pipeline_spec"), order.package, what=what, upload=order.upload)
        except (KubeflowError, UnknownPackageError) as error:
            log.warning(
                "%s cannot be read, so it is not compared with the settings of this run: %s. It must come from: %s",
                what,
                getattr(error, "problem", error),
                order.upload,
            )

    def _pipeline_id(self, name: str) -> str | None:
        found = self._client.list_pipelines(namespace=self.server.namespace or None, filter=called(name)).pipelines
        return found[0].pipeline_id if found else None

    def _version(self, pipeline_id: str, name: str) -> Any:
        """The version called `name`, or the newest if that is empty; None if there is none."""
        found = self._client.list_pipeline_versions(
            pipeline_id, page_size=1, sort_by="created_at desc", filter=called(name) if name else None
        ).pipeline_versions
        return found[0] if found else None

    def _schedules(self, name: str) -> list[str]:
        found = self._client.list_recurring_runs(namespace=self.server.namespace or None, filter=called(name))
        return [schedule.recurring_run_id for schedule in found.recurring_runs or []]

    def _made_version(self, version: str, pipeline: str) -> Made:
        return self._made(version, f"pipelines/details/{pipeline}/version/{version}")

    def _made(self, made: str, page: str) -> Made:
        return Made(made, self.connection.page(page))
