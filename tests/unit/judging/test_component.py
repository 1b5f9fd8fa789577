"""The Kubeflow face of judging: what it tells of a judgement, and what a failed one leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tamis.core.failures import Failure, failure_in, leave_failure
from tests.llm_server import Asked, Reaction, Server, error
from tests.unit.judging.matches import by_number, judge_by, settings

dsl = pytest.importorskip("kfp.dsl")
pytest.importorskip("openai")
PAIRS = {"A?": ("ours 9", "theirs 2"), "B?": ("ours 1", "theirs 3")}


def call(folder: Path, server: Server, model: Path | None = None) -> tuple[dsl.Dataset, dsl.Metrics]:
    from tamis.judging.component import judge

    mine = settings(folder, server, PAIRS).model_dump(mode="json", exclude_unset=True)
    out = dsl.Dataset(name="judgement", uri=str(folder / "judgement"))
    metrics = dsl.Metrics(uri=str(folder / "metrics"))
    judge.python_func(settings=mine, judgement=out, metrics=metrics, model=dsl.Model(uri=str(model)) if model else None)
    return out, metrics


def test_the_component_judges_and_tells_kubeflow_the_shares(tmp_path: Path) -> None:
    with Server(judge_by(by_number)) as server:
        out, metrics = call(tmp_path, server)
    assert (out.metadata["kind"], out.metadata["name"], out.metadata["rows"]) == ("judgement", "ours", 4)
    assert (metrics.metadata["win"], metrics.metadata["lose"], metrics.metadata["not_judged"]) == (0.5, 0.5, 0)


def test_a_judgement_that_fails_is_a_failed_cell_and_no_zero(tmp_path: Path) -> None:
    def refuse(asked: Asked) -> Reaction:
        return Reaction(error("no such key"), 401)

    with Server(refuse) as server:
        out, metrics = call(tmp_path, server)
    failure = failure_in(out.path)
    assert failure is not None
    assert (failure.name, failure.stage) == ("base", "judgement")
    assert failure.code == "service"
    assert "unauthorised: 401 no such key" in failure.reason
    assert metrics.metadata == {"failed": 1}


def test_a_model_that_was_not_made_is_not_judged_and_keeps_its_own_reason(tmp_path: Path) -> None:
    leave_failure(tmp_path / "model", Failure(name="ds2", stage="model", reason="the loss is not finite"))
    with Server() as server:
        out, _ = call(tmp_path, server, tmp_path / "model")
        assert not server.asked
    failure = failure_in(out.path)
    assert failure is not None
    assert (failure.name, failure.stage, failure.reason) == ("ds2", "model", "the loss is not finite")
    assert set(failure.settings) == {"judgement"}
