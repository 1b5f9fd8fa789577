"""Secrets, and their masking in every text that leaves the process: logs, errors, manifests, stored answers.

Known secrets are replaced everywhere: the values of environment variables with names such as `…_KEY` or that settings
name (`api_key_env`), and secrets in addresses and in free fields such as `extra`. `Settings` registers them when it is
read. Texts for people are also masked where something only looks like a secret; samples and answers are not.

Values shorter than `SHORTEST` characters are not secrets: masking "none" would damage every text.
"""

from __future__ import annotations

import base64
import html
import json
import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

MASK = "***"
SHORTEST = 8  # characters
_KEY_WORDS = r"(?:api_?key|key|token|secret|passwd|password|passphrase|credentials?|authorization|auth|signature|sig)"
_KEY_NAME = re.compile(rf"(?:^|[_.\-]){_KEY_WORDS}$", re.IGNORECASE)
_KEY_VARIABLE = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWD|PASSWORD|PASSPHRASE|PAT)(?:_ID)?$")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BY_PREFIX = re.compile(
    r"sk-(?=[A-Za-z_\-]*[0-9])[A-Za-z0-9_\-]{8,}|(?:hf_|gsk_|ghp_|xai-|nvapi-|AIza)[A-Za-z0-9_\-]{24,}"
)
_FREE = ("extra", "engine")  # settings with arbitrary fields for a service or an engine
_NAMED = re.compile(rf"(?:^|[-_.]){_KEY_WORDS}(?:[-_.]|$)", re.IGNORECASE)
_CHUNKS = re.compile(r"[-_.~]")
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
# Patterns of what looks like a secret, for texts for people. The first group is kept.
_LOOKS = (
    re.compile(r"(://)[^/\s@'\"?#]+(?=@)"),
    re.compile(rf"([?&](?:[A-Za-z0-9_\-]*[_\-])?{_KEY_WORDS}=)[^&\s'\"#]+", re.IGNORECASE),
    re.compile(r"(\b(?:Bearer|Basic)\s+)[A-Za-z0-9._~+/=\-]{8,}", re.IGNORECASE),
    re.compile(rf"(\b)(?:{_BY_PREFIX.pattern})"),
)


class _Known:
    """All known secrets of this process, and the pattern that finds them in a text."""

    def __init__(self) -> None:
        self._lock, self._values = threading.Lock(), set[str]()
        self.pattern: re.Pattern[str] | None = None
        self.add(_of_environment())

    def add(self, values: Iterator[str]) -> None:
        new = {value for value in values if len(value) >= SHORTEST} - self._values
        if not new:
            return
        with self._lock:
            self._values |= new
            forms = sorted({form for value in self._values for form in _forms(value)}, key=len, reverse=True)
            self.pattern = re.compile("|".join(map(re.escape, forms)))


def know(*values: str) -> None:
    """Register secrets. They are masked from now on."""
    _known.add(iter(values))


def know_setting(name: str, value: Any) -> None:
    """Register the secrets of a setting: the value of a named variable, parts of an address, free fields."""
    if isinstance(value, str) and name.endswith("_env"):
        key = os.environ.get(value, "").strip()
        _known.add(iter([*([] if key.isalpha() else [key]), *([value] if _drawn(value) else [])]))
    elif isinstance(value, str) and "://" in value:
        _known.add(_of_address(value))
    elif name in _FREE and isinstance(value, Mapping):
        _known.add(_of_fields(value))


def masked(text: str) -> str:
    """`text` with known secrets masked."""
    return text if _known.pattern is None else _known.pattern.sub(MASK, text)


def masked_values(value: Any) -> Any:
    """A JSON-like value with known secrets masked in all its texts."""
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping):
        return {name: masked_values(inner) for name, inner in value.items()}
    return [masked_values(inner) for inner in value] if isinstance(value, list | tuple) else value


