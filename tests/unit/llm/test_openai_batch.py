"""The Batch API, against a local server with its files, states and errors, over real HTTP."""

from __future__ import annotations

import email.parser
import email.policy
import errno
import gc
import json
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tamis.core.artifacts import Artifact, Manifest
from tamis.core.errors import ModelError, StorageError
from tamis.core.settings import parse
from tamis.core.storage import local
from tamis.llm.backend import Answer
from tamis.llm.backends import openai_batch
from tamis.llm.backends.journal import Journal
from tamis.llm.replies import Reply
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tests.artifacts import conversation, make_pool
from tests.llm_server import GOOD, Asked, Reaction, Server, Till, completion, error

pytest.importorskip("openai")


class BatchService:
    """Files and batches as the public description has them; a batch is done when it has been looked at twice.

    `fate` says what becomes of an item: "ok", "expired", "content_filter", "server_error" or "lost". As Azure, it has
    other paths, and reads a file before it takes a batch of it. `spoil` may put another reaction in the place of one
    that has had its effect.
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
        self.overloaded = 0  # batches that it does not take before it takes one
        self.text = GOOD
        self.padding = ""  # makes the lines of a file of answers longer
        self.spoil: Callable[[Asked, Reaction], Reaction] = lambda asked, reaction: reaction

    def __call__(self, asked: Asked) -> Reaction:
        return self.spoil(asked, self._react(asked))

    @property
    def paid(self) -> Counter[str]:
        """How often each item is in a batch that was taken."""
        taken = [batch for batch in self.batches.values() if batch["status"] != "failed"]
        lines = [line for batch in taken for line in self.files[batch["input_file_id"]].splitlines()]
        return Counter(json.loads(line)["custom_id"] for line in lines)

    def _react(self, asked: Asked) -> Reaction:
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
            name = path.split("/")[2]
            return Reaction(self.files[name]) if name in self.files else Reaction(error(f"No such File: {name}"), 404)
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
        if self.overloaded:
            self.overloaded -= 1
            return Reaction(error("overloaded"), 503, {"retry-after": "0.1"})
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
        if name not in self.batches:
            return Reaction(error(f"No batch found with id '{name}'."), 404)
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
                reply = {"status_code": 200, "request_id": "r", "body": self.answer()}
                good.append({"id": f"x{self.padding}", "custom_id": item, "response": reply, "error": None})
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

    def answer(self) -> Any:
        """A chat completion."""
        return completion(self.text)

    def _public(self, batch: dict[str, Any]) -> dict[str, Any]:
        hidden = {"looks"}
        return {"object": "batch", "created_at": 0} | {key: value for key, value in batch.items() if key not in hidden}


class PaidBatches(BatchService):
    """The same with a till."""

    def __init__(self, till: Till) -> None:
        super().__init__()
        self.till = till

    def answer(self) -> Any:
        return self.till.sell()


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(25)])


@pytest.fixture
def many(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(250)])


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


def sizes(service: BatchService) -> list[int]:
    """Requests of each batch."""
    return [len(service.files[batch["input_file_id"]].splitlines()) for batch in service.batches.values()]


def test_a_rater_whose_answers_never_parse_is_stopped_after_the_first_hundred(many: Path) -> None:
    service = BatchService()
    service.text = "hm"
    with Server(service) as server:
        with pytest.raises(ModelError) as raised:
            rate(server, many, "out", backend={"batch_requests": 50_000})
        assert raised.value.code == "unreadable-answers"
        assert sizes(service) == [100]
        with pytest.raises(ModelError):
            rate(server, many, "out", backend={"batch_requests": 50_000, "first_alone": False}, max_attempts=3)
    assert sizes(service) == [100, 250]


def test_the_rest_is_sent_when_a_first_answer_can_be_read(many: Path) -> None:
    service = BatchService()
    texts = iter(["hm"] * 99)
    service.answer = lambda: completion(next(texts, GOOD))  # type: ignore[method-assign]
    with Server(service) as server:
        assert rate(server, many, "out", backend={"batch_requests": 50_000}).facts["ok"] == 250
    assert sizes(service) == [100, 150 + 99]


def test_without_a_first_batch_all_is_sent_at_once_and_the_step_is_the_same(many: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        own = {"batch_requests": 50_000, "first_alone": False}
        manifest = rate(server, many, "out", backend=own)
        assert sizes(service) == [250]
        del own["first_alone"]
        assert rate(server, many, "other", backend=own).key == manifest.key
        assert rate(server, many, "out", backend=own).rows == 250
    assert len(service.batches) == 1


def test_what_an_earlier_run_has_sent_is_taken_up_at_once(many: Path) -> None:
    """Two batches are at work and a third is noted: none of them waits for another, as first ones would."""
    service = BatchService()
    service.refuse_after = 2
    with Server(service) as server:
        with pytest.raises(ModelError, match="unauthorised"):
            rate(server, many, "out", backend={"batch_requests": 90, "first_alone": False})
        service.refuse_after = None
        assert rate(server, many, "again", backend={"batch_requests": 90}).facts["ok"] == 250
    assert sizes(service) == [90, 90, 70]
    assert set(service.paid.values()) == {1}


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


def test_batches_of_which_none_ever_has_room_are_an_error(pool: Path) -> None:
    service = BatchService()
    service.at_once_most = 0
    with Server(service) as server, pytest.raises(ModelError, match="token_limit_exceeded"):
        rate(server, pool, "out")
    assert len(service.batches) < 20


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


class Once:
    """A `spoil` that puts `reaction` in the place of the first so many to such requests."""

    def __init__(self, method: str, path: str, reaction: Reaction, times: int = 1) -> None:
        self.method, self.path, self.reaction, self.left = method, path, reaction, times

    def __call__(self, asked: Asked, reaction: Reaction) -> Reaction:
        if self.left == 0 or asked.method != self.method or self.path not in asked.path:
            return reaction
        self.left -= 1
        return self.reaction


@pytest.mark.parametrize("reaction", [Reaction(error("boom"), 500), Reaction(reset_after=0), Reaction(hang=True)])
def test_a_batch_whose_creation_was_not_heard_of_is_not_created_again(pool: Path, reaction: Reaction) -> None:
    service = BatchService()
    service.spoil = Once("POST", "/batches", reaction)
    with Server(service) as server:
        assert rate(server, pool, "out", backend={"batch_requests": 25, "timeout": 1.0}).facts["ok"] == 25
    assert len(service.batches) == 1


def test_a_batch_that_could_not_be_created_is_tried_again(pool: Path) -> None:
    service = BatchService()
    service.overloaded = 3
    with Server(service) as server:
        assert rate(server, pool, "out").facts["ok"] == 25
    assert set(service.paid.values()) == {1}


def test_a_run_that_ends_while_it_creates_a_refused_batch_again_pays_nothing_twice(pool: Path) -> None:
    service = BatchService()
    service.at_once_most = 1
    heard: list[str] = []

    def spoil(asked: Asked, reaction: Reaction) -> Reaction:
        if (asked.method, asked.path) == ("POST", "/v1/batches") and reaction.body["status"] == "in_progress":
            heard.append(reaction.body["id"])
            return Reaction(error("bad key"), 401) if len(heard) == 2 else reaction
        return reaction

    service.spoil = spoil
    with Server(service) as server:
        with pytest.raises(ModelError, match="unauthorised"):
            rate(server, pool, "out")
        assert len(heard) == 2
        assert rate(server, pool, "out").facts["ok"] == 25
    assert set(service.paid.values()) == {1}


def test_answers_are_read_one_by_one_and_handed_on_in_groups(pool: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held() -> int:
        gc.collect()
        return sum(type(one) is Reply for one in gc.get_objects())

    sizes, replies, before = [], [], held()
    answer = openai_batch.OpenAIBatchBackend.answer

    def watched(*args: Any) -> Iterator[list[Answer]]:
        for answers in answer(*args):
            sizes.append(len(answers))
            replies.append(held() - before)
            yield answers

    monkeypatch.setattr(openai_batch.OpenAIBatchBackend, "answer", watched)
    monkeypatch.setattr(openai_batch, "_GROUP", 4)
    service = BatchService()
    with Server(service) as server:
        assert rate(server, pool, "out", backend={"batch_requests": 25}).facts["ok"] == 25
    assert (sum(sizes), max(sizes)) == (25, 4)
    assert max(replies) < 10, "as many as there are at once, not all of them"


def test_a_file_of_answers_is_never_in_memory_as_a_whole(pool: Path) -> None:
    service = BatchService()
    service.padding = " " * 1_000_000
    with Server(service) as server:
        rate(server, pool, "out", backend={"batch_requests": 25})
        for part in (pool.parent / "store").glob("*/*.jsonl"):
            part.unlink()
        tracemalloc.start()
        try:
            assert rate(server, pool, "again").facts["ok"] == 25
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 15_000_000  # of 25 million bytes


@pytest.mark.parametrize("path", ["/batches/", "/content"])
@pytest.mark.parametrize("reaction", [Reaction(error("down"), 502), Reaction(b"{" * 1000, reset_after=500)])
def test_an_outage_is_waited_out(pool: Path, path: str, reaction: Reaction) -> None:
    service = BatchService()
    service.spoil = Once("GET", path, reaction, times=6)
    with Server(service) as server:
        assert rate(server, pool, "out").facts["ok"] == 25
    assert set(service.paid.values()) == {1}


def test_an_outage_beyond_patience_says_what_was_waited_for(pool: Path) -> None:
    service = BatchService()
    service.spoil = Once("GET", "/batches/", Reaction(error("down"), 502), times=1_000_000)
    with Server(service) as server:
        with pytest.raises(ModelError, match=r"for 0\.3 s \('patience'\): server error: 502 down") as raised:
            rate(server, pool, "out", backend={"patience": 0.3})
        assert "in a row" not in str(raised.value)
        service.spoil = lambda asked, reaction: reaction
        assert rate(server, pool, "out").facts["ok"] == 25
    assert set(service.paid.values()) == {1}


class Failing:
    """Lets so many writings of the journal fail, from the one with that number on: before or after they are done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: OSError, at: int, times: int, *, done: bool) -> None:
        self.left, seen = times, 0

        def failing(write: Callable[[Path, bytes], Any]) -> Callable[[Path, bytes], Any]:
            def tried(path: Path, data: bytes) -> Any:
                nonlocal seen
                ours = path.parent.name.endswith("-journal")
                seen += ours
                fails = ours and seen > at and self.left > 0
                result = None if fails and not done else write(path, data)
                if fails:
                    self.left -= 1
                    raise error
                return result

            return tried

        for name in ("write", "create"):
            monkeypatch.setattr(local, name, failing(getattr(local, name)))


