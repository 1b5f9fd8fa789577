"""LESS against the plainest computation: one sample at a time, every gradient and the whole projection matrix there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tamis.core.artifacts import Artifact
from tamis.core.conversations import Encoder, chat_tokenizer
from tamis.core.errors import InputError, SettingsError
from tamis.core.sample_columns import conversations
from tamis.core.settings import parse
from tamis.influence import stage
from tamis.influence.settings import InfluenceSettings, TaskSettings
from tamis.influence.stage import run, warmup_samples
from tamis.influence.tasks import read_task
from tests.artifacts import conversation, make_pool
from tests.conftest import shared_data

SUMS = [conversation(f"What is {i} + {i + 3}?", f"{i} + {i + 3} = {2 * i + 3}") for i in range(1, 9)]
VERSE = [
    conversation(f"Write a line of verse about {s}.", f"O {s}, you shine above the silent sea of grey.")
    for s in ("dawn", "the moon", "rain", "a lamp", "frost", "the sun", "a star", "snow")
]
SAMPLES = SUMS + VERSE


def example(question: str, answer: str, subtask: str | None = None) -> dict[str, str]:
    return {"prompt": question, "completion": answer} | ({"subtask": subtask} if subtask else {})


def write_task(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    return make_pool(tmp_path / "pool", SAMPLES)


@pytest.fixture
def tasks(tmp_path: Path) -> list[dict[str, str]]:
    sums = [example("What is 20 + 5?", "20 + 5 = 25", "small"), example("What is 700 + 1?", "700 + 1 = 701", "large")]
    verse = [{"messages": conversation("Write a line of verse about fire.", "O fire, you dance above the ash of day.")}]
    return [
        {"name": "sums", "path": write_task(tmp_path / "sums.jsonl", [*sums, example("And 3 + 3?", "6", "small")])},
        {"name": "verse", "path": write_task(tmp_path / "verse.jsonl", verse)},
    ]


def settings_of(model: Path, tasks: list[dict[str, str]], **values: Any) -> InfluenceSettings:
    warmup = {"size": 8, "epochs": 2, "batch_size": 4, "rank": 2, "alpha": 8, "layers": 1, "learning_rate": 1e-3}
    warmup |= values.pop("warmup", {})
    defaults = {"format": "chat", "dimensions": 256, "batch_tokens": 160, "precision": "float32"}
    return InfluenceSettings.model_validate({"model": str(model), "tasks": tasks, "warmup": warmup} | defaults | values)


def rows_of(out: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = Artifact.open(out, "scores").table().to_pylist()
    return rows


def naive(settings: InfluenceSettings, pool: Path, folder: Path) -> np.ndarray:
    """(n, tasks) influences by the formulas of LESS: sections 3.1 (Adam), 4.1 (warm-up, projection), 4.2 (subtasks)."""
    import torch

    from tamis.core.conversations import Encoder, chat_tokenizer
    from tamis.influence.projection import projection_named
    from tamis.influence.tasks import read_task
    from tamis.influence.warmup import lora_model, warm_up

    encoder = Encoder(chat_tokenizer(settings.model, None, settings.format), settings.max_tokens)
    model = lora_model(settings)
    checkpoints = warm_up(
        settings, model, warmup_samples(settings, Artifact.open(pool, "pool"), encoder), folder / "checkpoints"
    )
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    projection = projection_named(settings.projection, settings.dimensions, settings.seed)
    matrices = []
    for part, weight in enumerate(weights.values()):
        matrix = torch.zeros((weight.numel(), settings.dimensions))
        projection.add(matrix, part, torch.eye(weight.numel()))
        matrices.append(matrix)
    matrix = torch.cat(matrices).double()

    def gradient(tokens: Any) -> dict[str, Any]:
        model.zero_grad()
        model(input_ids=torch.tensor([tokens.input_ids]), labels=torch.tensor([tokens.labels])).loss.backward()
        return {name: weight.grad.double().clone() for name, weight in weights.items()}

    def feature(parts: list[Any]) -> Any:
        vector = torch.cat([part.flatten() for part in parts]) @ matrix
        return vector / vector.norm()

    total, rates = 0.0, []
    per_checkpoint = []
    for checkpoint in checkpoints:
        moments, rate = checkpoint.load(model)
        trained = []
        for messages in conversations(Artifact.open(pool).table(["messages"])["messages"]):
            steps = []
            for name, g in gradient(encoder.encode(messages)).items():
                m = 0.9 * moments.first[name].double() + 0.1 * g
                v = 0.999 * moments.second[name].double() + 0.001 * g**2
                steps.append(m / torch.sqrt(v + 1e-8))
            trained.append(feature(steps))
        columns = []
        for task in settings.tasks:
            examples = read_task(task, encoder).subtasks.values()
            features = [torch.stack([feature(list(gradient(e).values())) for e in one]) for one in examples]
            columns.append(torch.stack([torch.stack(trained) @ f.T.mean(1) for f in features], 1))
        per_checkpoint.append(columns)
        rates.append(rate)
    found = []
    for number in range(len(settings.tasks)):
        total = sum(r / sum(rates) * columns[number] for r, columns in zip(rates, per_checkpoint, strict=True))
        found.append(total.max(1).values)
    result: np.ndarray = torch.stack(found, 1).numpy()
    return result


@pytest.mark.parametrize(("model", "projection"), [("smollm2", "rademacher"), ("tiny", "sketch")])
def test_influence_is_the_naive_one(
    model: str, projection: str, tiny: Path, models: Path, tasks: list[dict[str, str]], tmp_path: Path
) -> None:
    pool = make_pool(tmp_path / "pool", SAMPLES[::2])
    settings = settings_of(tiny if model == "tiny" else models / model, tasks, projection=projection)
    manifest = run(settings, pool=pool, out=tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    expected = naive(settings, pool, tmp_path)
    found = np.array([row["tasks"] for row in rows])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    assert [row["score"] for row in rows] == pytest.approx(expected.max(1), rel=1e-3)
    assert (manifest.kind, manifest.name, manifest.rows) == ("scores", "less", 8)
    assert manifest.facts["examples"] == {"sums": 3, "verse": 1}
    assert sum(manifest.facts["checkpoint_weights"]) == pytest.approx(1)
    if model == "smollm2":  # what it is for: a sample helps a task of its own kind more than the other one
        better = found[:, 0] - found[:, 1]
        assert better[:4].mean() > better[4:].mean()


def test_influence_on_a_real_validation_set_is_the_naive_one(models: Path, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", SAMPLES[::4])
    rows = []
    for line in shared_data("eval", "mmlu_dev.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        choices = "\n".join(f"{letter}. {text}" for letter, text in zip("ABCD", row["choices"], strict=True))
        rows.append(example(f"{row['question']}\n{choices}\nAnswer:", row["answer"], row["subject"]))
    rows = sorted(rows, key=lambda row: (len(row["prompt"]), row["prompt"]))[:6]
    task = {"name": "mmlu", "path": write_task(tmp_path / "mmlu.jsonl", rows)}
    settings = settings_of(models / "smollm2", [task], warmup={"epochs": 1})
    run(settings, pool=pool, out=tmp_path / "out")
    expected = naive(settings, pool, tmp_path)
    found = np.array([row["tasks"] for row in rows_of(tmp_path / "out")])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_a_stopped_run_goes_on_and_gives_the_same_bytes(
    tiny: Path, pool: Path, tasks: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tamis.core import blocks
    from tamis.influence import warmup
    from tamis.influence.gradients import Gradients

    monkeypatch.setattr(blocks, "BLOCK", 5)
    settings = settings_of(tiny, tasks)
    whole = run(settings, pool=pool, out=tmp_path / "whole")
    step, of = warmup._step, Gradients.of
    steps, batches = [], []

    def stopped_step(*arguments: Any) -> float:
        steps.append(1)
        if len(steps) == 4:  # in the second of two epochs of two steps
            raise KeyboardInterrupt
        return step(*arguments)

    def stopped_gradients(self: Gradients, batch: Any, moments: Any) -> Any:
        if moments is not None:
            if sum(batches) == 16 + 10:  # at the third block of the second checkpoint
                raise KeyboardInterrupt
            batches.append(len(batch))
        return of(self, batch, moments)

    monkeypatch.setattr(warmup, "_step", stopped_step)
    with pytest.raises(KeyboardInterrupt):
        run(settings, pool=pool, out=tmp_path / "resumed")
    monkeypatch.setattr(Gradients, "of", stopped_gradients)
    with pytest.raises(KeyboardInterrupt):
        run(settings, pool=pool, out=tmp_path / "resumed")
    assert len(steps) == 4 + 2, "the epoch that was finished is not trained again"
    batches.clear()
    run(settings, pool=pool, out=tmp_path / "resumed")
    assert sum(batches) == 6, "the last block of the last checkpoint"
    assert Artifact.open(tmp_path / "resumed").manifest.content_hash == whole.content_hash


def test_the_warm_up_draws_the_same_samples_whatever_the_order_of_the_pool(
    tiny: Path, pool: Path, tasks: list[dict[str, str]], tmp_path: Path
) -> None:
    from tamis.core.conversations import Encoder, chat_tokenizer

    other = make_pool(tmp_path / "other", SAMPLES[::-1])
    encoder = Encoder(chat_tokenizer(str(tiny), None, "chat"), 2048)
    settings = settings_of(tiny, tasks, warmup={"size": 0.25})
    drawn = [warmup_samples(settings, Artifact.open(one, "pool"), encoder) for one in (pool, other)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4


def test_a_sample_without_an_answer_within_the_limit_is_null_and_counted(
    tiny: Path, tasks: list[dict[str, str]], tmp_path: Path
) -> None:
    pool = make_pool(tmp_path / "pool", [*SUMS, conversation("word " * 300, "Yes.")])
    manifest = run(settings_of(tiny, tasks, max_tokens=120, max_left_out_share=0.2), pool=pool, out=tmp_path / "out")
    last = rows_of(tmp_path / "out")[-1]
    assert (last["score"], last["tasks"], last["status"]) == (None, None, "no token of an answer within max_tokens")
    assert manifest.facts["not_scored"] == {last["status"]: 1}
    assert manifest.facts["scored"] == 8


@pytest.mark.parametrize(("max_tokens", "helps"), [(120, "influence.max_tokens")])
def test_more_left_out_than_is_allowed_is_an_error_before_anything_is_trained(
    max_tokens: int, helps: str, tiny: Path, tasks: list[dict[str, str]], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def never(*_: Any) -> None:
        raise AssertionError("trained")

    monkeypatch.setattr(stage, "warm_up", never)
    pool = make_pool(tmp_path / "pool", [*SUMS, conversation("word " * 300, "Yes.")])  # 1 of 9
    with pytest.raises(InputError) as error:
        run(settings_of(tiny, tasks, max_tokens=max_tokens), pool=pool, out=tmp_path / "out")
    assert error.value.code == "input"
    assert "1 of 9 samples" in error.value.problem
    assert helps in error.value.action
    assert "5.0%" in error.value.allowed


@pytest.mark.parametrize(
    ("more", "of_answer", "field"),
    [
        ({"system": "Answer in verse."}, {}, "system"),
        ({"tools": [{"name": "search"}]}, {}, "tools"),
        ({"weight": 0}, {}, "weight"),
        ({}, {"weight": 0}, "messages.weight"),
        ({}, {"tool_calls": [{"name": "search"}]}, "messages.tool_calls"),
    ],
)
def test_what_a_task_s_examples_lose_is_counted_and_limited(
    more: dict[str, Any], of_answer: dict[str, Any], field: str, tiny: Path, tmp_path: Path
) -> None:
    encoder = Encoder(chat_tokenizer(str(tiny), None, "chat"), 120, 1 << 20)
    question, answer = conversation("What?", "That.")
    rows = [{"messages": [question, answer | of_answer], "uid": 1, "subtask": "s"} | more]
    rows += [{"messages": conversation(f"Add {n}.", f"{n}.")} for n in range(3)]
    path = tmp_path / "task.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = TaskSettings(name="t", path=str(path))
    with pytest.raises(InputError) as error:
        read_task(task, encoder, 0.05)
    assert error.value.code == "input"
    assert "1 of 4 examples" in error.value.problem
    assert field in error.value.problem
    assert read_task(task, encoder, 0.25).lost == {field: 1}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "bad.jsonl"),
        ("{}\n", "line 1"),
        ('{"prompt": "a", "completion": "b"}\nnonsense\n', "line 2"),
        ("[1]\n", "row 0"),
        ('{"prompt": "a", "completion": "b"}\n' + '{"prompt":' + "[" * 100_000, "line 2"),
        ('{"prompt": "a"}\n', "line 1"),
        ('{"prompt": "a", "completion": " "}\n', "line 1.*message 2"),
        (
            '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, '
            '{"role": "tool", "content": "c"}]}\n',
            "line 1.*tool",
        ),
    ],
)
def test_a_task_that_cannot_be_read_is_named_with_its_line(
    text: str, words: str, tiny: Path, pool: Path, tmp_path: Path
) -> None:
    (tmp_path / "bad.jsonl").write_text(text)
    with pytest.raises(InputError, match=words):
        run(settings_of(tiny, [{"name": "t", "path": str(tmp_path / "bad.jsonl")}]), pool=pool, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("warmup", "words"), [({"targets": ["c_attn"]}, "c_attn"), ({"layers": 9}, r"layers\b.*\b9\b")]
)
def test_settings_that_do_not_fit_the_model_are_refused(
    warmup: dict[str, Any], words: str, tiny: Path, pool: Path, tasks: list[dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=words):
        run(settings_of(tiny, tasks, warmup=warmup), pool=pool, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "words"),
    [({"dimensions": 1000}, "dimensions.*power of two"), ({"tasks": []}, "tasks.*at least 1"),
     ({"tasks": [{"name": "a", "path": "x"}, {"name": "a", "path": "y"}]}, "tasks.*same name")],
)  # fmt: skip
def test_wrong_settings_say_what_is_allowed(values: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        parse(InfluenceSettings, {"tasks": [{"name": "a", "path": "x"}]} | values, where="test")


def test_the_component_describes_its_artifact(
    tiny: Path, pool: Path, tasks: list[dict[str, str]], tmp_path: Path
) -> None:
    from kfp import dsl

    from tamis.influence.component import influence

    scores, metrics = dsl.Dataset(uri=str(tmp_path / "scores")), dsl.Metrics()
    settings = settings_of(tiny, tasks).model_dump(mode="json")
    settings["warmup"]["size"], settings["dimensions"] = 8.0, 256.0  # as Kubeflow hands whole numbers over
    influence.python_func(pool=dsl.Dataset(uri=str(pool)), settings=settings, scores=scores, metrics=metrics)
    assert (scores.metadata["kind"], scores.metadata["name"]) == ("scores", "less")
    assert metrics.metadata["scored"] == 16


def test_a_line_of_a_task_may_hold_what_unicode_takes_for_the_end_of_one(tiny: Path, tmp_path: Path) -> None:
    row = {"prompt": "one\u2028two\u0085three", "completion": "Yes."}
    (tmp_path / "task.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\r\n", encoding="utf-8")
    from tamis.core.conversations import Encoder, chat_tokenizer

    encoder = Encoder(chat_tokenizer(str(tiny), None, "chat"), 2048)
    task = read_task(TaskSettings(name="t", path=str(tmp_path / "task.jsonl")), encoder)
    assert [len(examples) for examples in task.subtasks.values()] == [1]


def test_a_task_may_begin_with_a_byte_order_mark(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "task.jsonl").write_text('{"prompt": "one", "completion": "Yes."}\n', encoding="utf-8-sig")
    from tamis.core.conversations import Encoder, chat_tokenizer

    encoder = Encoder(chat_tokenizer(str(tiny), None, "chat"), 2048)
    task = read_task(TaskSettings(name="t", path=str(tmp_path / "task.jsonl")), encoder)
    assert [len(examples) for examples in task.subtasks.values()] == [1]
