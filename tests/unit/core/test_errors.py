"""Errors that users meet: codes for programs, words for people."""

from __future__ import annotations

import errno
import pickle
from importlib import import_module

import pytest

from tamis.core.errors import InputError, StorageError, TamisError, UnexpectedError, explained_os_errors

RAISED_ELSEWHERE = (
    *("tamis.llm.client", "tamis.llm.forms", "tamis.cluster.trainjobs"),
    *("tamis.llm.store", "tamis_pipelines.local", "tamis_pipelines.looking", "tamis_pipelines.server"),
    *("tamis_pipelines.looking_at_ratings", "tamis.llm.budget", "tamis.llm.first"),
)


def kinds(of: type[TamisError] = TamisError) -> list[type[TamisError]]:
    return [kind for below in of.__subclasses__() for kind in (below, *kinds(below))]


# Code of each kind of error, and whether another attempt with the same settings and inputs must fail in the same way.
KINDS = {
    "SettingsError": ("settings", True),
    "InputError": ("input", True),
    "ArtifactError": ("artifact", True),
    "StorageError": ("storage", False),
    "StoreGoneError": ("store-gone", False),
    "ModelError": ("model", False),
    "ServiceError": ("service", False),
    "FailuresError": ("failures", False),
    "SpentError": ("budget", True),
    "StoppedError": ("stopped", False),
    "MissingExtraError": ("missing-extra", True),
    "RegistryError": ("registry", True),
    "UnexpectedError": ("unexpected", False),
    "UnknownLayoutError": ("unknown-layout", True),
    "UnknownScoresError": ("unknown-scores", True),
    "UnparsableError": ("unparsable", False),
    "UnreadableError": ("unreadable-answers", True),
    "TrainJobError": ("train-job", False),
    "KubeflowError": ("kubeflow", True),
    "RunError": ("run", False),
}


def test_every_kind_of_error_has_a_code_of_its_own_and_says_whether_it_is_permanent() -> None:
    for module in RAISED_ELSEWHERE:
        import_module(module)
    public = [kind for kind in kinds() if kind.__module__.startswith("tamis") and "_" not in kind.__name__]
    assert {kind.__name__: (kind.code, kind.permanent) for kind in public} == KINDS


@pytest.mark.parametrize("kind", [InputError, StorageError])
@pytest.mark.parametrize("permanent", [True, False])
def test_a_single_error_may_differ_from_its_kind(kind: type[TamisError], permanent: bool) -> None:
    error = pickle.loads(pickle.dumps(kind("seen", permanent=permanent)))
    assert (error.permanent, error.exit_code) == (permanent, 78 if permanent else 1)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        *((errno.EACCES, 78), (errno.EPERM, 78), (errno.EROFS, 78), (errno.ENOTDIR, 78), (errno.ENAMETOOLONG, 78)),
        *((errno.ENOSPC, 1), (errno.EIO, 1), (errno.ESTALE, 1), (errno.ETIMEDOUT, 1), (errno.ENOMEM, 1)),
    ],
)
def test_of_the_system_s_errors_those_are_permanent_that_stay_in_every_pod(number: int, code: int) -> None:
    with pytest.raises(StorageError) as caught, explained_os_errors("writing pool"):
        raise OSError(number, "seen", "pool")
    assert caught.value.exit_code == code


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