@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_a_journal_that_cannot_be_written_is_waited_for(
    at: int, done: bool, pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second entry, or a step of the first or second one."""
    monkeypatch.setattr("tamis.llm.store.waits._AGAIN_AFTER", 0.01)
    service, error = BatchService(), OSError(errno.EIO, os.strerror(errno.EIO))
    failing = Failing(monkeypatch, error, at, 3, done=done)
    with Server(service) as server:
        assert rate(server, pool, "out").facts["ok"] == 25
    assert failing.left == 0
    assert sizes(service) == [10, 10, 5]
    assert set(service.paid.values()) == {1}


def test_a_journal_that_never_can_be_written_ends_the_run_before_anything_is_sent(
    pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, error = BatchService(), OSError(errno.EROFS, os.strerror(errno.EROFS))
    Failing(monkeypatch, error, 0, 1_000_000, done=False)
    monkeypatch.setattr("tamis.llm.backends.journal.PATIENCE", 0.05)
    with Server(service) as server, pytest.raises(StorageError) as raised:
        rate(server, pool, "out")
    assert raised.value.code == "storage"
    assert not service.batches


@pytest.mark.parametrize("spoiled", ["{", '{"token": "x"}', "unknown"])
def test_a_journal_that_cannot_be_read_says_so_and_nothing_is_sent(spoiled: str, pool: Path) -> None:
    """To leave such an entry out would be to pay twice."""
    service = BatchService()
    with Server(service) as server:
        rate(server, pool, "out", backend={"batch_requests": 25})
        (noted,) = (pool.parent / "store").glob("*-journal/*.json")
        whole = json.loads(noted.read_text())
        noted.write_text(json.dumps(whole | {"colour": "red"}) if spoiled == "unknown" else spoiled)
        for part in (pool.parent / "store").glob("*/*.jsonl"):
            part.unlink()
        with pytest.raises(StorageError) as raised:
            rate(server, pool, "again")
        assert str(noted) in raised.value.problem
        assert ("colour" in raised.value.problem) == (spoiled == "unknown")
    assert len(service.batches) == 1


def test_a_claim_of_a_run_on_another_machine_is_waited_for_and_then_taken_over(pool: Path) -> None:
    """That run has noted what it is going to send, and was never heard of again."""
    service = BatchService()
    with Server(service) as server:
        service.refuse_after = 0
        with pytest.raises(ModelError):
            rate(server, pool, "out", backend={"batch_requests": 25})
        (noted,) = (pool.parent / "store").glob("*-journal/*.json")
        entry = json.loads(noted.read_text())
        noted.write_text(json.dumps(entry | {"owner": {"machine": "elsewhere", "pid": 1, "run": "r"}}))
        service.refuse_after = None
        start = time.monotonic()
        facts = rate(server, pool, "out", backend={"batch_requests": 25, "patience": 0.7}).facts
    assert facts["ok"] == 25
    assert time.monotonic() - start >= 0.7
    assert set(service.paid.values()) == {1}


def test_a_journal_of_the_version_before_is_read(pool: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        rate(server, pool, "out", backend={"batch_requests": 25})
        (noted,) = (pool.parent / "store").glob("*-journal/*.json")
        entry = json.loads(noted.read_text())
        del entry["number"], entry["owner"]
        noted.unlink()
        noted.with_name(f"{entry['token']}.json").write_text(json.dumps(entry))
        for part in (pool.parent / "store").glob("*/*.jsonl"):
            part.unlink()
        assert rate(server, pool, "again").facts["ok"] == 25
    assert set(service.paid.values()) == {1}


def test_where_a_noted_batch_is_not_known_the_error_names_the_file_of_the_journal(pool: Path) -> None:
    service, other = BatchService(), BatchService()
    service.spoil = Once("GET", "/batches/", Reaction(error("who are you?"), 401))
    with Server(service) as server, pytest.raises(ModelError, match="unauthorised"):
        rate(server, pool, "out", backend={"batch_requests": 25})
    with Server(other) as server:
        with pytest.raises(ModelError, match="batch batch-0") as raised:
            rate(server, pool, "out")
        (noted,) = (pool.parent / "store").glob("*-journal/*.json")
        assert str(noted) in str(raised.value)
        noted.unlink()  # as it says
        assert rate(server, pool, "out").facts["ok"] == 25


def test_where_a_noted_file_of_answers_is_not_known_the_error_names_the_file_of_the_journal(pool: Path) -> None:
    service = BatchService()
    with Server(service) as server:
        rate(server, pool, "out", backend={"batch_requests": 25})
        for part in (pool.parent / "store").glob("*/*.jsonl"):
            part.unlink()
        service.files.clear()
        with pytest.raises(ModelError, match=r"file file-1.*-journal/\w+\.json"):
            rate(server, pool, "again")
