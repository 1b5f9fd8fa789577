"""Asking by OpenAI's Batch API: at half the price, within a day, and through any number of restarts."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any

from tamis.core.errors import ModelError
from tamis.core.llm.backend import Answer, Prompt, Request
from tamis.core.llm.backends.journal import Entry, Journal
from tamis.core.llm.backends.openai import Job, OpenAIBackend
from tamis.core.llm.client import Reply, connect_for_files, reply_in, service_error
from tamis.core.llm.faults import Fault, fault_of_status, shortened

if TYPE_CHECKING:
    from openai.types import FileObject

    from tamis.core.llm.backends.sampling import Sampling
    from tamis.core.llm.settings import OpenAIBatchSettings

log = logging.getLogger(__name__)
_TOKEN = "tamis_token"  # the batch's metadata that names its entry
_ENDS = ("completed", "failed", "expired", "cancelled")
_BEING_READ = ("pending", "running", "notRunning")
_FULL = "token_limit_exceeded"  # more tokens are queued than the account may


class OpenAIBatchBackend(OpenAIBackend):
    """Splits requests into batches, and notes each step before it is taken.

    A batch that is at work when the process ends goes on at the service; the next run takes it up when it is asked
    about a sample that is in it.
    """

    def __init__(self, settings: OpenAIBatchSettings, prompt: Prompt, sampling: Sampling) -> None:
        super().__init__(settings, prompt, sampling)
        self._batch = settings
        self._journal: Journal | None = None

    def remember_in(self, journal: Journal) -> None:
        """Where steps are noted."""
        self._journal = journal

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Ask; the answers of a batch come together.

        Raises:
            ServiceError: when the service refuses the key, the model or the account.
            ModelError: when the service refuses a batch as a whole.
            StorageError: when a step cannot be noted.
        """
        assert self._journal is not None
        self._client = connect_for_files(self._settings)
        with self._client:
            # An item of several entries is in the one that may still answer it, if there is one.
            known = {
                item: entry
                for entry in sorted(self._journal.read(), key=lambda entry: entry.state != "ended")
                for item in set(entry.items) - set(entry.unanswered)
            }
            too_long: list[Answer] = []
            for answers in self._work(self._jobs(groups, too_long), known):
                yield answers + too_long
                too_long.clear()
            yield too_long

    def _work(self, jobs: Iterator[Job], known: dict[str, Entry]) -> Iterator[list[Answer]]:
        pending: dict[str, Job] = {}
        going: dict[str, Entry] = {}
        while True:
            while len(going) < self._batch.open_batches:
                lines, ended = self._gather(jobs, known, pending, going)
                jobs = chain(ended, jobs) if ended else jobs
                if not lines:
                    break
                entry = self._start(lines)
                going[entry.token] = entry
            if not going:
                return
            done = [entry for entry in list(going.values()) if self._ended(entry, alone=len(going) == 1)]
            for entry in done:
                del going[entry.token]
                yield self._read(entry, pending)
            if not done:
                time.sleep(self._batch.poll)

    def _gather(
        self, jobs: Iterator[Job], known: dict[str, Entry], pending: dict[str, Job], going: dict[str, Entry]
    ) -> tuple[dict[str, bytes], list[Job]]:
        """The lines of the next batch, and the job for which it has no room any more.

        Jobs that are in a batch already wait for that one.
        """
        lines: dict[str, bytes] = {}
        size = 0
        for job in jobs:
            item = f"{job.request.id}-{job.request.attempt}"
            entry = known.get(item)
            if entry is not None and (entry.token in going or self._taken_up(entry)):
                pending[item] = job
                going[entry.token] = entry
                continue
            line = self._line(item, job)
            if lines and size + len(line) > self._batch.batch_bytes:
                return lines, [job]
            pending[item], lines[item] = job, line
            size += len(line)
            if len(lines) == self._batch.batch_requests:
                break
        return lines, []

    def _line(self, item: str, job: Job) -> bytes:
        body = {"model": self._settings.asked_model, **self.body(job.request, job.text)}
        request = {"custom_id": item, "method": "POST", "url": self._endpoint, "body": body}
        return json.dumps(request, ensure_ascii=False).encode() + b"\n"

    @property
    def _endpoint(self) -> str:
        return "/chat/completions" if self._settings.azure else "/v1/chat/completions"

    def _start(self, lines: dict[str, bytes]) -> Entry:
        """Upload and create a batch, each step noted before it is taken."""
        entry = Entry(token=uuid.uuid4().hex, state="prepared", items=list(lines))
        self._note(entry)
        with self._refusals():
            name = f"tamis-{entry.token}.jsonl"
            entry.file = self._checked(
                self._client.files.create(file=(name, b"".join(lines.values())), purpose="batch")
            )
        entry.state = "uploaded"
        self._note(entry)
        self._create(entry)
        log.info("batch %s: %d requests sent", entry.batch, len(lines))
        return entry

    def _checked(self, file: FileObject) -> str:
        """The id of an uploaded file; Azure reads it first, and takes no batch of it before that."""
        while file.status in _BEING_READ:
            time.sleep(min(self._batch.poll, 5.0))
            file = self._client.files.retrieve(file.id)
        if file.status == "error":
            raise ModelError(f"the service cannot use the file of a batch: {shortened(file.status_details or '')}")
        return file.id

    def _create(self, entry: Entry) -> None:
        assert entry.file is not None
        with self._refusals():
            entry.batch = self._client.batches.create(
                input_file_id=entry.file,
                endpoint=self._endpoint,  # type: ignore[arg-type]  # Azure's has no /v1
                completion_window="24h",
                metadata={_TOKEN: entry.token},
            ).id
        entry.state = "created"
        self._note(entry)

    def _taken_up(self, entry: Entry) -> bool:
        """Whether a batch of an earlier run will answer; one that was not created, or was refused, will not."""
        if entry.state == "ended":
            return entry.output is not None
        if entry.batch is None:
            entry.batch = self._found(entry.token)
        with self._refusals():
            refused = entry.batch is None or self._client.batches.retrieve(entry.batch).status == "failed"
        entry.state = "ended" if refused else "created"
        entry.unanswered = entry.items if refused else []
        self._note(entry)
        return not refused

    def _found(self, token: str) -> str | None:
        """The id of the batch that carries a token, if there is one."""
        with self._refusals():
            for batch in self._client.batches.list(limit=100):
                if (batch.metadata or {}).get(_TOKEN) == token:
                    return batch.id
        return None

    def _ended(self, entry: Entry, *, alone: bool) -> bool:
        """Whether a batch has come to its end; notes what came of it."""
        if entry.state == "ended":
            return True
        assert entry.batch is not None
        with self._refusals():
            batch = self._client.batches.retrieve(entry.batch)
        if batch.status not in _ENDS:
            counts = batch.request_counts
            log.info("batch %s: %s%s", batch.id, batch.status, f", {counts.completed} done" if counts else "")
            return False
        faults = (batch.errors.data or []) if batch.errors else []
        if batch.status == "failed":
            if any(fault.code == _FULL for fault in faults) and not alone and entry.file is not None:
                self._create(entry)  # others are at work; their end makes room
                return False
            said = "; ".join(shortened(f"{fault.code}: {fault.message}") for fault in faults[:3])
            entry.state, entry.unanswered = "ended", entry.items
            self._note(entry)
            raise ModelError(
                f"the service refused batch {batch.id} of {len(entry.items)} requests: {said or 'no reason given'}",
                action="mend the cause, or lower backend.batch_requests or backend.open_batches if too much is queued",
            )
        entry.output, entry.errors = batch.output_file_id, batch.error_file_id
        return True

    def _read(self, entry: Entry, pending: dict[str, Job]) -> list[Answer]:
        """The answers of an ended batch to what is asked, whatever became of the rest of it."""
        outcomes: dict[str, Reply | Fault] = {}
        for file in (entry.errors, entry.output):  # an answer counts more than an error
            if file is not None:
                with self._refusals():
                    content = self._client.files.content(file).content
                outcomes.update(_outcomes(content))
        missing = Fault("batch ended", "without an answer to this request")
        answers = {
            item: self._answer_of(pending[item], outcomes.get(item, missing)) for item in entry.items if item in pending
        }
        if entry.state != "ended":
            again = [item for item in entry.items if not _final(outcomes.get(item, missing))]
            entry.state, entry.unanswered = "ended", again
            self._note(entry)
        for item in answers:
            del pending[item]
        return list(answers.values())

    def _note(self, entry: Entry) -> None:
        assert self._journal is not None
        self._journal.write(entry)

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Turn what the package raises after its own retries into errors that teach."""
        import openai

        try:
            yield
        except openai.APIStatusError as error:
            fault = fault_of_status(error.status_code, error.response.headers, error.body, frozenset(), 0)
            raise service_error(self._settings, fault) from None
        except openai.APIConnectionError as error:
            fault = Fault("no connection", shortened(f"{type(error.__cause__).__name__}: {error.__cause__}"))
            raise service_error(self._settings, fault) from None


def _outcomes(content: bytes) -> Iterator[tuple[str, Reply | Fault]]:
    """What an output or error file says of each item; a line that is cut off or foreign says nothing."""
    for line in content.splitlines():
        try:
            row: dict[str, Any] = json.loads(line)
            item, error, response = row["custom_id"], row.get("error"), row.get("response") or {}
            status, body = response.get("status_code"), response.get("body")
        except (ValueError, LookupError, TypeError, AttributeError):
            continue
        if status == 200 and not error:
            yield item, reply_in(body)
        elif isinstance(status, int) and status >= 400:
            yield item, fault_of_status(status, {}, body, frozenset(), 0)
        else:
            said = error if isinstance(error, dict) else {}
            yield item, Fault("batch ended", shortened(f"{said.get('code')}: {said.get('message')}"))


def _final(outcome: Reply | Fault) -> bool:
    """Whether asking the same again would be of no use, or paid for twice."""
    return isinstance(outcome, Reply) or outcome.kind in ("content filter", "too long")
