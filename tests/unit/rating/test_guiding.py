"""Guided decoding: the JSON's tokens, the probabilities of the ten scores, and draws that batches do not change."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from zlib import crc32

import numpy as np
import pytest

from tamis.core.errors import ModelError
from tamis.llm.backends.sampling import Sampling
from tamis.llm.backends.skeleton import Skeleton
from tests.paper_prompt import FORM, Scores, write

torch = pytest.importorskip("torch")


def by_characters(text: str) -> list[int]:
    """A tokenizer that writes 10 as two tokens."""
    return [ord(character) for character in text]


def with_ten(text: str) -> list[int]:
    """A tokenizer with a token for 10."""
    return [1010 if part == "\n" else ord(part) for part in text.replace("10", "\n")]


def with_commas(text: str) -> list[int]:
    """A tokenizer that joins a digit with the comma or brace after it."""
    tokens = []
    for digit in range(10):
        for end in ",}":
            text = text.replace(f"{digit}{end}", chr(3000 + 10 * digit + (end == "}")))
    tokens += [ord(character) for character in text]
    return tokens


def with_twos(text: str) -> list[int]:
    """A tokenizer that writes 2 and 20 with two bytes each, so that scores branch at several places."""
    return [ord(character) for character in text.replace("2", "\x02\x03").replace("1", "\x04\x05")]


@pytest.mark.parametrize("encode", [by_characters, with_ten, with_commas])
def test_the_tokens_of_an_answer_are_the_tokenizers_own(encode: Callable[[str], list[int]]) -> None:
    skeleton = Skeleton(encode, FORM)
    for scores in itertools.product((1, 2, 9, 10), repeat=4):
        assert skeleton.tokens(Scores(*scores)) == encode(write(Scores(*scores)))
    assert skeleton.longest == max(len(encode(write(Scores(v, v, v, v)))) for v in range(1, 11))


def test_only_a_ten_of_two_tokens_needs_a_look_ahead() -> None:
    assert {slot.ahead for slot in Skeleton(by_characters, FORM).slots} == {(ord("1"),)}
    assert {slot.ahead for slot in Skeleton(with_ten, FORM).slots} == {()}


def test_a_tokenizer_that_cannot_be_guided_is_refused() -> None:
    with pytest.raises(ModelError, match="structured: false"):
        Skeleton(with_twos, FORM)
    with pytest.raises(ModelError, match="structured: false"):
        Skeleton(lambda text: [crc32(text.encode())], FORM)


def test_probabilities_follow_the_chain_rule_and_sum_to_one() -> None:
    slot = Skeleton(by_characters, FORM).slots[3]
    logits = torch.randn(5, 2, 4000, generator=torch.Generator().manual_seed(0)) * 3
    shares = slot.probabilities(logits).numpy()
    first = np.exp(logits[:, 0].double().log_softmax(-1).numpy())
    second = np.exp(logits[:, 1].double().log_softmax(-1).numpy())
    one, zero = ord("1"), ord("0")
    whole = [first[:, one] * (1 - second[:, zero])] + [first[:, ord(str(v))] for v in range(2, 10)]
    expected = np.stack([*whole, first[:, one] * second[:, zero]], -1)
    np.testing.assert_allclose(shares, expected / expected.sum(-1, keepdims=True), rtol=1e-5)


def test_probabilities_of_one_token_scores_are_the_softmax_over_the_ten() -> None:
    slot = Skeleton(with_ten, FORM).slots[0]
    logits = torch.randn(4, 1, 4000, generator=torch.Generator().manual_seed(1))
    ten = logits[:, 0, [*(ord(str(v)) for v in range(1, 10)), 1010]]
    torch.testing.assert_close(slot.probabilities(logits).float(), torch.softmax(ten, -1))


def test_a_hopeless_score_still_gives_probabilities() -> None:
    logits = torch.full((1, 2, 4000), 0.0)
    logits[:, :, 5] = 90.0
    shares = Skeleton(by_characters, FORM).slots[0].probabilities(logits)
    assert torch.isfinite(shares).all()
    assert float(shares.sum()) == pytest.approx(1)


LOGITS = torch.tensor([[0.1, 0.2, 0.4, 0.3]]).log()


def frequencies(sampling: Sampling, draws: int = 4000) -> list[float]:
    chosen = sampling.choose(LOGITS.repeat(draws, 1), [sampling.draw(f"{i}", 1, 0) for i in range(draws)])
    return (torch.bincount(chosen, minlength=4) / draws).tolist()


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), [0, 0, 1, 0]),
        (Sampling(temperature=1), [0.1, 0.2, 0.4, 0.3]),
        (Sampling(temperature=0.5), [1 / 30, 4 / 30, 16 / 30, 9 / 30]),
        (Sampling(temperature=1, top_k=2), [0, 0, 4 / 7, 3 / 7]),
        (Sampling(temperature=1, top_k=99), [0.1, 0.2, 0.4, 0.3]),
        (Sampling(temperature=1, top_p=0.6), [0, 0, 4 / 7, 3 / 7]),
        (Sampling(temperature=1, top_p=0.01), [0, 0, 1, 0]),
        (Sampling(temperature=1, top_p=0.8), [0, 2 / 9, 4 / 9, 3 / 9]),
    ],
)
def test_choices_have_the_frequencies_asked_for(sampling: Sampling, expected: list[float]) -> None:
    np.testing.assert_allclose(frequencies(sampling), expected, atol=0.03)


def test_a_choice_depends_on_the_sample_the_attempt_and_the_seed_only() -> None:
    sampling = Sampling(temperature=1)
    assert sampling.draw("a", 1, 0) == Sampling(temperature=1).draw("a", 1, 0)
    others = [sampling.draw("b", 1, 0), sampling.draw("a", 2, 0), sampling.draw("a", 1, 1)]
    others.append(Sampling(temperature=1, seed=1).draw("a", 1, 0))
    assert len({sampling.draw("a", 1, 0), *others}) == 5
    draws = [sampling.draw(f"{i}", 1, 0) for i in range(50)]
    together = sampling.choose(LOGITS.repeat(50, 1), draws).tolist()
    alone = [sampling.choose(LOGITS, [draw]).item() for draw in draws]
    assert together == alone


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53])
def test_the_ends_of_the_range_choose_what_has_a_probability(draw: float) -> None:
    logits = torch.tensor([[float("-inf"), 0.0, 0.0, float("-inf")]])
    assert Sampling(temperature=1).choose(logits, [draw]).item() in (1, 2)
