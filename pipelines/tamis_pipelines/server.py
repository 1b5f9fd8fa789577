"""A connection to a Kubeflow Pipelines server, whose errors say what to do."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamis.core.errors import MissingExtraError, TamisError
from tamis.core.texts import printable

_SECONDS = 60  # until a request is given up
_MAY_PASS = frozenset({0, 429, 500, 502, 503, 504})  # statuses of a server that may answer later


class KubeflowError(TamisError):
    """The Kubeflow server cannot be reached, refuses, or does not have what is asked for.

    `status` is that of the server's HTTP answer: 0 if it does not answer, None if it was not asked. The error is not
    permanent if the server may answer later; a gateway answers 404 while the server starts.
    """

    code = "kubeflow"
    permanent = True
    status: int | None = None

    def __init__(self, problem: str, *, allowed: str = "", action: str = "", status: int | None = None) -> None:
        self.status = status
        super().__init__(problem, allowed=allowed, action=action, permanent=not (self.away or self.missing))

    @property
    def away(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in _MAY_PASS

    @property
    def missing(self) -> bool:
        """Whether the server does not know the address or the object."""
        return self.status == 404


@dataclass(frozen=True)
class Server:
    """The address of Kubeflow Pipelines, and how to log in.

    `namespace` is the user's profile on servers with several users; empty elsewhere. `token` goes into the header
    `Authorization: Bearer …`. `ca_file` is a CA bundle for a private certificate.
    """

    host: str
    namespace: str = ""
    token: str = ""
    ca_file: str = ""

    def __repr__(self) -> str:  # without the token
        return f"Server({self.host}, namespace={self.namespace or None})"


class Connection:
    """A connection to a server.

    Attributes:
        server: the address.
        health: what the server says about itself: `tag_name`, `multi_user`, `pipeline_store`.
    """

    def __init__(self, server: Server) -> None:
        """Connect.

        Raises:
            KubeflowError: when the address is wrong, the server does not answer, or it refuses.
            MissingExtraError: when Kubeflow's client is not installed.
        """
        try:
            import kfp_server_api
        except ModuleNotFoundError:
            raise MissingExtraError.of("kfp", "kubeflow") from None
        _check(server)
        configuration = kfp_server_api.Configuration(host=server.host.rstrip("/"))
        configuration.retries = 0  # kfp's own client would ask five times
        configuration.ssl_ca_cert = server.ca_file or None
        if server.token:
            configuration.api_key = {"authorization": server.token}
            configuration.api_key_prefix = {"authorization": "Bearer"}
        self.server = server
        self._api = kfp_server_api.ApiClient(configuration)
        self.health = self.request("GET", "/apis/v2beta1/healthz", doing="asking for its health")
        if self.health.get("multi_user") and not server.namespace:
            raise KubeflowError(
                f"{server.host} has a namespace for each user, and none is given",
                allowed="--namespace NAME of your profile",
            )

    @functools.cached_property
    def client(self) -> Any:
        """Kubeflow's own client, for what it does better than a plain request."""
        with self.explained("connecting"), warnings.catch_warnings(), kfp_silenced():
            # kfp says at every start which servers it is for; the answer about the health shows that this is one.
            warnings.filterwarnings("ignore", message="This client only works with", category=FutureWarning)
            from kfp import Client

            return Client(
                host=self.server.host,
                namespace=self.server.namespace or "kubeflow",
                existing_token=self.server.token or None,
                ssl_ca_cert=self.server.ca_file or None,
            )

    def request(self, verb: str, path: str, query: Mapping[str, str] | None = None, *, doing: str) -> dict[str, Any]:
        """Send one request and return its answer, as JSON.

        The answers of runs are not parsed into the client's classes: those refuse what a newer server adds.

        Args:
            verb: GET or POST.
            path: the path below the server's address, as in `/apis/v2beta1/runs`.
            query: the query's fields; empty values are left out.
            doing: what the request is for; part of errors.

        Raises:
            KubeflowError: when the server does not answer, refuses, or answers with something other than a JSON object.
        """
        fields = [(name, value) for name, value in (query or {}).items() if value]
        with self.explained(doing):
            answer = self._api.call_api(
                path,
                verb,
                query_params=fields,
                header_params={"Accept": "application/json"},
                response_type="object",
                auth_settings=["Bearer"],
                _return_http_data_only=True,
                _request_timeout=_SECONDS,
            )
        if not isinstance(answer, dict):
            raise KubeflowError(
                f"{self.server.host} answers with a page that is not an answer of Kubeflow Pipelines",
                action="if this is a login page, give a token (TAMIS_KUBEFLOW_TOKEN or --token-file); otherwise check "
                "that the address has its path, as in https://kubeflow.example/pipeline",
            )
        return answer

    def page(self, path: str) -> str:
        """The address of a page in the UI."""
        return f"{self.server.host.rstrip('/')}/#/{path}"

    @contextlib.contextmanager
    def explained(self, doing: str) -> Iterator[None]:
        """Turn what a client raises into errors that say what to do."""
        from kfp_server_api import ApiException
        from urllib3.exceptions import HTTPError

        host = self.server.host
        try:
            yield
        except ApiException as error:
            raise _refusal(error, doing, self.server) from None
        except HTTPError as error:
            cause = getattr(error, "reason", None) or error
            if "certificate" in str(cause).lower():
                raise KubeflowError(
                    f"{host}: its certificate is not trusted ({cause})", action="give its CA bundle with --ca-file"
                ) from None
            raise KubeflowError(
                f"{host} does not answer ({type(cause).__name__})",
                action="check the address, the network and the port-forward: "
                "kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80",
                status=0,
            ) from None


