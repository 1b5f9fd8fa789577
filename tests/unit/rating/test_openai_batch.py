"""The Batch API, against a local server with its files, states and errors, over real HTTP."""

from __future__ import annotations

import email.parser
import email.policy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import ModelError
from tamis.core.llm.backends.journal import Journal
from tamis.core.settings import parse
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import GOOD, Asked, Reaction, Server, completion, error

pytest.importorskip("openai")


class BatchService:
    """Files and batches as the public description has them; a batch is done when it has been looked at twice.

    `fate` says what becomes of an item: "ok", "expired", "content_filter", "server_error" or "lost". As Azure, it has
    other paths, and reads a file before it takes a batch of it.
    """

    def __init__(self, *, azure: bool = False) -> None:
        self.azure, self.being_read = azure, set[str]()
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.answered: Counter[str] = Counter()
        self.fate = lambda item: "ok"
        self.refuse_after: int | None = None  # batches; then the process that asks is to die
        self.failing: dict[str, Any] | None = None
        self.at_once_most = 10
        self.lose_creation = False
        self.text = GOOD

    def __call__(self, asked: Asked) -> Reaction:
        path, _, query = asked.path.partition("?")
        if self.azure and (asked.headers.get("api-key"), query) != ("k", "api-version=2024-10-21"):
            return Reaction(error("who are you?"), 401)
        path = path.removeprefix("/openai" if self.azure else "/v1")
        if (asked.method, path) == ("POST", "/files"):
            name = self._file(self._uploaded(asked))
            self.being_read |= {name} if self.azure else set()
            return self._described(name)
        if (asked.method, path.rpartition("/")[0]) == ("GET", "/files"):
            self.being_read.discard(path.rpartition("/")[2])
            return self._described(path.rpartition("/")[2])
        if (asked.method, path) == ("POST", "/batches"):
            return self._create(asked.body)
        if (asked.method, path) == ("GET", "/batches"):
            found = list(self.batches.values())[::-1]
            return Reaction({"object": "list", "data": [self._public(one) for one in found], "has_more": False})
        if path.startswith("/batches/"):
            return self._look(path.rpartition("/")[2])
        if path.startswith("/files/") and path.endswith("/content"):
            return Reaction(self.files[path.split("/")[2]])
        return Reaction(error("no such path"), 404)

    @property
    def _endpoint(self) -> str:
        return "/chat/completions" if self.azure else "/v1/chat/completions"

    def _uploaded(self, asked: Asked) -> bytes:
        head = f"Content-Type: {asked.headers['content-type']}\r\n\r\n".encode()
        form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + asked.content)
        parts = {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
        assert parts["purpose"].get_payload() == "batch"
        return parts["file"].get_payload(decode=True)

    def _described(self, name: str) -> Reaction:
        status = "pending" if name in self.being_read else "processed"
        return Reaction({"id": name, "object": "file", "purpose": "batch", "status": status})

    def _file(self, content: bytes) -> str:
        name = f"file-{len(self.files)}"
        self.files[name] = content
        return name

    def _create(self, body: dict[str, Any]) -> Reaction:
        assert (body["endpoint"], body["completion_window"]) == (self._endpoint, "24h")
        if body["input_file_id"] in self.being_read:
            return Reaction(error("Only files with status 'Processed' are accepted"), 400)
        if self.refuse_after is not None and len(self.batches) >= self.refuse_after:
            return Reaction(error("bad key"), 401)
        open_now = sum(batch["status"] == "in_progress" for batch in self.batches.values())
        batch = {"id": f"batch-{len(self.batches)}", "status": "in_progress", "looks": 0, **body}
        self.batches[batch["id"]] = batch
        if self.failing or open_now >= self.at_once_most:
            batch["status"] = "failed"
            fault = self.failing or {"code": "token_limit_exceeded", "message": "too much is queued"}
            batch["errors"] = {"object": "list", "data": [fault]}
        if self.lose_creation:
            return Reaction(error("bad key"), 401)  # it exists, but nobody hears of it
        return Reaction(self._public(batch))

    def _look(self, name: str) -> Reaction:
        batch = self.batches[name]
        batch["looks"] += 1
        if batch["status"] == "in_progress" and batch["looks"] >= 2:
            self._finish(batch)
        return Reaction(self._public(batch))

    def _finish(self, batch: dict[str, Any]) -> None:
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        assert len({line["custom_id"] for line in lines}) == len(lines)
        good, bad = [], []
        for line in reversed(lines):  # in any order
            assert (line["method"], line["url"], line["body"]["model"]) == ("POST", self._endpoint, "m")
            item, fate = line["custom_id"], self.fate(line["custom_id"])
            if fate == "ok":
                self.answered[item] += 1
                reply = {"status_code": 200, "request_id": "r", "body": completion(self.text)}
                good.append({"id": "x", "custom_id": item, "response": reply, "error": None})
            elif fate == "expired":
                fault = {"code": "batch_expired", "message": "This request could not be executed in time."}
                bad.append({"id": "x", "custom_id": item, "response": None, "error": fault})
            elif fate != "lost":
                status = 400 if fate == "content_filter" else 500
                reply = {"status_code": status, "request_id": "r", "body": error(fate, fate)}
                bad.append({"id": "x", "custom_id": item, "response": reply, "error": None})
        for key, rows in (("output_file_id", good), ("error_file_id", bad)):
            batch[key] = self._file("\n".join(map(json.dumps, rows)).encode()) if rows else None
        batch["status"] = "expired" if any("batch_expired" in json.dumps(row) for row in bad) else "completed"

    def _public(self, batch: dict[str, Any]) -> dict[str, Any]:
        hidden = {"looks"}
        return {"object": "batch", "created_at": 0} | {key: value for key, value in batch.items() if key not in hidden}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(25)])


