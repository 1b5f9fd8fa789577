"""A chat service on a real socket that behaves as it is told, and notes when it was asked what.

No real service makes faults at will; everything but the answers' content is real: sockets, HTTP, time.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.paper_prompt import Scores, write

GOOD = write(Scores(3, 5, 6, 7))
_BLOCK = 1 << 16


@dataclass
class Asked:
    """One request as the server saw it."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    content: bytes
    number: int

    @property
    def body(self) -> dict[str, Any]:
        """The request's JSON."""
        return json.loads(self.content)

    @property
    def prompt(self) -> str:
        """The text of its first message."""
        return self.body["messages"][0]["content"]


@dataclass
class Reaction:
    """What the server does: after `delay` seconds it sends a response; or it breaks off, drips, or says nothing."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    reset_after: int | None = None  # bytes of the body, then the connection is reset
    drip: float | None = None  # seconds between two bytes of the body
    hang: bool = False


def completion(
    text: Any = GOOD, *, finish: str = "stop", prompt_tokens: int = 100, tokens: int = 30, **message: Any
) -> Any:
    """The body of a chat completion."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    choice["message"] |= {key: value for key, value in message.items() if key != "logprobs"}
    if "logprobs" in message:
        choice["logprobs"] = {"content": message["logprobs"]}
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens, "total_tokens": prompt_tokens + tokens}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage}


