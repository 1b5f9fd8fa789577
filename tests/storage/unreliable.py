"""A proxy in front of a storage server that fails some requests and can vanish; the other answers are the server's."""

from __future__ import annotations

import asyncio
import re
import threading

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
_EXPECT = re.compile(rb"\r\nexpect: *100-continue", re.I)
_FAULTS = ("unavailable", "error", "reset", "answer lost", "answer cut off")


class Unreliable:
    """Use it as a context manager. One request in `every` fails, in five ways in turn; in two of them the deed is done.

    `requests`, `failed` and `written` (uploads that went well) are counts. While it is gone, connections are refused,
    and those that were open are reset.
    """

    def __init__(self, port: int, every: int) -> None:
        self._upstream, self._every = port, every
        self.requests = self.failed = self.written = 0
        self._port = 0
        self._writers: set[asyncio.StreamWriter] = set()

    def __enter__(self) -> Unreliable:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.come_back()
        return self

    def __exit__(self, *_: object) -> None:
        self.vanish()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    @property
    def endpoint(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def vanish(self) -> None:
        """Be gone."""
        asyncio.run_coroutine_threadsafe(self._vanish(), self._loop).result(10)

    def come_back(self) -> None:
        """Be there, at the same port as before."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)

    async def _vanish(self) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if _EXPECT.search(head):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            await self._react(_EXPECT.sub(b"", head), body, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _react(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        fault = None
        if self.requests % self._every == 0:
            fault = _FAULTS[self.failed % len(_FAULTS)]
            self.failed += 1
        if fault in ("unavailable", "error"):
            status = b"503 Slow Down" if fault == "unavailable" else b"500 Internal Server Error"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
            return
        answer = b"" if fault == "reset" else await self._forward(head, body)
        if fault is not None:
            writer.write(answer[: len(answer) // 2] if fault == "answer cut off" else b"")
            writer.transport.abort()
            return
        writer.write(answer)
        await writer.drain()
        self.written += head.startswith(b"PUT ") and answer.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 201 "))

    async def _forward(self, head: bytes, body: bytes) -> bytes:
        """The server's answer; the server ends it by closing the connection."""
        first, _, rest = head.partition(b"\r\n")
        reader, writer = await asyncio.open_connection("127.0.0.1", self._upstream)
        try:
            writer.write(first + b"\r\nConnection: close\r\n" + rest + body)
            return await reader.read(-1)
        finally:
            writer.close()
