"""Errors that users meet: codes for programs, words for people."""

from __future__ import annotations

import pickle
from importlib import import_module

import pytest

from tamis.core.errors import InputError, TamisError, UnexpectedError

RAISED_ELSEWHERE = (
    *("tamis.llm.client", "tamis.llm.forms", "tamis.cluster.trainjobs"),
    *("tamis.llm.store", "tamis_pipelines.local", "tamis_pipelines.looking", "tamis_pipelines.remote"),
    *("tamis_pipelines.looking_at_ratings", "tamis.llm.budget", "tamis.llm.first"),
)


def kinds(of: type[TamisError] = TamisError) -> list[type[TamisError]]:
    return [kind for below in of.__subclasses__() for kind in (below, *kinds(below))]


def test_every_kind_of_error_has_a_code_of_its_own() -> None:
    for module in RAISED_ELSEWHERE:
        import_module(module)
    public = [kind for kind in kinds() if kind.__module__.startswith("tamis") and "_" not in kind.__name__]
    codes = {kind.__name__: kind.code for kind in public}
    assert codes == {
        "SettingsError": "settings",
        "InputError": "input",
        "ArtifactError": "artifact",
        "StorageError": "storage",
        "StoreGoneError": "store-gone",
        "ModelError": "model",
        "ServiceError": "service",
        "FailuresError": "failures",
        "SpentError": "budget",
        "StoppedError": "stopped",
        "MissingExtraError": "missing-extra",
        "RegistryError": "registry",
        "UnexpectedError": "unexpected",
        "UnknownLayoutError": "unknown-layout",
        "UnknownScoresError": "unknown-scores",
        "UnparsableError": "unparsable",
        "UnreadableError": "unreadable-answers",
        "TrainJobError": "train-job",
        "KubeflowError": "kubeflow",
        "RunError": "run",
    }


def test_an_unknown_error_is_told_by_kind_words_and_place() -> None:
    with pytest.raises(KeyError) as caught:
        {}["colour"]
    told = UnexpectedError.of(caught.value, "evaluation")
    assert "KeyError" in told.problem
    assert "'colour'" in told.problem
    assert "test_errors.py" in told.problem
    assert len(UnexpectedError.of(ValueError("x" * 10_000), "evaluation").problem) < 1_200


def test_errors_cross_process_borders_whole() -> None:
    error = InputError("seen", allowed="these", action="this")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, str(again)) == (InputError, "input", str(error))
