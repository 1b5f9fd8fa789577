"""Conditions on the named values of a row, as a setting `where` writes them.

    where:
      language: en                        # equal; text may represent a number or a truth value, as in CSV
      source: [web, books]                # one of these values
      score: {">=": 4, "<": 9}            # numbers, or text that represents them; dates as text compare as text
      title: {not: ""}                    # another value, or none of several
      text: {length: {">": 20}}           # characters of a text, entries of a list or an object
      prompt: {matches: "^(Write|Draft)"} # a regular expression that is found in the text

A row must meet all of them. A field that is missing or null meets only `not`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import regex

from tamis.core.errors import InputError, SettingsError

Condition = Callable[[Any], bool]
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
OPERATORS = (*_COMPARISONS, "in", "not", "length", "matches")
_SECONDS = 5.0  # that one search for a regular expression may take; a sample's text needs microseconds


def conditions(where: Mapping[str, Any], *, setting: str = "where") -> dict[str, Condition]:
    """The conditions of a setting, by the name of the field that they look at.

    Raises:
        SettingsError: when an operator is unknown, a value has the wrong type, or a regular expression is not valid.
    """
    return {name: _condition(wanted, f"{setting}.{name}") for name, wanted in where.items()}


def all_met(row: Mapping[str, Any], conditions: Mapping[str, Condition]) -> bool:
    """Whether a row meets all conditions; a missing field counts as null."""
    return all(is_met(row.get(name)) for name, is_met in conditions.items())


def equal(value: Any, wanted: Any) -> bool:
    """Whether a value is `wanted`. Text may represent a number or a truth value, as it does in CSV."""
    if not isinstance(value, str) or isinstance(wanted, str):
        return bool(value == wanted)
    if isinstance(wanted, bool):
        return value.lower() == str(wanted).lower()
    number = _number(value)
    return number is not None and number == _number(wanted)


def _condition(wanted: Any, setting: str) -> Condition:
    if isinstance(wanted, list):
        return _one_of(wanted, setting)
    if not isinstance(wanted, Mapping):
        _check_scalar(wanted, setting)
        return lambda value: equal(value, wanted)
    if not wanted:
        raise SettingsError(f"{setting} is empty", allowed=", ".join(OPERATORS))
    parts = [_operation(name, operand, setting) for name, operand in wanted.items()]
    return lambda value: all(part(value) for part in parts)


def _operation(name: str, operand: Any, setting: str) -> Condition:
    at = f"{setting}.{name}"
    if name in _COMPARISONS:
        _check_scalar(operand, at)
        return _comparison(_COMPARISONS[name], operand)
    if name == "in":
        if not isinstance(operand, list):
            raise SettingsError(f"{at} is {operand!r}", allowed="a list of values")
        return _one_of(operand, at)
    if name == "not":
        unwanted = _condition(operand, at)
        return lambda value: not unwanted(value)
    if name == "length":
        if isinstance(operand, bool) or not isinstance(operand, (int, Mapping)):
            raise SettingsError(f"{at} is {operand!r}", allowed='a whole number, or a comparison such as {">=": 20}')
        fits = _condition(operand, at)
        return lambda value: hasattr(value, "__len__") and fits(len(value))
    if name == "matches":
        return _pattern(operand, at)
    raise SettingsError(f"{setting} has the unknown operator {name!r}", allowed=", ".join(OPERATORS))


def _one_of(values: list[Any], setting: str) -> Condition:
    if not values:
        raise SettingsError(f"{setting} is an empty list", allowed="one value or more")
    for value in values:
        _check_scalar(value, setting)
    return lambda value: any(equal(value, wanted) for wanted in values)


def _comparison(compare: Callable[[Any, Any], bool], limit: Any) -> Condition:
    number = None if isinstance(limit, str) else _number(limit)

    def fits(value: Any) -> bool:
        if number is None:
            return isinstance(value, str) and compare(value, limit)
        found = _number(value)
        return found is not None and compare(found, number)

    return fits


def _pattern(text: Any, setting: str) -> Condition:
    if not isinstance(text, str):
        raise SettingsError(f"{setting} is {text!r}", allowed="a regular expression")
    try:
        pattern = regex.compile(text)
    except regex.error as error:
        raise SettingsError(f"{setting} is not a regular expression: {error}") from None

    def found(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            return pattern.search(value, timeout=_SECONDS) is not None
        except TimeoutError:
            raise InputError(
                f"{setting}: the search took more than {_SECONDS:g} s in one text of {len(value):,} characters",
                action="write the expression without nested repetitions such as (a+)+",
            ) from None

    return found


def _number(value: Any) -> Decimal | None:
    """A number, or the number that a text represents; None for anything else. Exact, also for long numbers."""
    if value is None or isinstance(value, (bool, list, dict, bytes)):
        return None
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return None if number.is_nan() else number


def _check_scalar(value: Any, setting: str) -> None:
    if not isinstance(value, (str, int, float, bool)):
        raise SettingsError(f"{setting} is {value!r}", allowed="a text, a number, true or false")
