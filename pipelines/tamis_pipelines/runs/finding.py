"""Finding and stopping a run by its id, its name, or as the newest."""

from __future__ import annotations

import re
from typing import Any

from tamis_pipelines.runs.run import WAYS_TO_NAME
from tamis_pipelines.server import Connection, KubeflowError, called

NEWEST = "newest"
_LOOKED_AT = 20  # newest runs among which that of a schedule is looked for; each comes with its pipeline
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find(connection: Connection, run: str, experiment: str) -> str:
    """Return the id of a run.

    Args:
        connection: the server.
        run: its id; its name, or that of its schedule, for the newest run with that name; or "newest".
        experiment: Kubeflow's group of runs in which names and the newest run are looked up, so that nobody stops the
            run of somebody else by accident.

    Raises:
        KubeflowError: when there is no such run, or the server does not answer.
    """
    if _ID.fullmatch(run):
        return run
    group = _experiment(connection, experiment)
    found = _newest(connection, group, 1, "" if run == NEWEST else called(run))
    if not found and run != NEWEST and (schedules := _schedules(connection, run)):
        # The name of a scheduled run is made from that of its schedule, in a way that differs between versions.
        found = [one for one in _newest(connection, group, _LOOKED_AT) if one.get("recurring_run_id") in schedules]
    if not found:
        what = "no run" if run == NEWEST else f"no run called '{run}'"
        raise KubeflowError(
            f"{what} in the experiment '{experiment}'",
            allowed=WAYS_TO_NAME,
            action="if the run is in another experiment, name it with --experiment",
        )
    return str(found[0]["run_id"])


def _newest(connection: Connection, experiment_id: str, number: int, condition: str = "") -> list[dict[str, Any]]:
    """The newest runs of an experiment that satisfy a condition, newest first."""
    query = {"page_size": str(number), "sort_by": "created_at desc"}
    query |= {"filter": condition, "experiment_id": experiment_id}
    found: list[dict[str, Any]] = connection.request(
        "GET", "/apis/v2beta1/runs", query, doing="looking for the run"
    ).get("runs", [])
    return found


def _schedules(connection: Connection, name: str) -> set[str]:
    """The ids of the schedules with this name."""
    query = {"namespace": connection.server.namespace, "filter": called(name)}
    answer = connection.request("GET", "/apis/v2beta1/recurringruns", query, doing="looking for the schedule")
    return {str(one.get("recurring_run_id")) for one in answer.get("recurringRuns") or []}


def _experiment(connection: Connection, name: str) -> str:
    query = {"namespace": connection.server.namespace, "filter": called(name)}
    answer = connection.request("GET", "/apis/v2beta1/experiments", query, doing="looking for the experiment")
    for experiment in answer.get("experiments") or []:
        if experiment.get("display_name") == name:
            return str(experiment["experiment_id"])
    raise KubeflowError(
        f"the server has no experiment '{name}'",
        action="check --experiment; tamis submit puts runs into the experiment 'tamis' unless it is given another",
    )


def stop(connection: Connection, run_id: str) -> None:
    """Ask the server to stop a run. The run ends some seconds later.

    Raises:
        KubeflowError: when the server does not answer or refuses.
    """
    connection.request("POST", f"/apis/v2beta1/runs/{run_id}:terminate", doing=f"stopping the run {run_id}")
