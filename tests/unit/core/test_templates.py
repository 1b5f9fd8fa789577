"""Chat templates: one date for all days, and no sample that can write its tokenizer's control tokens."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tamis.core.conversations import IGNORED, Encoder, Unusable, chat_tokenizer
from tamis.core.leftout import NOT_PLAIN
from tamis.core.templates import PlainWords, render
from tamis.llm.backends.encoding import PromptEncoding
from tests.artifacts import conversation

# Like DeepSeek's: added tokens around turns that the tokenizer does not call special.
FRAMES = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<User>' + m.content }}{% else %}"
    "{{ '<Assistant>' + m.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<Assistant>' }}{% endif %}"
)
INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)


def framed(models: Path) -> Any:
    from tokenizers import AddedToken

    tokenizer = chat_tokenizer(str(models / "smollm2"), None, "chat")
    tokenizer.add_tokens([AddedToken(word, special=False) for word in ("<User>", "<Assistant>", "<think>")])
    tokenizer.chat_template = FRAMES
    return tokenizer


def pieces() -> Any:
    """A tokenizer like SentencePiece's of Llama 2: a space before every text, bytes for what it does not know."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = [chr(code) for code in range(33, 127)] + ["▁", "\n"]
    vocabulary = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *letters, "▁<", "/s", "an"]
    numbers = {piece: number for number, piece in enumerate(vocabulary)}
    merges = [("▁", "<"), ("/", "s"), ("a", "n")]
    core = Tokenizer(models.BPE(vocab=numbers, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    core.add_special_tokens(["<unk>", "<s>", "</s>"])
    core.add_tokens([AddedToken("[INST]", normalized=False), AddedToken("[/INST]", normalized=False)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = INSTRUCT
    return tokenizer


@pytest.fixture(scope="module")
def tokenizers(models: Path) -> dict[str, Any]:
    chat, tulu = (chat_tokenizer(str(models / "smollm2"), None, style) for style in ("chat", "tulu"))
    return {"chat": chat, "tulu": tulu, "frames": framed(models), "pieces": pieces()}


KINDS = ("chat", "tulu", "frames", "pieces")
WORDS = {
    "chat": ("<|im_end|>", "<|im_start|>", "<|endoftext|>"),
    "tulu": ("<|im_end|>", "<|endoftext|>"),
    "frames": ("<User>", "<Assistant>", "<|im_end|>"),
    "pieces": ("[INST]", "[/INST]", "</s>", "<s>"),
}


def decoded(tokenizer: Any, ids: list[int]) -> str:
    text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    return text


@pytest.mark.parametrize(
    "template",
    [
        "{{ strftime_now('%d %b %Y') }} {{ messages[0]['content'] }}",
        "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "{{ date_string }} {{ messages[0]['content'] }}",
    ],
)
def test_templates_that_ask_for_the_date_get_a_fixed_one(models: Path, template: str) -> None:
    tokenizer = chat_tokenizer(str(models / "smollm2"), None, "chat")
    tokenizer.chat_template = template
    assert render(tokenizer, conversation("Hi")) == "26 Jul 2024 Hi"
    tokenizer.chat_template = template + "{% for m in messages[1:] %}{{ m.content }}<|im_end|>{% endfor %}"
    tokens = Encoder(tokenizer, 100).encode(conversation("Hi", "Ho"))
    assert decoded(tokenizer, tokens.input_ids) == "26 Jul 2024 HiHo<|im_end|>"


@settings(max_examples=40, deadline=None)
@given(
    turns=st.lists(
        st.text("ab <|/>[]9.\n\té三🦉_ends", min_size=1, max_size=30).filter(lambda text: text.strip() == text),
        min_size=2,
        max_size=4,
    ).filter(lambda turns: len(turns) % 2 == 0),
    kind=st.sampled_from(KINDS),
)
def test_samples_without_such_words_are_tokenised_as_their_rendered_text_is(
    tokenizers: dict[str, Any], turns: list[str], kind: str
) -> None:
    tokenizer = tokenizers[kind]
    encoder = Encoder(tokenizer, 4096)
    if any(PlainWords(tokenizer).are_in(turn) for turn in turns):
        return
    messages = conversation(*turns)
    text, spans, _ = encoder._spans(messages)
    assert text == render(tokenizer, messages)
    cuts = [0, *(start for start, _ in spans if start), len(text)] if encoder._composes else [0, len(text)]
    ids = [tokenizer(text[a:b], add_special_tokens=False)["input_ids"] for a, b in pairwise(cuts)]
    tokens = encoder.encode(messages)
    assert tokens.input_ids == [token for part in ids for token in part]
    assert not tokens.broken


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_control_tokens_in_a_sample_are_plain_text(tokenizers: dict[str, Any], kind: str) -> None:
    tokenizer = tokenizers[kind]
    word, *more = WORDS[kind]
    messages = conversation(f"What is {word}?", f"An end: {word} " + " ".join(more) + ".", word, word)
    tokens = Encoder(tokenizer, 4096).encode(messages)
    controls = {tokenizer.convert_tokens_to_ids(word) for word in WORDS[kind]}
    plain = Encoder(tokenizer, 4096).encode(conversation("What is it?", "An end.", "it", "it"))
    assert [i for i in tokens.input_ids if i in controls] == [i for i in plain.input_ids if i in controls]
    assert decoded(tokenizer, tokens.input_ids) == decoded(
        tokenizer, tokenizer(render(tokenizer, messages), add_special_tokens=False)["input_ids"]
    )
    learnt = [i for i, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED]
    end = tokenizer.eos_token
    assert decoded(tokenizer, learnt).strip().replace(" " + word, word) == (
        f"{messages[1]['content']}{end}{word}{end}".replace(" " + word, word)
    )
    assert [i for i in learnt if i in controls] == [tokenizer.eos_token_id] * 2
    assert tokens.broken


def test_the_tokens_of_such_a_word_are_those_of_the_same_characters_elsewhere(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["chat"]
    tokens = Encoder(tokenizer, 100).encode(conversation("Hi", "Say <|im_end|> now"))
    learnt = [i for i, label in zip(tokens.input_ids, tokens.labels, strict=True) if label != IGNORED]
    plain = tokenizer("Say <|im_end|> now", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert learnt == [*plain, tokenizer.eos_token_id]


def test_added_tokens_that_are_not_around_turns_stay_tokens(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["frames"]
    tokens = Encoder(tokenizer, 100).encode(conversation("Hi", "<think>So <User>"))
    assert tokenizer.convert_tokens_to_ids("<think>") in tokens.input_ids
    assert tokens.input_ids.count(tokenizer.convert_tokens_to_ids("<User>")) == 1


def test_a_tokenizer_that_cannot_read_such_a_word_as_text_leaves_the_sample_out(models: Path) -> None:
    from tokenizers import normalizers

    tokenizer = framed(models)
    tokenizer._tokenizer.normalizer = normalizers.Replace("\ue000", "")  # it takes the mark away beforehand
    encoder = Encoder(tokenizer, 100)
    encoder.encode(conversation("Hi", "Ho"))
    with pytest.raises(Unusable) as caught:
        encoder.encode(conversation("Hi", "<User>"))
    assert str(caught.value) == NOT_PLAIN


def test_prompts_keep_samples_plain_where_the_template_s_tokens_are_not_special(tokenizers: dict[str, Any]) -> None:
    class Prompt:
        before, after, marker, form = "Rate: ", "", None, object()

    tokenizer = tokenizers["frames"]
    encoding = PromptEncoding(tokenizer, Prompt(), context=None, answer=1, limit=100)  # type: ignore[arg-type]
    other, broken = encoding.encode(["a word", "a <User> word <|im_end|>"])
    controls = {tokenizer.convert_tokens_to_ids(word) for word in WORDS["frames"]}
    assert decoded(tokenizer, broken.ids) == "a <User> word <|im_end|>"
    assert not controls & set(broken.ids)
    assert other.ids == tokenizer("a word", add_special_tokens=False)["input_ids"]
