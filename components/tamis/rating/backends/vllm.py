"""Rating with a local model through vLLM's engine: continuous batching, cached prefix, several GPUs."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.llm.client import Reply
from tamis.core.llm.faults import shortened
from tamis.core.llm.stream import Asking
from tamis.core.models import dtype_of, load_config, load_tokenizer, revision_of
from tamis.rating.backend import Answer, Request, Size
from tamis.rating.backends.encoding import Encoded, PromptEncoding
from tamis.rating.backends.openai import ALTERNATIVES, ANSWER_TOKENS, SCHEMA, answer_of

if TYPE_CHECKING:
    from tamis.rating.backends.sampling import Sampling
    from tamis.rating.prompts import Prompt
    from tamis.rating.settings import VllmSettings


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    encoded: Encoded


class VllmBackend:
    """A chat model in vLLM's engine, which this process starts with the first question and keeps.

    Prompts are token ids made here, as for `kind: transformers`: words of the chat template inside a sample stay plain
    text, and samples are shortened by the model's own tokens.

    Raises:
        ModelError: when the model cannot be loaded, or cannot be asked in this way.
        MissingExtraError: when transformers is not installed.
    """

    def __init__(self, settings: VllmSettings, prompt: Prompt, sampling: Sampling) -> None:
        self._settings, self._sampling = settings, sampling
        config = load_config(settings.model, settings.revision)
        longest = settings.engine.get("max_model_len")
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
        self._encoding = PromptEncoding(
            load_tokenizer(settings.model, settings.revision),
            prompt,
            context=longest if isinstance(longest, int) else context,
            answer=settings.max_new_tokens,
            limit=settings.max_sample_tokens,
        )
        self._revision = getattr(config, "_commit_hash", None) or settings.revision

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """All that answers depend on beside the prompt, the sample and the sampling."""
        settings = self._settings
        return {
            "kind": settings.kind,
            "model": revision_of(settings.model, self._revision),
            "precision": str(dtype_of(settings.precision)).removeprefix("torch."),
            "quantization": settings.quantization,
            "structured": settings.structured,
            "max_new_tokens": settings.max_new_tokens,
            "max_sample_tokens": settings.max_sample_tokens,
        }

    @property
    def deterministic(self) -> bool:
        """Whether another attempt can only give the same answer: when nothing is drawn."""
        return self._sampling.greedy

    @property
    def eager(self) -> bool:
        """Yes: what was read is in the engine."""
        return True

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples, exact by the model's tokenizer but for the answer's tokens."""
        sizes = (encoded.size for encoded in self._encoding.encode(texts))
        return [Size(size.prompt_tokens, ANSWER_TOKENS, size.shortened, size.too_long) for size in sizes]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Rate; an answer comes as soon as it is there.

        Raises:
            ModelError: when the engine cannot be started, or dies.
            MissingExtraError: when vLLM is not installed.
        """
        too_long: list[Answer] = []

        def jobs() -> Iterator[_Job]:
            for group in groups:
                for request in group:
                    (encoded,) = self._encoding.encode([request.text])
                    if encoded.size.too_long:
                        error = f"longer than the model's context: {encoded.size.prompt_tokens} tokens"
                        too_long.append(Answer(request.id, problem="too_long", error=error))
                    else:
                        yield _Job(request, encoded)

        asked = self._asking.stream(jobs(), lambda job: job, ahead=self._settings.concurrency)
        for outcomes in asked:
            answers = [answer_of(job.request, reply, shortened=job.encoded.size.shortened) for job, reply in outcomes]
            yield answers + too_long
            too_long.clear()
        yield too_long

    @cached_property
    def _asking(self) -> Asking[_Job, Reply]:
        asking: Asking[_Job, Reply] = Asking(lambda: _Engine(self._settings, self._encoding, self._sampling))
        asking.start()
        atexit.register(asking.close)
        return asking


class _Engine:
    """vLLM's engine inside an event loop."""

    def __init__(self, settings: VllmSettings, encoding: PromptEncoding, sampling: Sampling) -> None:
        try:
            from vllm import AsyncEngineArgs
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError:
            raise MissingExtraError.of("vllm", "vllm") from None
        self._settings, self._encoding, self._sampling = settings, encoding, sampling
        longest = encoding.longest_sample + len(encoding.head) + len(encoding.tail) + settings.max_new_tokens
        arguments = {
            "model": settings.model,
            "revision": settings.revision,
            "tokenizer_revision": settings.revision,
            "dtype": str(dtype_of(settings.precision)).removeprefix("torch."),
            "quantization": settings.quantization,
            "tensor_parallel_size": settings.tensor_parallel,
            "data_parallel_size": settings.data_parallel,
            "enable_prefix_caching": True,  # all samples share the prompt's beginning
            "max_model_len": longest,
            "disable_log_stats": True,
        }
        try:
            self._engine: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(**(arguments | settings.engine)))
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            raise ModelError(
                f"vLLM cannot start with the model '{settings.model}': {shortened(str(error))}",
                action="see the lines above; less memory: a smaller backend.max_sample_tokens, a quantization, or more "
                "GPUs by backend.tensor_parallel",
            ) from None

    async def __aenter__(self) -> _Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._engine.shutdown()

    async def ask(self, job: _Job) -> Reply:
        """The answer to one sample."""
        prompt = {"prompt_token_ids": [*self._encoding.head, *job.encoded.ids, *self._encoding.tail]}
        name = f"{job.request.id}-{job.request.attempt}"
        output: Any = None
        try:
            async for made in self._engine.generate(prompt, self._parameters(job.request), name):
                output = made
        except Exception as error:  # of many kinds; the engine's own log says more
            raise ModelError(f"vLLM's engine failed: {type(error).__name__}: {shortened(str(error))}") from error
        (choice,) = output.outputs
        return Reply(
            choice.text,
            str(choice.finish_reason),
            None,
            [_plain(token, named) for token, named in zip(choice.token_ids, choice.logprobs or (), strict=False)],
            job.encoded.size.prompt_tokens,
            len(choice.token_ids),
        )

    def _parameters(self, request: Request) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        sampling = self._sampling
        form = StructuredOutputsParams(json=SCHEMA, disable_any_whitespace=True) if self._settings.structured else None
        drawn = {} if sampling.greedy else {"seed": int(sampling.draw(request.id, request.attempt, 0) * 2**31)}
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=self._settings.max_new_tokens,
            logprobs=ALTERNATIVES,
            structured_outputs=form,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **drawn,
        )


def _plain(token: int, named: Mapping[int, Any]) -> dict[str, Any]:
    """One token with its alternatives, in the form that services give."""
    entries = {number: {"token": one.decoded_token, "logprob": one.logprob} for number, one in named.items()}
    return entries[token] | {"top_logprobs": list(entries.values())}
