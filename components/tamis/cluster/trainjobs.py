"""TrainJobs of Kubeflow Trainer: created, followed to their end, removed."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tamis.cluster.following import TAIL, Body, Failure, Logs, Seen, container_of, ended_as, failure_of, message
from tamis.core.errors import MissingExtraError, SettingsError, StoppedError, TamisError
from tamis.core.processes import ended_in_order

log = logging.getLogger(__name__)
GROUP, VERSION, PLURAL = "trainer.kubeflow.org", "v1alpha1", "trainjobs"
ORDER = "tamis.dev/order"  # annotation: hash of what a TrainJob is for
_OF_JOB = "jobset.sigs.k8s.io/jobset-name"  # label of a TrainJob's pods; a TrainJob's JobSet bears its name
_QUIET_SECONDS = 300.0  # how long the API server may be away
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class TrainJobError(TamisError):
    """A TrainJob failed, or cannot be created. Permanent where another one would fail in the same way."""

    code = "train-job"
    permanent = False


class TrainJobs:
    """The TrainJobs of a namespace. The cluster is that of the kubeconfig, or that of the pod that this runs in.

    Args:
        namespace: of the TrainJob; if empty, that of the context or of this pod.
        context: of the kubeconfig; if empty, its current context.
        say: receives progress, one line at a time, from several threads.
        every: seconds between two checks.

    Raises:
        MissingExtraError: when Kubernetes' client is not installed.
        SettingsError: when no cluster is configured.
    """

    def __init__(
        self, namespace: str = "", *, context: str = "", say: Callable[[str], None] = log.info, every: float = 5.0
    ) -> None:
        try:
            from kubernetes import client, config
        except ModuleNotFoundError:
            raise MissingExtraError.of("kubernetes", "kubeflow") from None
        configuration = client.Configuration()
        try:
            if "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ and not context:
                config.load_incluster_config(client_configuration=configuration)
                own = (_ACCOUNT / "namespace").read_text().strip()
            else:
                file = os.environ.get("KUBECONFIG")
                config.load_kube_config(file, context or None, client_configuration=configuration)
                contexts, current = config.list_kube_config_contexts(file)
                chosen = next((one for one in contexts if one["name"] == context), current)
                own = chosen["context"].get("namespace", "default")
        except (config.ConfigException, OSError) as error:
            raise SettingsError(
                f"no cluster is configured: {str(error).splitlines()[0]}",
                allowed="a kubeconfig (KUBECONFIG, or ~/.kube/config) with this context, or a pod with an account",
            ) from None
        if not configuration.verify_ssl:
            _warn_once(configuration.host)
        self.namespace, self._say, self._every = namespace or own, say, every
        self._api = client.ApiClient(configuration)
        self._objects, self._core = client.CustomObjectsApi(self._api), client.CoreV1Api(self._api)

    def run(self, job: Body, *, keep: bool = False, timeout: float = 0.0) -> None:
        """Create a TrainJob, show its first node's log, and return when it is complete.

        An existing TrainJob of the same name and purpose is followed instead; if it has failed, it is replaced. The
        TrainJob is removed at the end, also after an error, SIGTERM and Ctrl-C.

        Args:
            job: the TrainJob, with its name and the annotation `ORDER`.
            keep: leave it in the cluster.
            timeout: seconds to wait; 0: no limit.

        Raises:
            TrainJobError: when it fails, with the failed pods' last messages, or cannot be created.
            StoppedError: when somebody else removes it, the cluster does not answer, or the time is up.
        """
        name = job["metadata"]["name"]
        with ended_in_order():
            mine = True  # also a TrainJob that is being created when a signal arrives
            try:
                try:
                    self._make(job)
                except TamisError:
                    mine = False
                    raise
                self._follow(name, timeout)
            finally:
                if mine and keep:
                    self._say(f"TrainJob {name} is kept: kubectl -n {self.namespace} delete trainjob {name}")
                elif mine:
                    self._remove(name)

    def _make(self, job: Body) -> None:
        name = job["metadata"]["name"]
        there = self._get(name)
        if there is not None and _order(there) != _order(job):
            raise TrainJobError(
                f"the TrainJob {self.namespace}/{name} exists already and trains with other settings or inputs",
                action=f"choose another --name, or kubectl -n {self.namespace} delete trainjob {name}",
                permanent=True,
            )
        if there is not None and "deletionTimestamp" not in there["metadata"] and ended_as(there) != "Failed":
            self._say(f"TrainJob {name} exists already and is followed")
            return
        if there is not None:
            self._say(f"TrainJob {name} has failed or is being removed; it is created again")
            self._remove(name, wait=True)
        with self._explained(f"creating the TrainJob {name}"):
            self._objects.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, job)
        self._say(f"TrainJob {name} is created in the namespace {self.namespace}")

    def _get(self, name: str) -> Body | None:
        from kubernetes.client import ApiException

        with self._explained(f"looking for the TrainJob {name}"):
            try:
                found: Body = self._objects.get_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, name)
            except ApiException as error:
                if error.status == 404 and name in str(error.body):
                    return None
                raise
        return found

    def _pods(self, name: str) -> list[Any]:
        with self._explained("looking for its pods"):
            found: list[Any] = self._core.list_namespaced_pod(
                self.namespace, label_selector=f"{_OF_JOB}={name}", _request_timeout=60
            ).items
        return found

    def _follow(self, name: str, timeout: float) -> None:
        began = heard = time.monotonic()
        seen, shown = Seen(), Logs(self._log, self._say)
        try:
            while True:
                try:
                    job, pods = self._get(name), self._pods(name)
                except StoppedError as error:
                    if time.monotonic() - heard > _QUIET_SECONDS:
                        raise
                    log.warning("%s; asking again", error.problem)
                    time.sleep(self._every)
                    continue
                heard = time.monotonic()
                if job is None:
                    raise StoppedError(
                        f"somebody else removed the TrainJob {self.namespace}/{name}",
                        action="start again; the training continues from its last checkpoint",
                    )
                for line in seen.news(job, pods):
                    self._say(line)
                self._remember_failures(seen, pods)
                shown.follow(pods)
                if (end := ended_as(job)) is not None:
                    return self._judge(name, end, job, seen)
                if timeout and time.monotonic() - began > timeout:
                    raise StoppedError(
                        f"the TrainJob {name} has not ended after {timeout:g} s", action="raise --timeout"
                    )
                time.sleep(self._every)
        finally:
            shown.stop()

    def _remember_failures(self, seen: Seen, pods: list[Any]) -> None:
        for pod in pods:
            if pod.metadata.name not in seen.failures and (failure := failure_of(pod)) is not None:
                seen.failures[pod.metadata.name] = failure if failure.words else self._tail(pod, failure)

    def _tail(self, pod: Any, failure: Failure) -> Failure:
        """The failure with the end of the pod's log, where that can be had."""
        with contextlib.suppress(TamisError), self._explained("reading its log"):
            failure.words = self._core.read_namespaced_pod_log(
                pod.metadata.name, self.namespace, container=container_of(pod), tail_lines=TAIL, _request_timeout=30
            ).strip()
        return failure

    def _judge(self, name: str, end: str, job: Body, seen: Seen) -> None:
        if end == "Complete":
            return
        words = "".join(f"\n  {one}" for one in seen.last_words())
        raise TrainJobError(
            f"the TrainJob {self.namespace}/{name} failed: {message(job, end)}{words}",
            action="fix the cause and start again; the training continues from its last checkpoint",
            permanent=seen.is_permanent(),
        )

    def _log(self, pod: Any, since: float | None) -> Iterator[str]:
        """Lines of a pod's log with their times, of the last `since` seconds and until the connection ends."""
        more = {} if since is None else {"since_seconds": int(since) + 1}
        with self._explained("reading its log"):
            response = self._core.read_namespaced_pod_log(
                pod.metadata.name,
                self.namespace,
                container=container_of(pod),
                follow=True,
                timestamps=True,
                _preload_content=False,
                _request_timeout=(30, 3600),
                **more,
            )
            rest = b""
            for block in response.stream(amt=None):
                *lines, rest = (rest + block).split(b"\n")
                yield from (line.decode(errors="replace") for line in lines)
            if rest:
                yield rest.decode(errors="replace")

    def _remove(self, name: str, *, wait: bool = False) -> None:
        """Remove a TrainJob. With `wait`, return when it and its pods are gone. A failure is only logged."""
        from kubernetes.client import ApiException

        try:
            with self._explained(f"removing the TrainJob {name}"):
                try:
                    self._objects.delete_namespaced_custom_object(
                        GROUP, VERSION, self.namespace, PLURAL, name, propagation_policy="Foreground"
                    )  # its pods go first
                except ApiException as error:
                    if error.status != 404:
                        raise
            give_up = time.monotonic() + 60
            while wait and self._get(name) is not None and time.monotonic() < give_up:
                time.sleep(min(1.0, self._every))
        except TamisError as error:
            log.error("%s; remove it with: kubectl -n %s delete trainjob %s", error.problem, self.namespace, name)

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        """Turn the client's errors into errors of Tamis."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        host = self._api.configuration.host
        try:
            yield
        except ApiException as error:
            raise self._refusal(error, doing) from None
        except HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise StoppedError(
                f"{host} does not answer while {doing} ({type(cause).__name__})", action="check the cluster"
            ) from None

    def _refusal(self, error: Any, doing: str) -> TamisError:
        said = str(error.body or error.reason)[:1000]
        if error.status == 404:
            return TrainJobError(
                f"{doing}: the cluster has no TrainJobs ({GROUP}/{VERSION}), or no namespace {self.namespace}",
                action="install Kubeflow Trainer 2, or correct --namespace",
                permanent=True,
            )
        if error.status in (401, 403):
            return TrainJobError(
                f"{doing}: {error.status} {said}",
                action="the account needs create, get and delete of trainjobs, list of pods, get of pods/log "
                "(chart: trainer.enabled; manifests: components/kubeflow-trainer)",
                permanent=True,
            )
        if error.status == 429 or (error.status or 500) >= 500:
            return StoppedError(f"{doing}: {error.status} {said}", action="start again")
        return TrainJobError(f"{doing}: {error.status} {said}", action="correct what the server names", permanent=True)


def _warn_once(host: str) -> None:
    """Warn of a kubeconfig with `insecure-skip-tls-verify`; urllib3 would do so at every request."""
    import urllib3

    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    log.warning("the certificate of %s is not verified, because the kubeconfig says insecure-skip-tls-verify", host)


def _order(job: Body) -> str:
    return str(job["metadata"].get("annotations", {}).get(ORDER, ""))
