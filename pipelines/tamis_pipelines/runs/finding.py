"""Finding and stopping a run by its id, its name, or as the newest."""

from __future__ import annotations

import re

from tamis_pipelines.server import Connection, KubeflowError, called

NEWEST = "newest"
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def find(connection: Connection, run: str, experiment: str) -> str:
    """Return the id of a run.

    Args:
        connection: the server.
        run: its id; its name, of which the newest run counts; or "newest".
        experiment: Kubeflow's group of runs in which names and the newest run are looked up, so that nobody stops the
            run of somebody else by accident.

    Raises:
        KubeflowError: when there is no such run, or the server does not answer.
    """
    if _ID.fullmatch(run):
        return run
    query = {"page_size": "1", "sort_by": "created_at desc"} | ({"filter": called(run)} if run != NEWEST else {})
    group = _experiment(connection, experiment)
    found = connection.request(
        "GET", "/apis/v2beta1/runs", query | {"experiment_id": group}, doing="looking for the run"
    ).get("runs")
    if not found:
        what = "no run" if run == NEWEST else f"no run called '{run}'"
        raise KubeflowError(
            f"{what} in the experiment '{experiment}'",
            allowed="a run's id, its name, or newest",
            action="if the run is in another experiment, name it with --experiment",
        )
    return str(found[0]["run_id"])


def _experiment(connection: Connection, name: str) -> str:
    query = {"namespace": connection.server.namespace, "filter": called(name)}
    answer = connection.request("GET", "/apis/v2beta1/experiments", query, doing="looking for the experiment")
    for experiment in answer.get("experiments") or []:
        if experiment.get("display_name") == name:
            return str(experiment["experiment_id"])
    raise KubeflowError(f"the server has no experiment '{name}'", action="name the run's experiment with --experiment")


def stop(connection: Connection, run_id: str) -> None:
    """Ask the server to stop a run. The run ends some seconds later.

    Raises:
        KubeflowError: when the server does not answer or refuses.
    """
    connection.request("POST", f"/apis/v2beta1/runs/{run_id}:terminate", doing=f"stopping the run {run_id}")
