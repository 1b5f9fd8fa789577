"""A proxy before a storage server that makes the faults which a healthy server does not."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class Proxy:
    """Passes requests on to `endpoint`; a context manager.

    `refusals` answers are 503 SlowDown before the first one is passed on. `cuts` bodies of answers break off in the
    middle. `spoil` changes the bodies of answers.
    """

    def __init__(
        self, endpoint: str, *, refusals: int = 0, cuts: int = 0, spoil: Callable[[bytes], bytes] = lambda body: body
    ) -> None:
        self.refused = self.cut = 0
        host = urlparse(endpoint).netloc
        outer, lock = self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                with lock:
                    refuse = outer.refused < refusals
                    outer.refused += refuse
                if refuse:
                    self._answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                    return
                server = http.client.HTTPConnection(host, timeout=60)
                server.request(self.command, self.path, body, dict(self.headers.items()))
                answer = server.getresponse()
                self._answer(answer.status, dict(answer.getheaders()), spoil(answer.read()))
                server.close()

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers.items():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command == "HEAD":
                    return
                with lock:
                    half = len(body) > 1 and outer.cut < cuts and self.command == "GET"
                    outer.cut += half
                self.wfile.write(body[: len(body) // 2] if half else body)
                self.close_connection |= half

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