def shown(text: str) -> str:
    """A text for people, such as a log line or an error, with secrets masked and what looks like secrets.

    It can always be written in UTF-8: halves of surrogate pairs, as in names of files, become "?".
    """
    text = masked(text if text.isascii() else text.encode("utf-8", "replace").decode())
    for pattern in _LOOKS:
        text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def shown_input(name: str, value: Any) -> str:
    """A wrong value of the setting `name`, as an error may show it."""
    if isinstance(value, str) and (_is_key_name(name) or name.endswith("_env")) and _drawn(value):
        return repr(MASK)
    return shown(repr(_without_fields(value)))


def looks_like_key(text: str) -> bool:
    """Whether a word, such as a part of an address, is more likely a secret than a name."""
    return _drawn(text) or (len(text) >= 12 and _NAMED.search(text) is not None)


def _drawn(text: str) -> bool:
    """Whether a word looks random, as keys do."""
    if _BY_PREFIX.fullmatch(text) or _UUID.fullmatch(text):
        return True
    longest = max(_CHUNKS.split(text), key=len)
    digits, letters = sum(map(str.isdigit, longest)), sum(map(str.isalpha, longest))
    return len(longest) >= 16 and digits >= 3 and letters >= 3


class Formatter(logging.Formatter):
    """Formats log lines with secrets masked, also in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        """The log line of a record."""
        return shown(super().format(record))


def mask_tracebacks() -> None:
    """Mask secrets in the tracebacks of uncaught errors."""

    def write(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, trace)
            return
        sys.stderr.write(shown("".join(traceback.format_exception(kind, error, trace))))

    sys.excepthook = write
    threading.excepthook = lambda args: (
        None if args.exc_type is SystemExit or args.exc_value is None
        else write(args.exc_type, args.exc_value, args.exc_traceback)
    )  # fmt: skip


def _is_key_name(name: str) -> bool:
    words = _HUMPS.sub("_", name)
    return _KEY_NAME.search(words) is not None and not words.lower().endswith("cache_key")


def _forms(value: str) -> Iterator[str]:
    """The forms in which a secret may appear: plain, in JSON, in an address, in HTML, in Base64."""
    yield value
    yield json.dumps(value)[1:-1]
    yield quote(value, safe="")
    yield html.escape(value)
    yield base64.b64encode(value.encode()).decode().rstrip("=")


def _of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        value = value.strip()
        if _KEY_VARIABLE.search(name) and not value.startswith(("/", "~")) and not value.isalpha():
            yield value


def _of_address(address: str) -> Iterator[str]:
    try:
        parts = urlsplit(address)
        user, password = parts.username, parts.password
    except ValueError:
        return
    if password:
        yield from (password, unquote(password), f"{unquote(user or '')}:{unquote(password)}")
    elif user:
        yield from (user, unquote(user))
    for name, value in parse_qsl(parts.query):
        if _is_key_name(name) or looks_like_key(value):
            yield value
    if parts.scheme.lower() in ("http", "https"):
        before = ""
        for part in parts.path.split("/"):
            if looks_like_key(part) or (_is_key_name(before) and len(part) >= SHORTEST):
                yield from (part, unquote(part))
            before = part


def _of_fields(fields: Mapping[Any, Any], inside: bool = False) -> Iterator[str]:
    """Secrets in free fields: texts under names such as "api_key" or "Authorization", and addresses anywhere."""
    for name, value in fields.items():
        key = inside or _is_key_name(str(name))
        for each in value if isinstance(value, list | tuple) else [value]:
            if isinstance(each, Mapping):
                yield from _of_fields(each, key)
            elif isinstance(each, str):
                if key or _BY_PREFIX.fullmatch(each):
                    yield from (each, each.partition(" ")[2].strip())
                elif "://" in each:
                    yield from _of_address(each)


def _without_fields(value: Any, key: bool = False) -> Any:
    """A value with the texts under names such as "api_key" masked."""
    if isinstance(value, Mapping):
        return {name: _without_fields(inner, key or _is_key_name(str(name))) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_fields(inner, key) for inner in value]
    return MASK if key and isinstance(value, str) and len(value) >= SHORTEST else value


_known = _Known()