def _check(server: Server) -> None:
    if not server.host:
        raise KubeflowError(
            "no address of a Kubeflow server is given",
            allowed="--host https://…/pipeline, or KF_PIPELINES_ENDPOINT in the environment",
            action="without an ingress: kubectl -n kubeflow port-forward svc/ml-pipeline-ui 8080:80, then "
            "--host http://127.0.0.1:8080",
        )
    if not re.match(r"https?://", server.host):
        raise KubeflowError(f"--host {server.host} has no scheme", allowed="http://… or https://…")
    if server.ca_file and not Path(server.ca_file).is_file():
        raise KubeflowError(f"no CA bundle at {server.ca_file}", action="check --ca-file")


def _refusal(error: Any, doing: str, server: Server) -> KubeflowError:
    try:
        body = json.loads(error.body)
        said = str(body.get("message") or body.get("error") or error.reason)
    except (TypeError, ValueError, AttributeError):
        said = str(error.reason)
    seen = f"{server.host}, {doing}: {error.status or 'no answer'} {printable(said[:1000])}".rstrip()
    action, status = "correct what the server names", error.status or 0
    if status == 0 and "certificate" in said.lower():
        return KubeflowError(seen, action="give the CA bundle of its certificate with --ca-file")
    if status == 401:
        seen += f" ({'the token was not accepted' if server.token else 'no token was given'})"
        action = "put a valid one into TAMIS_KUBEFLOW_TOKEN or --token-file"
    elif status == 403:
        action = f"ask for permission to use the namespace '{server.namespace or 'kubeflow'}'"
    elif status == 404:
        action = "check the address: it is that of the UI of Kubeflow Pipelines up to '#', as in "
        action += "https://kubeflow.example/pipeline"
    elif status in _MAY_PASS:
        action = "read the server's log: kubectl -n kubeflow logs deploy/ml-pipeline"
    return KubeflowError(seen, action=action, status=status)


def called(name: str) -> str:
    """The server's filter for objects with this name."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


@contextlib.contextmanager
def kfp_silenced() -> Iterator[None]:
    """Suppress the links that kfp prints; Tamis prints its own."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
