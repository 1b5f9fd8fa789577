"""Checks of a suite's tasks before a model is loaded: their fields, right answers and answer lengths.

lm-eval does not report such faults. It takes the name of a missing field as the text itself, and it scores a question
whose right answer is not among the choices as 0 for every model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import SettingsError

if TYPE_CHECKING:
    from lm_eval.api.task import Task

_ANSWER_TOKENS = 256  # lm-eval's default for tasks that set no limit


def check_fields(task: Task, file: Path) -> None:
    """Check the first document of `task`, a task of the suite in `file`.

    Raises:
        SettingsError: when a field does not exist, or the right answer is not among the choices.
    """
    config: Any = getattr(task, "config", None)
    if not hasattr(task, "features") or getattr(task, "prompt", None) is not None:
        return  # a task that is written in Python
    document, where = task.task_docs[0], f"{file}: the task '{task.task_name}'"
    fields = ", ".join(task.features)
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        given = getattr(config, name)
        # If the task has its own function for results, the target may have no meaning.
        free = name == "doc_to_target" and callable(config.process_results)
        if isinstance(given, str) and given.isidentifier() and given not in task.features and not free:
            raise SettingsError(
                f"{where}: {name} is {given!r}, but the task's data have no such field",
                allowed=f"one of the fields {fields}, or a template such as '{{{{{task.features[0]}}}}}'",
                action=f"correct {name} in the task's file",
            )
    if callable(config.process_results):
        return
    target = task.doc_to_target(document)
    choices = task.doc_to_choice(document) if config.doc_to_choice is not None else None
    if task.OUTPUT_TYPE == "multiple_choice" and choices is not None:
        right = task.doc_to_text(document) if task.multiple_input else target
        if not _is_choice(right, choices):
            raise SettingsError(
                f"{where}: the right answer of the first document is {right!r}",
                allowed=f"one of the choices {choices!r}, or its index from 0 to {len(choices) - 1}",
                action="correct doc_to_target or doc_to_choice in the task's file",
            )
    elif target is None:
        raise SettingsError(
            f"{where}: the right answer of the first document is empty",
            allowed=f"a template with the fields {fields}",
            action="correct doc_to_target in the task's file",
        )


def _is_choice(right: Any, choices: Sequence[str]) -> bool:
    """Return whether lm-eval finds the right answer, or every one of several, among the choices."""
    if isinstance(right, list):
        return bool(right) and all(isinstance(one, int) and 0 <= one < len(choices) for one in right)
    if isinstance(right, str):
        return right in choices
    return isinstance(right, int) and 0 <= right < len(choices)


def check_room(task: str, settings: Mapping[str, Any], context: int, file: Path) -> None:
    """Check that a task's longest answers leave room for a question.

    Args:
        task: name of the task.
        settings: the task's `generation_kwargs`.
        context: largest number of tokens for question and answer together.
        file: the suite's file, for the error.

    Raises:
        SettingsError: when they do not.
    """
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval uses the first one set
    name = next((name for name in names if settings.get(name) is not None), None)
    tokens = int(settings[name]) if name else _ANSWER_TOKENS
    if tokens >= context:
        raise SettingsError(
            f"{file}: answers of the task '{task}' may have {tokens} tokens ({name or 'the default of lm-eval'}), but "
            f"the model has room for only {context} tokens of question and answer together",
            allowed=f"far fewer than {context} tokens",
            action="lower generation_kwargs.max_gen_toks in the task's file, raise evaluation.max_length if it is set "
            "too low, or remove the task from the suite",
        )