def error(message: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    """The body of an error, in OpenAI's form."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": code} | more}


class Server:
    """Use it as a context manager, again after its end too: at the same port, with what was asked before.

    `behave` gets each request and says what to do. To a question for its models it answers by `on_models`; that is no
    request.
    """

    def __init__(self, behave: Callable[[Asked], Reaction] | None = None, address: str = "127.0.0.1") -> None:
        self._address, self.port = address, 0
        self.behave = behave or (lambda asked: Reaction(completion()))
        self.on_models = Reaction({"object": "list", "data": [{"id": "m", "object": "model"}]})
        self.asked: list[Asked] = []
        self.most_at_once = self._at_once = self.connections = 0

    def __enter__(self) -> Server:
        ready: threading.Event = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main(ready)), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        """What a client calls `base_url`."""
        return f"http://{self._address}:{self.port}/v1"

    async def _main(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, self._address, self.port, backlog=1024)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (asked := await self._read(reader)) is not None:
                if asked.method == "GET" and asked.path.endswith("/models"):
                    await self._react(self.on_models, writer)
                    continue
                self.asked.append(asked)
                self._at_once += 1
                self.most_at_once = max(self.most_at_once, self._at_once)
                try:
                    if not await self._react(self.behave(asked), writer):
                        return
                finally:
                    self._at_once -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Asked | None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        return Asked(time.monotonic(), method, path, headers, content, len(self.asked))

    async def _react(self, reaction: Reaction, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection stays."""
        await asyncio.sleep(reaction.delay)
        if reaction.hang:
            await asyncio.sleep(3600)
        body = reaction.body if isinstance(reaction.body, bytes) else json.dumps(reaction.body).encode()
        head = f"HTTP/1.1 {reaction.status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in reaction.headers.items())
        writer.write(head.encode() + b"\r\n")
        if reaction.reset_after is not None:
            writer.write(body[: reaction.reset_after])
            await writer.drain()
            # No farewell: the client sees a reset, not an end.
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
            return False
        if reaction.drip is not None:
            for octet in body:
                writer.write(bytes([octet]))
                await writer.drain()
                await asyncio.sleep(reaction.drip)
        else:
            for start in range(0, len(body), _BLOCK):  # a large body is not copied as a whole
                writer.write(body[start : start + _BLOCK])
                await writer.drain()
        await writer.drain()
        return True


def most_within(times: list[float], seconds: float, weights: list[float] | None = None) -> float:
    """The largest sum of weights (1 each by default) in any window of `seconds`, ends included."""
    weights = weights or [1.0] * len(times)
    best = total = 0.0
    start = 0
    for end, at in enumerate(times):
        total += weights[end]
        while times[start] < at - seconds:
            total -= weights[start]
            start += 1
        best = max(best, total)
    return best


def hostile(seed: int = 0, *, share: float = 0.5) -> Callable[[Asked], Reaction]:
    """A service that answers `share` of its requests well and the others with every fault there is."""
    chance = random.Random(seed)
    faults: list[Callable[[], Reaction]] = [
        lambda: Reaction(error("slow down"), 429, {"retry-after": "0.2"}),
        lambda: Reaction(error("slow down"), 429),
        lambda: Reaction(error("boom"), 500),
        lambda: Reaction(b"<html>overloaded</html>", 503),
        lambda: Reaction(completion(), reset_after=20),
        lambda: Reaction(hang=True),
        lambda: Reaction(b""),
        lambda: Reaction(b'{"choices": ['),
        lambda: Reaction({"object": "nothing of use"}),
        lambda: Reaction(completion(), drip=0.05),
        lambda: Reaction(completion("", refusal="I will not.")),
        lambda: Reaction(completion('{"Rarity": 3}')),
        lambda: Reaction(completion('{"Rarity": 3, "Compl', finish="length")),
        lambda: Reaction(error("the content was filtered", "content_filter"), 400),
        lambda: Reaction(error("this model's maximum context length is 10", "context_length_exceeded"), 400),
    ]
    return lambda asked: Reaction(completion()) if chance.random() < share else chance.choice(faults)()


class Till:
    """A service that charges for its answers, with an account of its own: whatever it begins to answer is charged.

    Args:
        prompt, cached, answer, reasoning: tokens of each request and answer, in truth; `answer` may depend on how many
            were answered before. Cached tokens are a part of the prompt's, reasoning is beside the answer.
        usage: what it says of them; by default as OpenAI does, with the reasoning as a part of the answer.
        text: of the answer; may depend on the number of answers, this one included.
        delay: seconds that an answer takes.
        prices: for 1,000,000 tokens: input, cached input, output, reasoning.
    """

    def __init__(
        self,
        *,
        prompt: int = 100,
        cached: int = 0,
        answer: int | Callable[[int], int] = 30,
        reasoning: int = 0,
        usage: Callable[[Till, int], Any] | None = None,
        text: str | Callable[[int], str] = GOOD,
        delay: float = 0.01,
        prices: tuple[float, float, float, float] = (1.0, 1.0, 4.0, 4.0),
    ) -> None:
        self.prompt, self.cached, self.reasoning = prompt, cached, reasoning
        self._answer, self._usage, self._text, self._delay, self._prices = answer, usage, text, delay, prices
        self.charged, self.answers = 0.0, 0

    def price_of(self, answer: int) -> float:
        """What an answer of so many tokens costs."""
        amounts = (self.prompt - self.cached, self.cached, answer, self.reasoning)
        return sum(amount * price for amount, price in zip(amounts, self._prices, strict=True)) / 1e6

    @property
    def settings(self) -> dict[str, float]:
        """Its prices, as Tamis is told them."""
        return dict(zip(("input", "cached_input", "output", "reasoning"), self._prices, strict=True))

    def sell(self) -> Any:
        """Charge for an answer, and give it."""
        answer = self._answer(self.answers) if callable(self._answer) else self._answer
        self.charged += self.price_of(answer)
        self.answers += 1
        body = completion(self._text if isinstance(self._text, str) else self._text(self.answers))
        body["usage"] = self._usage(self, answer) if self._usage else self.said(answer)
        return body

    def said(self, answer: int) -> dict[str, Any]:
        """The usage that OpenAI would show."""
        whole = answer + self.reasoning
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": whole,
            "total_tokens": self.prompt + whole,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning},
        }

    def __call__(self, asked: Asked) -> Reaction:
        return Reaction(self.sell(), delay=self._delay)
