"""What is learnt of a conversation, token by token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.core.conversations import IGNORED, Encoder, Tokens, Unusable, chat_tokenizer
from tamis.core.errors import InputError, ModelError, SettingsError
from tamis.core.leftout import REFUSED, REWRITTEN
from tamis.core.samples import Message
from tamis.finetuning.conversations import write_tokens
from tamis.finetuning.settings import FinetuningSettings
from tests.artifacts import conversation

END = "<|im_end|>"
TRIMMING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n\n' + m.content | trim + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n\n' }}{% endif %}"
)
BRACKETS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' <|im_end|>' }}"
    "{% else %}{{ raise_exception('no system turns') }}{% endif %}{% endfor %}"
)
# Writes empty thoughts before the last answer only, and opens thoughts in the prompt.
THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
    "{% if loop.last and m.role == 'assistant' %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def smollm2(models: Path) -> str:
    return str(models / "smollm2")


@cache
def tokenizer_of(model: str, style: str) -> Any:
    tokenizer = chat_tokenizer(model, None, "tulu" if style == "tulu" else "chat")
    if style not in ("tulu", "chat"):
        tokenizer.chat_template = style
    return tokenizer


def learnt_texts(tokenizer: Any, tokens: Tokens) -> list[str]:
    """The learnt tokens of each answer, decoded."""
    texts, run = [], []
    for token, label in zip([*tokens.input_ids, 0], [*tokens.labels, IGNORED], strict=True):
        if label != IGNORED:
            assert label == token
            run.append(token)
        elif run:
            texts.append(tokenizer.decode(run, clean_up_tokenization_spaces=False))
            run = []
    return texts


@pytest.mark.parametrize("style", ["chat", "tulu", TRIMMING])
@pytest.mark.parametrize(
    "turns",
    [
        ("Hello", "Good day."),
        ("One?", "1", "Two?", "2 and\n\nmore", "Three?", "Three: 三 🦉 é."),
        ("Say assistant", "assistant"),
        ("Say it\nagain", "    indented code\n\treturn 0"),
    ],
)
def test_exactly_the_answers_and_their_end_tokens_are_learnt(smollm2: str, style: str, turns: tuple[str, ...]) -> None:
    tokenizer, messages = tokenizer_of(smollm2, style), conversation(*turns)
    tokens = Encoder(tokenizer, 2048).encode(messages)
    answers = [turn.strip() if style == TRIMMING else turn for turn in turns[1::2]]
    assert learnt_texts(tokenizer, tokens) == [answer + END for answer in answers]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    assert tokenizer.decode(tokens.input_ids, clean_up_tokenization_spaces=False) == text
    assert (tokens.shortened, tokens.unended) == (False, 0)


@pytest.mark.parametrize("style", ["chat", "tulu", TRIMMING])
@pytest.mark.parametrize("answer", ["1", "    return 1"])
def test_an_answer_follows_the_tokens_that_the_model_is_asked_with(smollm2: str, style: str, answer: str) -> None:
    tokenizer, messages = tokenizer_of(smollm2, style), conversation("One?", answer, "And two?", "2")
    tokens = Encoder(tokenizer, 2048).encode(messages)
    text = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    asked = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokens.input_ids[: len(asked)] == asked
    assert tokens.labels[len(asked) - 1] == IGNORED != tokens.labels[len(asked)]


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(
        st.text("ab 9.,!\n\té三🦉'\"", min_size=1, max_size=20).filter(lambda text: text.strip()),
        min_size=2,
        max_size=6,
    ).filter(lambda turns: len(turns) % 2 == 0),
    style=st.sampled_from(["chat", "tulu"]),
)
def test_any_answer_is_learnt_whole(models: Path, turns: list[str], style: str) -> None:
    tokenizer = tokenizer_of(str(models / "smollm2"), style)
    tokens = Encoder(tokenizer, 4096).encode(conversation(*turns))
    assert learnt_texts(tokenizer, tokens) == [turn + END for turn in turns[1::2]]


def test_a_space_before_the_end_token_and_before_the_answer_is_learnt_with_it(smollm2: str) -> None:
    tokenizer = tokenizer_of(smollm2, BRACKETS)
    tokens = Encoder(tokenizer, 2048).encode(conversation("One?", "1", "Two?", "2"))
    assert learnt_texts(tokenizer, tokens) == [" 1 " + END, " 2 " + END]


def test_thoughts_that_the_template_puts_before_the_last_answer_are_learnt_as_its_beginning(smollm2: str) -> None:
    tokenizer = tokenizer_of(smollm2, THINKING)
    tokens = Encoder(tokenizer, 2048).encode(conversation("One?", "1", "Two?", "2"))
    first, last = learnt_texts(tokenizer, tokens)
    assert first == "1" + END
    assert last.endswith("</think>\n\n2" + END)
    assert "Two" not in last


def test_a_turn_without_an_end_token_is_counted(smollm2: str) -> None:
    tokenizer = tokenizer_of(smollm2, "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}")
    tokens = Encoder(tokenizer, 2048).encode(conversation("One?", "1", "Two?", "2"))
    assert tokens.unended == 2
    assert "?" not in "".join(learnt_texts(tokenizer, tokens))


def test_a_tokenizer_that_begins_texts_with_a_space_gets_them_whole(smollm2: str, tmp_path: Path) -> None:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import AutoTokenizer

    plain = AutoTokenizer.from_pretrained(smollm2)
    plain._tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    plain.save_pretrained(tmp_path)
    tokenizer, messages = tokenizer_of(str(tmp_path), "chat"), conversation("One?", "Ah, 1.", "Two?", "2")
    tokens = Encoder(tokenizer, 2048).encode(messages)
    whole = tokenizer(tokenizer.apply_chat_template(messages, tokenize=False), add_special_tokens=False)["input_ids"]
    assert tokens.input_ids == whole
    assert [text.strip() for text in learnt_texts(tokenizer, tokens)] == ["Ah, 1." + END, "2" + END]


def test_a_template_that_refuses_a_role_or_rewrites_an_answer_makes_the_sample_unusable(smollm2: str) -> None:
    system = [Message(role="system", content="Be brief."), *conversation("One?", "1")]
    with pytest.raises(Unusable, match=REFUSED):
        Encoder(tokenizer_of(smollm2, BRACKETS), 2048).encode(system)
    shouting = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(Unusable, match=REWRITTEN):
        Encoder(tokenizer_of(smollm2, shouting), 2048).encode(conversation("one?", "a word"))


def test_the_tulu_format_is_that_of_the_paper(smollm2: str) -> None:
    tokenizer = tokenizer_of(smollm2, "tulu")
    text = tokenizer.apply_chat_template(conversation("One?", "1"), tokenize=False)
    assert text == f"<|user|>\nOne?\n<|assistant|>\n1{END}\n"


def test_a_tokenizer_that_begins_every_text_with_a_token_keeps_it_in_the_tulu_format(
    smollm2: str, tmp_path: Path
) -> None:
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    tokenizer.save_pretrained(tmp_path)
    text = tokenizer_of(str(tmp_path), "tulu").apply_chat_template(conversation("One?", "1"), tokenize=False)
    assert text.startswith("<|endoftext|><|user|>\n")


def test_the_chat_format_needs_a_chat_template(smollm2: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(SettingsError, match="chat template"):
        chat_tokenizer(str(tmp_path), None, "chat")


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}",
        "{% for m in messages %}{{ m.content.no.such }}{% endfor %}",
        "{% for m in messages %}{{ m.content + 1 }}{% endfor %}",
    ],
)
def test_a_chat_template_with_a_fault_is_the_model_s_fault(smollm2: str, tmp_path: Path, template: str) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError) as refused:
        chat_tokenizer(str(tmp_path), None, "chat")
    assert refused.value.code == "model"


def test_a_fault_with_one_sample_alone_leaves_that_sample_out(smollm2: str, tmp_path: Path) -> None:
    encoder = Encoder(tokenizer_of(smollm2, "{% for m in messages %}{{ 1 // (9 - m.content|length) }}{% endfor %}"), 64)
    with pytest.raises(Unusable) as left_out:
        encoder.encode(conversation("Nine char", "1"))
    assert str(left_out.value) == REFUSED


def write_subset(path: Path, samples: Sequence[Sequence[Message]]) -> Path:
    path.write_text("".join(json.dumps({"id": str(i), "messages": m}) + "\n" for i, m in enumerate(samples)))
    return path


def test_long_samples_are_cut_at_the_end_and_samples_without_an_answer_left_are_dropped(
    smollm2: str, tmp_path: Path
) -> None:
    from datasets import Dataset

    subset = write_subset(
        tmp_path / "subset.jsonl",
        [conversation("Short?", "Yes."), conversation("Long?", "word " * 200), conversation("word " * 200, "Yes.")],
    )
    values = FinetuningSettings(model=smollm2, format="chat", max_tokens=64, max_left_out_share=0.5)
    counts = write_tokens(subset, chat_tokenizer(values.model, None, values.format), values, tmp_path)
    rows = Dataset.from_file(str(tmp_path / "tokens.arrow"))
    assert (counts["samples"], counts["shortened"], len(rows)) == (2, 1, 2)
    assert counts["dropped"] == {"no token of an answer within max_tokens": 1}
    assert counts["tokens"] == sum(len(row["input_ids"]) for row in rows)
    assert counts["learnt_tokens"] == sum(label != IGNORED for row in rows for label in row["labels"])
    assert len(rows[1]["input_ids"]) == 64


def test_a_second_run_keeps_the_tokens_of_the_first(smollm2: str, tmp_path: Path) -> None:
    subset = write_subset(tmp_path / "subset.jsonl", [conversation("Short?", "Yes.")])
    values = FinetuningSettings(model=smollm2, format="chat")
    tokenizer = chat_tokenizer(values.model, None, values.format)
    counts = write_tokens(subset, tokenizer, values, tmp_path)
    assert write_tokens(tmp_path / "gone.jsonl", tokenizer, values, tmp_path) == counts


@pytest.mark.parametrize(
    ("lines", "seen"),
    [("", "is empty"), ('{"id": "1"}\n', "line 1"), ("not json\n", "line 1")],
)
def test_a_subset_that_cannot_be_trained_on_is_an_error(smollm2: str, tmp_path: Path, lines: str, seen: str) -> None:
    subset = tmp_path / "subset.jsonl"
    subset.write_text(lines)
    values = FinetuningSettings(model=smollm2, format="chat")
    with pytest.raises(InputError, match=seen):
        write_tokens(subset, chat_tokenizer(values.model, None, values.format), values, tmp_path)


def test_more_left_out_than_is_allowed_is_an_error_with_what_helps(
    smollm2: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, long = conversation("Short?", "Yes."), conversation("word " * 500, "Yes.")
    values = FinetuningSettings(model=smollm2, format="chat", max_tokens=64)
    tokenizer = chat_tokenizer(values.model, None, values.format)
    subset = write_subset(tmp_path / "few.jsonl", [good] * 3 + [long] * 17)
    with pytest.raises(InputError, match="17 of 20 samples") as caught:
        write_tokens(subset, tokenizer, values, tmp_path)
    assert "finetuning.max_tokens" in caught.value.action
    assert "tulu" not in caught.value.action  # which helps against other reasons
    subset = write_subset(tmp_path / "most.jsonl", [good] * 19 + [long])
    assert write_tokens(subset, tokenizer, values, tmp_path)["dropped"] == {
        "no token of an answer within max_tokens": 1
    }
    assert any("1 of 20 samples" in record.message for record in caplog.records)


def test_a_template_that_refuses_system_turns_fails_with_another_cure(smollm2: str, tmp_path: Path) -> None:
    values = FinetuningSettings(model=smollm2, format="chat")
    tokenizer = chat_tokenizer(values.model, None, values.format)
    tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        + tokenizer.chat_template
    )
    system = [{"role": "system", "content": "Be brief."}, *conversation("Short?", "Yes.")]
    subset = write_subset(tmp_path / "subset.jsonl", [system, conversation("Short?", "Yes.")])
    with pytest.raises(InputError) as caught:
        write_tokens(subset, tokenizer, values, tmp_path)
    assert REFUSED in caught.value.problem
    assert "tulu" in caught.value.action
    assert "max_tokens" not in caught.value.action
