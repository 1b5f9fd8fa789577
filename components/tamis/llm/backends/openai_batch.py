"""The engine for OpenAI's Batch API: half the price, answers within a day, and any number of restarts in between."""

from __future__ import annotations

import json
import logging
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import Field

from tamis.core.errors import ModelError, explained_os_errors
from tamis.core.settings import Pace
from tamis.llm.backend import Answer, Backend, Prompt, Request
from tamis.llm.backends.claims import Claims
from tamis.llm.backends.journal import Entry, Journal
from tamis.llm.backends.openai import Job, OpenAIBackend, OpenAISettings
from tamis.llm.client import ServiceError, connect_for_files, service_error
from tamis.llm.faults import Fault, fault_of_status, shortened
from tamis.llm.replies import Reply, reply_in

if TYPE_CHECKING:
    from openai.types import Batch, FileObject

    from tamis.core.conversations import Format
    from tamis.llm.backends.sampling import Sampling

log = logging.getLogger(__name__)
_TOKEN = "tamis_token"  # key in a batch's metadata with the token of its entry
_ENDS = ("completed", "failed", "expired", "cancelled")
_BEING_READ = ("pending", "running", "notRunning")
_FULL = "token_limit_exceeded"  # more tokens are queued than the account allows
_LONGEST_WAIT = 30.0  # seconds between two tries after a technical fault
_GROUP = 1000  # answers that are yielded together
_BLOCK = 1 << 20  # bytes
T = TypeVar("T")


class OpenAIBatchSettings(OpenAISettings):
    """The Batch API of OpenAI or Azure OpenAI: half the price, answers within a day."""

    JOURNALED: ClassVar[bool] = True
    NOT_OF_ANSWERS: ClassVar[frozenset[str]] = OpenAISettings.NOT_OF_ANSWERS | {
        "batch_requests",
        "batch_bytes",
        "open_batches",
        "poll",
        "first_alone",
    }

    kind: Literal["openai-batch"] = Field(  # type: ignore[assignment]
        "openai-batch", description="a service answers in batches, within a day"
    )
    batch_requests: int = Field(50_000, ge=1, le=50_000, description="most requests in a batch")
    batch_bytes: int = Field(100_000_000, ge=10_000, le=200_000_000, description="largest file of a batch, in bytes")
    open_batches: int = Field(8, ge=1, le=100, description="most batches in progress at once")
    poll: float = Field(60.0, gt=0, description="seconds between two checks of the batches")
    first_alone: Pace = Field(
        True,
        exclude_if=lambda alone: alone is True,  # so that keys stay as they were without this setting
        description="send a first batch of 100 requests, and the rest when one of its answers can be read; false: send "
        "all at once, even if the answers may turn out to be unreadable",
    )

    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """See `BackendSettings.open`."""
        return OpenAIBatchBackend(self, prompt, sampling)


BACKEND = OpenAIBatchSettings