def rate(server: Server, pool: Path, out: str, **own: Any) -> Manifest:
    backend = {"kind": "openai-batch", "model": "m", "base_url": server.url, "api_key_env": None, "poll": 0.02}
    backend |= {"batch_requests": 10, "tries": 1} | own.pop("backend", {})
    values = {"name": "mini", "backend": backend, "store": str(pool.parent / "store")} | own
    return run(parse(RatingSettings, values, where="here"), pool=pool, out=pool.parent / out)


def journal(pool: Path) -> list[str]:
    (folder,) = (pool.parent / "store").glob("*-journal")
    return [entry.state for entry in Journal(folder).read()]


def test_a_pool_goes_through_in_batches_of_so_many_requests(pool: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        manifest = rate(server, pool, "out")
    assert manifest.facts["ok"] == 25
    sizes = [len(service.files[batch["input_file_id"]].splitlines()) for batch in service.batches.values()]
    assert sizes == [10, 10, 5]
    assert journal(pool) == ["ended"] * 3
    ids = Artifact.open(pool.parent / "out", "ratings").table(["id"])["id"].to_pylist()
    assert ids == Artifact.open(pool).table(["id"])["id"].to_pylist()


def test_on_azure_a_batch_waits_until_its_file_has_been_read(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_KEY", "k")
    service = BatchService(azure=True)
    with Server(service) as server:
        azure = {"api_version": "2024-10-21", "deployment": "m"}
        own = {"base_url": server.url.removesuffix("/v1"), "azure": azure, "api_key_env": "AZURE_KEY", "model": "mini"}
        assert rate(server, pool, "out", backend=own).facts["ok"] == 25
    assert set(service.answered.values()) == {1}


def test_no_batch_has_more_bytes_than_it_may(pool: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        rate(server, pool, "out", backend={"batch_requests": 50_000, "batch_bytes": 20_000})
    sizes = [len(service.files[batch["input_file_id"]]) for batch in service.batches.values()]
    assert len(sizes) > 2
    assert max(sizes) <= 20_000
    assert sum(service.answered.values()) == 25


def test_what_succeeded_is_kept_and_only_the_rest_is_asked_again(pool: Path) -> None:
    service = BatchService()
    fates = iter(["ok", "expired", "ok", "server_error", "lost"] * 4 + ["content_filter"] + ["ok"] * 4)
    service.fate = lambda item: next(fates)
    with Server(service) as server:
        first = rate(server, pool, "out", max_failure_share=1.0)
        facts = first.facts
        assert (facts["ok"], facts["failed"], facts["refused"]) == (12, 12, 1)
        kinds = ("batch ended", "server error")
        assert [facts["errors"][f"failed: {kind}"] for kind in kinds] == [8, 4]
        service.fate = lambda item: "ok"
        second = rate(server, pool, "again")
    assert (second.facts["ok"], second.facts["refused"], second.facts["reused"]) == (24, 1, 13)
    assert set(service.answered.values()) == {1}


@pytest.mark.parametrize("lost", [False, True])
def test_a_run_that_ended_between_two_steps_goes_on_and_pays_nothing_twice(pool: Path, lost: bool) -> None:
    """The third batch cannot be created, or was created unheard of; the first two are at work."""
    service = BatchService()
    service.refuse_after, service.lose_creation = (None, False) if lost else (2, False)
    with Server(service) as server:
        if lost:
            service.lose_creation = True
        with pytest.raises(ModelError, match="unauthorised"):
            rate(server, pool, "out")
        assert sorted(journal(pool)) == (["uploaded"] if lost else ["created", "created", "uploaded"])
        service.refuse_after, service.lose_creation = None, False
        manifest = rate(server, pool, "out")
    assert manifest.facts["ok"] == 25
    assert set(service.answered.values()) == {1}
    assert len(service.answered) == 25
    assert len(service.batches) == 3


def test_results_that_were_read_but_not_stored_are_read_again(pool: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        rate(server, pool, "out")
        for part in (pool.parent / "store").glob("*/*.jsonl"):
            part.unlink()
        again = rate(server, pool, "again")
    assert (again.facts["ok"], again.facts["reused"]) == (25, 0)
    assert len(service.batches) == 3
    assert set(service.answered.values()) == {1}


def test_answers_that_do_not_parse_go_into_another_batch(pool: Path) -> None:
    service = BatchService()
    service.text = "hm"
    with Server(service) as server:
        manifest = rate(server, pool, "out", max_attempts=2, max_failure_share=1.0)
    assert manifest.facts["unparsable"] == 25
    assert {item[-2:] for item in service.answered} == {"-1", "-2"}
    assert len(service.answered) == 50


def test_where_too_much_is_queued_a_batch_waits_for_the_others(pool: Path) -> None:
    service = BatchService()
    service.at_once_most = 1
    with Server(service) as server:
        assert rate(server, pool, "out").facts["ok"] == 25
    assert set(service.answered.values()) == {1}


def test_a_refused_batch_says_why_and_may_be_sent_again(pool: Path) -> None:
    service = BatchService()
    service.failing = {"code": "model_not_found", "message": "The model m does not exist."}
    with Server(service) as server:
        with pytest.raises(ModelError, match="model_not_found: The model m does not exist"):
            rate(server, pool, "out")
        service.failing = None
        assert rate(server, pool, "out").facts["ok"] == 25
    assert set(service.answered.values()) == {1}


def test_batches_and_single_requests_share_their_ratings(pool: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        rate(server, pool, "out")
        single = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        values = {"name": "mini", "backend": single, "store": str(pool.parent / "store")}
        other = run(parse(RatingSettings, values, where="here"), pool=pool, out=pool.parent / "single")
    assert other.facts["reused"] == 25
