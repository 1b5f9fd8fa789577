"""The engine for local models with transformers: batches by length, with the shared prompt computed once."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tamis.core.errors import UnparsableError
from tamis.core.models import device, dtype_of, load_causal_lm, load_config, revision_of
from tamis.llm.backend import Answer, Backend, Prompt, Request, Size
from tamis.llm.backends.attention import use_grouped_attention
from tamis.llm.backends.encoding import Encoded, PromptEncoding, asking_tokenizer
from tamis.llm.backends.guided_texts import GuidedTexts
from tamis.llm.backends.logprobs import ALTERNATIVES, probabilities_of_ids
from tamis.llm.backends.sequences import Sequences, head_cache
from tamis.llm.backends.skeleton import Skeleton
from tamis.llm.forms import STRICT
from tamis.llm.settings import LocalModelSettings

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedModel

    from tamis.core.conversations import Format
    from tamis.llm.backends.sampling import Sampling

_Item = tuple[Request, Encoded]
_ALIKE = 0.85  # samples shorter than this share of the longest get a batch of their own,
_LEAST_TOKENS = 768  # unless the batch is so small that the processor would not be busy


class TransformersSettings(LocalModelSettings):
    """A local model in transformers, without a server: on the GPU or, for small models, on the CPU."""

    PACKAGES: ClassVar[Mapping[str, str]] = {"transformers": "rating"}

    NOT_OF_ANSWERS: ClassVar[frozenset[str]] = frozenset({"batch_tokens"})

    kind: Literal["transformers"] = Field("transformers", description="a local model answers")
    structured: bool = Field(
        True,
        description="Tamis writes the JSON and the model chooses only the numbers, so that every answer can be read",
    )
    max_sample_tokens: int = Field(
        2048, ge=64, description="tokens of a sample; longer ones are shortened in the middle, and marked"
    )
    max_new_tokens: int = Field(128, ge=40, description="longest answer if structured is false")
    batch_tokens: int | None = Field(
        None, ge=64, description="tokens of samples in one forward pass; null: 32768 on a GPU, 4096 on a CPU"
    )

    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """See `BackendSettings.open`."""
        return TransformersBackend(self, prompt, sampling, style=style)


BACKEND = TransformersSettings


class TransformersBackend:
    """A chat model in this process.

    With `structured`, Tamis writes the JSON and the model chooses only the numbers, each among the tokenisations of its
    values, and writes the text before them if the form has one; otherwise it writes freely until its answer parses or
    ends.

    `style` is the chat template: the one stored with the model, or Tulu's.

    Raises:
        ModelError: when the model cannot be loaded, or cannot be asked in this way.
        MissingExtraError: when transformers is not installed.
    """

    def __init__(
        self, settings: TransformersSettings, prompt: Prompt, sampling: Sampling, *, style: Format = "chat"
    ) -> None:
        self._settings, self._sampling, self._form = settings, sampling, prompt.form
        config = load_config(settings.model, settings.revision)
        self._tokenizer = asking_tokenizer(settings.model, settings.revision, style)
        self._skeleton = Skeleton(self._ids_of, prompt.form) if settings.structured and prompt.form else None
        self._most_new = settings.max_new_tokens + (prompt.form.text_tokens if prompt.form else 0)
        longest = self._most_new if self._skeleton is None else self._skeleton.longest
        self._encoding = PromptEncoding(
            self._tokenizer,
            prompt,
            context=getattr(config.get_text_config(), "max_position_embeddings", None),
            answer=longest,
            limit=settings.max_sample_tokens,
            vocabulary=getattr(config.get_text_config(), "vocab_size", None),
        )
        # A branch on the Hub can move, so ratings belong to the commit that it names now.
        self._revision = getattr(config, "_commit_hash", None) or settings.revision

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything that answers depend on besides prompt, sample and sampling."""
        settings = self._settings
        free = {} if settings.structured else {"max_new_tokens": settings.max_new_tokens}
        return {
            "kind": settings.kind,
            "model": revision_of(settings.model, self._revision),
            "precision": str(dtype_of(settings.precision)).removeprefix("torch."),
            "structured": settings.structured,
            "max_sample_tokens": settings.max_sample_tokens,
            **free,
        }

    @property
    def deterministic(self) -> bool:
        """Whether another attempt can only give the same answer: when nothing is drawn, or every answer parses."""
        return self._sampling.greedy or self._skeleton is not None

    @property
    def eager(self) -> bool:
        """No: a group's batches are computed one after the other."""
        return False

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples, exact by the model's tokenizer."""
        return [encoded.size for encoded in self._encoding.encode(texts)]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Ask; the answers of a batch come together.

        Raises:
            ModelError: when the model gives NaN or infinity, or a batch does not fit into the GPU's memory.
        """
        for group in groups:
            yield from self._answer(list(group))

    def _answer(self, requests: list[Request]) -> Iterator[list[Answer]]:
        items: list[_Item] = []
        unasked: list[Answer] = []
        for request, encoded in zip(requests, self._encoding.encode([r.text for r in requests]), strict=True):
            if (problem := encoded.size.problem) is not None:
                error = self._encoding.complaint(encoded.size)
                unasked.append(Answer(request.id, problem=problem, error=error))
            else:
                items.append((request, encoded))
        if unasked:
            yield unasked
        # Free text may become as long as it is allowed to; an answer of numbers is short.
        free = self._settings.max_new_tokens if self._form is None else self._form.text_tokens
        extra = len(self._encoding.tail) + free
        for places in batches([len(encoded.ids) + extra for _, encoded in items], self._batch_tokens):
            batch = [items[place] for place in places]
            yield self._write_freely(batch) if self._skeleton is None else self._guide(batch, self._skeleton)

    def close(self) -> None:
        """Let go of the model and its memory."""
        for kept in ("_head", "_model"):
            self.__dict__.pop(kept, None)
        gc.collect()
        if device().type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _guide(self, batch: list[_Item], skeleton: Skeleton) -> list[Answer]:
        """Let the model write each answer's text, if there is one, and choose its numbers, one after the other."""
        rows = Sequences(self._model, self._head, len(batch))
        form = skeleton.form
        values: list[list[int]] = [[] for _ in batch]
        shares: list[list[list[float]]] = []
        chunks = [encoded.ids + self._encoding.tail for _, encoded in batch]
        texts, written = [""] * len(batch), [0] * len(batch)
        if form.text is not None:
            chunks = [[*chunk, *skeleton.opening] for chunk in chunks]
            texts, written, chunks = self._texts.write(rows, chunks, [request for request, _ in batch], form.text)
        for position, slot in enumerate(skeleton.slots):
            chunks = [[*chunk, *slot.before, *slot.ahead] for chunk in chunks]
            probabilities = slot.probabilities(rows.feed(chunks, keep=1 + len(slot.ahead)))
            rows.take_back(len(slot.ahead))
            draws = [self._sampling.draw(request.id, request.attempt, position) for request, _ in batch]
            chosen = self._sampling.choose(probabilities.log(), draws).tolist()
            for row, choice in zip(values, chosen, strict=True):
                row.append(form.numbers[position].values[choice])
            chunks = [list(slot.values[choice]) for choice in chosen]
            shares.append(probabilities.tolist())
        return [
            Answer(
                request.id,
                form.write(row, texts[place]),
                probabilities=tuple(tuple(shares[key][place]) for key in form.told),
                shortened=encoded.size.shortened,
                prompt_tokens=encoded.size.prompt_tokens,
                completion_tokens=len(skeleton.opening) + written[place] + len(skeleton.tokens(row)),
            )
            for place, ((request, encoded), row) in enumerate(zip(batch, values, strict=True))
        ]

    def _write_freely(self, batch: list[_Item]) -> list[Answer]:
        """Let the model write until each answer parses, ends by itself or has as many tokens as it may have."""
        rows = Sequences(self._model, self._head, len(batch))
        written: list[list[int]] = [[] for _ in batch]
        named: list[list[dict[int, float]]] = [[] for _ in batch]
        going = list(range(len(batch)))
        places = going  # whose rows are still read on
        chunks = [encoded.ids + self._encoding.tail for _, encoded in batch]
        for position in range(self._most_new):
            logits = rows.feed(chunks, keep=1)[:, 0].float()
            asked = [batch[place][0] for place in places]
            draws = [self._sampling.draw(request.id, request.attempt, position) for request in asked]
            chosen = self._sampling.choose(logits, draws)
            tokens = dict(zip(places, chosen.tolist(), strict=True))
            for place in going:
                written[place].append(tokens[place])
            if self._form is not None:
                for place, shares in zip(places, _most_probable(logits, chosen), strict=True):
                    named[place].append(shares)
            going = [
                place for place in going if tokens[place] not in self._ends and not self._is_complete(written[place])
            ]
            if not going:
                break
            if len(going) <= len(places) // 2:
                rows.select([place in going for place in places])
                places = going
            chunks = [[tokens[place]] if place in going else [] for place in places]
        return [
            Answer(
                request.id,
                self._text_of(ids),
                probabilities=probabilities_of_ids(self._form, ids, named[place], self._text_of)
                if self._form
                else None,
                shortened=encoded.size.shortened,
                cut=place in going,
                prompt_tokens=encoded.size.prompt_tokens,
                completion_tokens=len(ids),
            )
            for place, ((request, encoded), ids) in enumerate(zip(batch, written, strict=True))
        ]

    def _is_complete(self, ids: list[int]) -> bool:
        """Whether the answer is a whole one already, so that what a model might add need not be waited for."""
        if self._form is None:
            return False
        text = self._text_of(ids)
        if not text.rstrip().endswith(("}", "```")):
            return False
        try:
            return STRICT.issuperset(self._form.read(text).leniencies)  # else it may take back what it said
        except UnparsableError:
            return False

    def _text_of(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _ids_of(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    @cached_property
    def _texts(self) -> GuidedTexts:
        return GuidedTexts(self._tokenizer, self._sampling, self._ends)

    @cached_property
    def _model(self) -> PreTrainedModel:
        model = load_causal_lm(self._settings.model, self._settings.revision, self._settings.precision)
        use_grouped_attention(model)
        return model

    @cached_property
    def _batch_tokens(self) -> int:
        # On a GPU, larger batches of 2,000 samples took half the time of small ones; a CPU gains nothing by them.
        return self._settings.batch_tokens or (32_768 if device().type == "cuda" else 4096)

    @cached_property
    def _head(self) -> DynamicCache:
        return head_cache(self._model, self._encoding.head)

    @cached_property
    def _ends(self) -> set[int]:
        """The tokens that end an answer."""
        named = getattr(self._model.generation_config, "eos_token_id", None)
        return {*(named if isinstance(named, list) else [named]), self._tokenizer.eos_token_id} - {None}


def _most_probable(logits: Tensor, chosen: Tensor) -> list[dict[int, float]]:
    """The most probable tokens of each row with the logarithms of their probabilities, the chosen one among them."""
    logs = logits.log_softmax(-1)
    top = logs.topk(ALTERNATIVES)
    taken = logs.gather(1, chosen[:, None])[:, 0].tolist()
    rows = zip(top.indices.tolist(), top.values.tolist(), chosen.tolist(), taken, strict=True)
    return [dict(zip(ids, values, strict=True)) | {token: log} for ids, values, token, log in rows]


def batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Group samples of like length so that no batch has more than `tokens` tokens with its padding, and little padding.

    Returns:
        Lists of places in `lengths`. The batch of the longest samples comes first, so that a lack of memory shows at
        once; the others are mixed, so that the progress seen is that of the whole. Where a batch ends does not depend
        on what comes after it but for its being too much or too short: leaving out whole batches leaves the others as
        they are, so that a run that goes on after a kill computes the very same batches.
    """
    found: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        if found:
            longest, size = lengths[found[-1][0]], len(found[-1])
            alike = lengths[place] >= _ALIKE * longest or size * longest < _LEAST_TOKENS
            if alike and (size + 1) * longest <= tokens:
                found[-1].append(place)
                continue
        found.append([place])
    rest = found[1:]
    random.Random(0).shuffle(rest)
    return found[:1] + rest