class OpenAIBatchBackend(OpenAIBackend):
    """Splits requests into batches, and notes each step in a journal before it is taken.

    A batch in progress continues at the service when this process ends. The next run picks it up when it is asked about
    a sample in it.
    """

    def __init__(self, settings: OpenAIBatchSettings, prompt: Prompt, sampling: Sampling) -> None:
        super().__init__(settings, prompt, sampling)
        self._batch = settings
        self._journal: Journal | None = None
        self._claims: Claims | None = None
        self._journal_known = False  # whether the journal was read
        self._known: dict[str, Entry] = {}  # where requests are, that were sent by this or another run
        self._refused = Counter[str]()  # by token, since a batch was taken in

    @property
    def first_alone(self) -> bool:
        """Whether to wait for the first answers before all requests are sent."""
        return self._batch.first_alone

    def remember_in(self, journal: Journal) -> None:
        """Set the journal."""
        self._journal, self._claims = journal, Claims(journal, self._settings.patience)
        self._known.clear()
        self._journal_known = False

    def sent_already(self, request: Request) -> bool:
        """Whether a request is in a batch of an earlier run, so its answer is already paid for.

        Raises:
            StorageError: when the journal cannot be read.
        """
        if not self._journal_known:
            self._read_journal()
        return _item(request) in self._known

    def _read_journal(self) -> None:
        """Read which requests other runs have sent; of several entries, the one that may answer counts."""
        assert self._claims is not None
        self._journal_known = True
        for entry in sorted(self._claims.news(), key=lambda entry: entry.state != "ended"):
            self._known |= dict.fromkeys(set(entry.items) - set(entry.unanswered), entry)

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Send requests in batches; the answers of a batch arrive together.

        Raises:
            ServiceError: when the service refuses the key, the model or the account.
            ModelError: when the service refuses a batch as a whole.
            StorageError: when a step cannot be noted.
        """
        assert self._claims is not None
        self._client = connect_for_files(self._settings)
        with self._client, self._claims.at_work():
            too_long: list[Answer] = []
            for answers in self._work(self._jobs(groups, too_long)):
                yield answers + too_long
                too_long.clear()
            yield too_long

    def _work(self, jobs: Iterator[Job]) -> Iterator[list[Answer]]:
        pending: dict[str, Job] = {}
        going: dict[str, Entry] = {}
        while True:
            while len(going) < self._batch.open_batches:
                self._read_journal()
                lines, ended = self._gather(jobs, pending, going)
                jobs = chain(ended, jobs) if ended else jobs
                if not lines:
                    break
                entry = self._start(lines)
                if entry is None:  # another run was faster, perhaps with the same requests
                    jobs = chain([pending.pop(item) for item in lines], jobs)
                else:
                    going[entry.token] = entry
            if not going:
                return
            done = [entry for entry in list(going.values()) if self._ended(entry, going)]
            for entry in [entry for entry in done if entry.state == "ended" and entry.output is None]:
                # The run that owned it has not sent it, or the service refused it.
                done.remove(going.pop(entry.token))
                left = [pending.pop(item) for item in entry.items if item in pending]
                jobs = chain(left, jobs)
            for entry in done:
                del going[entry.token]
                yield from self._read(entry, pending)
            if not done and going:
                time.sleep(self._batch.poll)

    def _gather(
        self, jobs: Iterator[Job], pending: dict[str, Job], going: dict[str, Entry]
    ) -> tuple[dict[str, bytes], list[Job]]:
        """The lines of the next batch, and the job that did not fit any more.

        Jobs that are already in another batch wait for that one.
        """
        lines: dict[str, bytes] = {}
        size = 0
        for job in jobs:
            item = _item(job.request)
            entry = self._known.get(item)
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

    def _start(self, lines: dict[str, bytes]) -> Entry | None:
        """Upload and create a batch, with a note before each step; None if another run has claimed one first."""
        assert self._claims is not None
        entry = Entry(token=uuid.uuid4().hex, state="prepared", items=list(lines))
        if not self._claims.claim(entry):
            return None
        file = (f"tamis-{entry.token}.jsonl", b"".join(lines.values()))
        # Uploading a file twice costs nothing.
        entry.file = self._checked(self._patiently(lambda: self._client.files.create(file=file, purpose="batch")))
        entry.state = "uploaded"
        self._note(entry)
        self._create(entry)
        log.info("batch %s: %d requests sent", entry.batch, len(lines))
        return entry

    def _checked(self, file: FileObject) -> str:
        """The id of an uploaded file. Azure processes it first, and accepts no batch before that."""
        while file.status in _BEING_READ:
            time.sleep(min(self._batch.poll, 5.0))
            file = self._patiently(partial(self._client.files.retrieve, file.id))
        if file.status == "error":
            raise ModelError(f"the service cannot use the file of a batch: {shortened(file.status_details or '')}")
        return file.id

    def _create(self, entry: Entry) -> None:
        """Create the batch of an uploaded file, exactly once.

        A failed try may have created it nevertheless, so the next one looks for it first.
        """
        assert entry.file is not None
        file, tried = entry.file, False

        def create() -> Batch:
            nonlocal tried
            found, tried = self._found(entry.token) if tried else None, True
            return found or self._client.batches.create(
                input_file_id=file,
                endpoint=self._endpoint,  # type: ignore[arg-type]  # Azure's has no /v1
                completion_window="24h",
                metadata={_TOKEN: entry.token},
            )

        entry.batch, entry.state = self._patiently(create).id, "created"
        self._note(entry)

    def _taken_up(self, entry: Entry) -> bool:
        """Whether a batch of another run will be answered; not if it was never created, or was refused."""
        assert self._claims is not None
        followed = self._claims.followed(entry)
        if entry.state == "ended":
            return entry.output is not None
        if followed:
            log.info("%d requests were sent by another run; waiting for its batch", len(entry.items))
            return True
        self._claims.adopt(entry)
        batch = self._retrieved(entry) if entry.batch else self._patiently(lambda: self._found(entry.token))
        refused = batch is None or batch.status == "failed"
        entry.batch, entry.state = batch.id if batch else None, "ended" if refused else "created"
        entry.unanswered = entry.items if refused else []
        self._note(entry)
        return not refused

    def _found(self, token: str) -> Batch | None:
        """The batch with a token, if there is one that was not refused."""
        for batch in self._client.batches.list(limit=100):
            if (batch.metadata or {}).get(_TOKEN) == token and batch.status != "failed":
                return batch
        return None

    def _retrieved(self, entry: Entry) -> Batch:
        assert entry.batch is not None
        return self._patiently(partial(self._client.batches.retrieve, entry.batch), (f"batch {entry.batch}", entry))

    def _ended(self, entry: Entry, going: dict[str, Entry]) -> bool:
        """Whether a batch has ended; notes its files in its entry. `going` are all batches in progress."""
        assert self._claims is not None
        followed = self._claims.followed(entry)
        if entry.state == "ended":
            return True
        if followed and entry.batch is None:
            return False
        if not followed and entry.batch is None and not self._taken_up(entry):
            return True
        batch = self._retrieved(entry)
        if batch.status not in ("validating", "failed"):
            self._refused.clear()  # a batch was accepted, so the queue has room, or will have
        if batch.status not in _ENDS:
            counts = batch.request_counts
            log.info("batch %s: %s%s", batch.id, batch.status, f", {counts.completed} done" if counts else "")
            return False
        faults = (batch.errors.data or []) if batch.errors else []
        if batch.status == "failed" and followed:
            return False  # its own run will create it again, or give it up
        if batch.status == "failed":
            self._refused[entry.token] += 1
            # Batches that were not refused repeatedly will make room when they end.
            waits = any(self._refused[token] < 2 for token in going if token != entry.token)
            if any(fault.code == _FULL for fault in faults) and waits and entry.file is not None:
                log.info("batch %s: the account's queue is full; it is created again", batch.id)
                # Noted first: a run that picks this up must look for the new batch, and not take the refusal of the
                # old one as its end.
                entry.batch, entry.state = None, "uploaded"
                self._note(entry)
                self._create(entry)
                return False
            said = "; ".join(shortened(f"{fault.code}: {fault.message}") for fault in faults[:3])
            entry.state, entry.unanswered = "ended", entry.items
            self._note(entry)
            raise ModelError(
                f"the service refused batch {batch.id} of {len(entry.items)} requests: {said or 'no reason given'}",
                action="remove the cause; if too much is queued, lower backend.batch_requests or backend.open_batches",
            )
        entry.output, entry.errors = batch.output_file_id, batch.error_file_id
        return True

    def _read(self, entry: Entry, pending: dict[str, Job]) -> Iterator[list[Answer]]:
        """The answers of an ended batch to pending requests, even if other requests in it failed.

        A batch has up to 50,000 answers with all their probabilities, so they are read one at a time.
        """
        seen, again = set[str](), set(entry.items)
        answers: list[Answer] = []
        for item, outcome in self._outcomes(entry):
            if item in seen or item not in again:
                continue  # answers are read before errors, and count more
            seen.add(item)
            if item in pending:
                answers.append(self._answer_of(pending.pop(item), outcome))
            if _final(outcome):
                again.remove(item)
            if len(answers) == _GROUP:
                yield answers
                answers = []
        missing = Fault("batch ended", "without an answer to this request")
        answers += [self._answer_of(pending.pop(item), missing) for item in entry.items if item in pending]
        if entry.state != "ended":
            entry.state, entry.unanswered = "ended", [item for item in entry.items if item in again]
            self._note(entry)
        yield answers

    def _outcomes(self, entry: Entry) -> Iterator[tuple[str, Reply | Fault]]:
        for file in (entry.output, entry.errors):
            if file is not None:
                with self._content(file, entry) as content:
                    yield from _outcomes(content)

    @contextmanager
    def _content(self, file: str, entry: Entry) -> Iterator[IO[bytes]]:
        """A file at the service, as a local copy, so that no connection stays open while its lines are processed."""
        with explained_os_errors("reading the answers of a batch"), tempfile.TemporaryFile(prefix="tamis-") as content:

            def fetch() -> None:
                content.seek(0)
                content.truncate()
                with self._client.files.with_streaming_response.content(file) as response:
                    for block in response.iter_bytes(_BLOCK):
                        content.write(block)

            self._patiently(fetch, (f"file {file}", entry))
            content.seek(0)
            yield content

    def _note(self, entry: Entry) -> None:
        assert self._journal is not None
        self._journal.write(entry)

    def _patiently(self, ask: Callable[[], T], noted: tuple[str, Entry] | None = None) -> T:
        """Call `ask`; after technical faults, try again for `patience` seconds while batches are in progress.

        `noted` names an object that the service knew earlier, and the entry that names it.
        """
        import httpx2  # the HTTP library of the package openai
        import openai

        first: float | None = None  # time of the first fault
        while True:
            try:
                return ask()
            except (openai.APIError, httpx2.HTTPError, json.JSONDecodeError, RecursionError) as error:
                fault = self._fault_of(error)
            wait = max(fault.retry_after or 0.0, min(self._batch.poll, _LONGEST_WAIT))
            now = time.monotonic()
            first = now if first is None else first
            if not fault.again or now + wait - first > self._settings.patience:
                raise self._error(fault, noted)
            log.warning("%s; trying again in %.0f s", fault, wait)
            time.sleep(wait)

    def _fault_of(self, error: Exception) -> Fault:
        import openai

        if isinstance(error, openai.APIStatusError):
            status, headers = error.status_code, error.response.headers
            return fault_of_status(status, headers, error.body, frozenset(), self._settings.patience)
        if isinstance(error, ValueError | RecursionError):
            return Fault("bad response", "not JSON")
        cause = error.__cause__ or error
        return Fault("no connection", shortened(f"{type(cause).__name__}: {cause}"))

    def _error(self, fault: Fault, noted: tuple[str, Entry] | None) -> ServiceError:
        service = self._settings.base_url or "OpenAI"
        if fault.kind == "not found" and noted is not None:
            assert self._journal is not None
            what, entry = noted
            return ServiceError(
                f"{service} does not know {what}, which is in {self._journal.place(entry)}: {fault}",
                allowed=f"the service and the project in which {what} was made",
                action=f"check 'base_url' and the key in {self._settings.api_key_env}; if the service has deleted it, "
                f"delete that file of the journal: its {len(entry.items)} requests are then sent and paid for again",
                permanent=True,
            )
        if fault.hopeless:
            return service_error(self._settings, fault)
        waited = f", after retries for {self._settings.patience:g} s ('patience')" if fault.again else ""
        return ServiceError(
            f"{service} failed at a step for batches{waited}: {fault}",
            action="check that the service works, then start again: the run picks up batches in progress, and finished "
            "answers are kept",
        )


def _item(request: Request) -> str:
    """The id of a request in batches."""
    return f"{request.id}-{request.attempt}"


def _outcomes(content: Iterable[bytes]) -> Iterator[tuple[str, Reply | Fault]]:
    """The outcomes in an output or error file; lines that are cut off or unknown are ignored."""
    for line in content:
        try:
            row: dict[str, Any] = json.loads(line)
            item, error, response = row["custom_id"], row.get("error"), row.get("response") or {}
            status, body = response.get("status_code"), response.get("body")
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            continue
        if status == 200 and not error:
            yield item, reply_in(body)
        elif isinstance(status, int) and status >= 400:
            yield item, fault_of_status(status, {}, body, frozenset(), 0)
        else:
            said = error if isinstance(error, dict) else {}
            yield item, Fault("batch ended", shortened(f"{said.get('code')}: {said.get('message')}"))


def _final(outcome: Reply | Fault) -> bool:
    """Whether sending the request again would be useless, or paid for twice."""
    return isinstance(outcome, Reply) or outcome.kind == "content filter"
