"""Before a model is asked: a task's fields are in its data, its answers among its choices, and there is room for them.

lm-eval takes the name of a field that does not exist for the text itself, and a right answer that is no choice for one
that no model can give: the score is then 0, with nothing said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tamis.core.errors import SettingsError

if TYPE_CHECKING:
    from lm_eval.api.task import Task

_ANSWER_TOKENS = 256  # lm-eval's own number, where a task names none


def check_fields(task: Task, file: Path) -> None:
    """Try the first document of `task`, which the suite in `file` names.

    Raises:
        SettingsError: when a field does not exist, or the right answer is none of the choices.
    """
    config: Any = getattr(task, "config", None)
    if not hasattr(task, "features") or getattr(task, "prompt", None) is not None:
        return  # a task that is written in Python
    document, where = task.task_docs[0], f"{file}: the task '{task.task_name}'"
    fields = ", ".join(task.features)
    for name in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        given = getattr(config, name)
        # Where results are computed by a function of the task's own, the target may mean nothing.
        free = name == "doc_to_target" and callable(config.process_results)
        if isinstance(given, str) and given.isidentifier() and given not in task.features and not free:
            raise SettingsError(
                f"{where}: {name} is {given!r}, but its data have no such field",
                allowed=f"one of the fields {fields}; or a template, as in '{{{{{task.features[0]}}}}}'",
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
                f"{where}: in the first document the right answer is {right!r}",
                allowed=f"one of the choices {choices!r}, or its place from 0 to {len(choices) - 1}",
                action="correct doc_to_target or doc_to_choice in the task's file",
            )
    elif target is None:
        raise SettingsError(
            f"{where}: in the first document the right answer is empty",
            allowed=f"a template of the fields {fields}",
            action="correct doc_to_target in the task's file",
        )


def _is_choice(right: Any, choices: Sequence[str]) -> bool:
    """Whether lm-eval finds the right answer, or all of several, among the choices."""
    if isinstance(right, list):
        return bool(right) and all(isinstance(one, int) and 0 <= one < len(choices) for one in right)
    if isinstance(right, str):
        return right in choices
    return isinstance(right, int) and 0 <= right < len(choices)


def check_room(task: str, settings: Mapping[str, Any], context: int, file: Path) -> None:
    """Find out whether the longest answers of a task leave room for a question.

    Args:
        task: its name.
        settings: its `generation_kwargs`.
        context: most tokens of question and answer.
        file: of the suite.

    Raises:
        SettingsError: when they do not.
    """
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval takes the first
    name = next((name for name in names if settings.get(name) is not None), None)
    tokens = int(settings[name]) if name else _ANSWER_TOKENS
    if tokens >= context:
        raise SettingsError(
            f"{file}: the answers of the task '{task}' may have {tokens} tokens ({name or 'the default of lm-eval'}), "
            f"but the model takes {context} of question and answer",
            allowed=f"fewer than {context}, by far",
            action="lower generation_kwargs.max_gen_toks in the task's file, raise evaluation.max_length if that is "
            "what limits, or leave the task out",
        )
