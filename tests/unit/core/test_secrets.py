"""No secret in any text that leaves the process."""

from __future__ import annotations

import base64
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tamis.core.errors import SettingsError, UnexpectedError
from tamis.core.failures import Failure, leave_failure
from tamis.core.secrets import Formatter, know, looks_like_key, masked, masked_values, shown
from tamis.core.settings import parse
from tamis.llm.backends.openai import OpenAISettings
from tests.artifacts import conversation, make_pool
from tests.llm_server import Asked, Reaction, Server, completion, error

KEY = 'sk-proj"Zx81+Qm47/Lk<93'  # what JSON, HTML and addresses write in other ways
SERVICE = {"model": "m", "api_key_env": None}


def service(**values: Any) -> OpenAISettings:
    return parse(OpenAISettings, SERVICE | values, where="here")


@pytest.mark.parametrize(
    "written",
    [
        lambda key: key,
        lambda key: json.dumps({"key": key}),
        lambda key: f"https://host/v1?k={quote(key, safe='')}",
        lambda key: base64.b64encode(key.encode()).decode(),
        lambda key: f"{key}{key}",
    ],
)
def test_a_known_secret_is_masked_however_it_is_written(written: Callable[[str], str]) -> None:
    know(KEY)
    text = written(KEY)
    left = masked(f"before {text} after")
    assert "***" in left
    assert "Qm47" not in left
    assert base64.b64encode(KEY.encode()).decode()[:12] not in left
    assert left.startswith("before ")
    assert left.endswith(" after")


@pytest.mark.parametrize("value", ["none", "EMPTY", "", "1234567"])
def test_short_values_are_no_secrets(value: str) -> None:
    know(value)
    assert masked(f"a {value} b") == f"a {value} b"


@pytest.mark.parametrize(
    ("settings", "secret"),
    [
        ({"base_url": "https://gateway.example/tenant/sk-4f0a9b3c7d/v1"}, "sk-4f0a9b3c7d"),
        ({"base_url": "https://gateway.example/0123456789abcdef0123456789abcdef/v1"}, "0123456789abcdef" * 2),
        ({"base_url": "https://gateway.example/key/longwordsonly/v1"}, "longwordsonly"),
        ({"base_url": "https://gateway.example/v1?api-key=Tr0ub4dor3"}, "Tr0ub4dor3"),
        ({"base_url": "https://gateway.example/v1?code=9f8e7d6c5b4a39281706"}, "9f8e7d6c5b4a39281706"),
        ({"extra": {"api_key": "in-a-free-field"}}, "in-a-free-field"),
        ({"extra": {"provider": {"apiKey": "in-camel-case"}}}, "in-camel-case"),
        ({"extra": {"headers": {"Authorization": "Bearer of-a-header"}}}, "of-a-header"),
        ({"extra": {"tools": [{"token": "in-a-list-of-them"}]}}, "in-a-list-of-them"),
        ({"extra": {"callback": "https://me:p4ssw0rd%21x@host/"}}, "p4ssw0rd!x"),
        ({"api_key_env": "A_VARIABLE_OF_MY_OWN"}, "value-of-the-variable"),
    ],
)
def test_what_settings_hold_of_secrets_is_known_once_they_are_read(
    settings: dict[str, Any], secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_VARIABLE_OF_MY_OWN", "value-of-the-variable")
    made = service(**settings)
    assert secret not in masked(f"the service says: {secret}!")
    assert secret not in json.dumps(masked_values(made.model_dump(mode="json")))
    assert secret in json.dumps(made.model_dump(mode="json")) + str(os.environ) + "p4ssw0rd!x"  # settings stay whole


@pytest.mark.parametrize(
    "name",
    [
        *("v1", "openai", "deployments", "hf-inference", "meta-llama-3-8b-instruct", "gpt-4o-mini-2024-07-18"),
        *("compatible-mode", "api", "serving-endpoints", "inference", "a" * 40, "20240718"),
    ],
)
def test_names_in_addresses_are_no_secrets(name: str) -> None:
    service(base_url=f"https://host/{name}/v1", extra={"prompt_cache_key": "ratings-of-may", "user": "someone-else"})
    assert not looks_like_key(name)
    text = f"{name} ratings-of-may someone-else"
    assert masked(text) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("HTTP://user:K3YK3Y@host/v1", "K3YK3Y"),
        ("GET https://host/v1?access_token=abc.def&x=1", "abc.def"),
        ("Authorization: Bearer abcdefgh.ijk", "abcdefgh.ijk"),
        ("Incorrect API key provided: sk-proj-a1b2c3d4e5", "sk-proj-a1b2c3d4e5"),
    ],
)
def test_what_only_looks_like_a_secret_is_not_shown_to_people(text: str, secret: str) -> None:
    assert secret not in shown(text)


@pytest.mark.parametrize(
    "text", ["hf_hub_download", "hf-internal-testing/tiny", "a risk-free sk-learn", "a@b.c", "x?y=1"]
)
def test_words_that_are_none_stay(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    "values",
    [
        {"base_url": "HTTP://user:K3YK3Y-4711@host/v1"},
        {"base_url": "https://user:K3YK3Y-4711@host/v1"},
        {"extra": {"api_key": "K3YK3Y-4711"}, "concurrency": 0},
        {"extra": [{"api_key": "K3YK3Y-4711"}]},
        {"api_key_env": "sk-K3YK3Y-4711"},
    ],
)
def test_a_refusal_of_settings_shows_no_secret(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as raised:
        service(**values)
    assert raised.value.code == "settings"
    assert "K3YK3Y" not in str(raised.value)


def test_logs_tracebacks_and_failures_are_without_secrets(tmp_path: Path) -> None:
    know(KEY)
    caught: Exception | None = None
    try:
        raise ValueError(KEY)
    except ValueError as error:
        caught = error
        line = logging.LogRecord("a", 30, "a.py", 1, "seen %s", (KEY,), sys.exc_info())
    assert "Qm47" not in Formatter("%(message)s").format(line)
    assert caught is not None
    assert "Qm47" not in UnexpectedError.of(caught, "rating").problem
    long = UnexpectedError.of(ValueError("x" * 990 + KEY), "rating").problem
    assert "Zx81" not in long  # cutting leaves no half of it
    leave_failure(tmp_path, Failure(name="a", stage="judging", reason=KEY, settings={"judging": {"extra": {"a": KEY}}}))
    assert "Qm47" not in (tmp_path / "failure.json").read_text()
    known = Failure.model_validate_json((tmp_path / "failure.json").read_bytes())
    assert (known.reason, known.settings["judging"]) == ("***", {"extra": {"a": "***"}})


def test_settings_of_other_stages_are_no_secrets() -> None:
    Failure(name="a", stage="rating", reason="", settings={"rating": {"backend": {"key": "instruction_id"}}})
    assert masked("instruction_id") == "instruction_id"


LEAKS: list[Callable[[Asked, str], Reaction]] = [
    lambda asked, key: Reaction(error(f"Incorrect API key provided: {key}"), 401),
    lambda asked, key: Reaction(error(f"{'x' * 190} {key}"), 400),
    lambda asked, key: Reaction(f"<html>{key}</html>".encode(), 403),
    lambda asked, key: Reaction(completion(f"{{not JSON, but {key}")),
    lambda asked, key: Reaction(completion("", refusal=f"I will not, {key}")),
    lambda asked, key: Reaction(completion(f"I'm sorry, {key}")),
    lambda asked, key: Reaction(f"{key} is no JSON".encode()),
]


@pytest.mark.parametrize("leak", range(len(LEAKS)))
def test_a_key_that_a_service_repeats_is_in_no_file_and_no_word(leak: int, tmp_path: Path) -> None:
    pytest.importorskip("openai")
    keys = {"header": "longhex-77aa88bb99cc", "path": "sk-path4711path", "extra": "field-of-extra-4711"}

    def behave(asked: Asked) -> Reaction:
        given = " ".join([asked.headers["authorization"], asked.path, json.dumps(asked.body)])
        assert all(key in given for key in keys.values())
        return LEAKS[leak](asked, f"{keys['header']} {keys['path']} {keys['extra']}")

    make_pool(tmp_path / "pool", [conversation(f"What is {n}?", f"A number, {n}.") for n in range(4)])
    with Server(behave) as server:
        base = server.url.removesuffix("/v1") + f"/{keys['path']}/v1"
        backend = {"kind": "openai", "model": "m", "base_url": base, "api_key_env": "A_KEY_OF_MY_OWN", "tries": 1}
        settings = {"name": "mini", "backend": backend | {"extra": {"api_key": keys["extra"]}}}
        file = tmp_path / "settings.yaml"
        file.write_text(
            json.dumps(settings | {"max_failure_share": 1.0, "max_attempts": 1, "store": str(tmp_path / "s")})
        )
        places = ["--settings", str(file), "--pool", str(tmp_path / "pool"), "--out", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-m", "tamis", "rate", *places],
            check=False, capture_output=True, text=True, timeout=120,
            env=os.environ | {"A_KEY_OF_MY_OWN": keys["header"], "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
    assert server.asked
    assert done.returncode in (0, 78), done.stderr
    words = {"output": done.stdout, "errors": done.stderr}
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != file:
            words[path.name] = path.read_bytes().decode(errors="replace")
    assert not {(where, name) for where, text in words.items() for name, key in keys.items() if key in text}
    if done.returncode == 0:
        import pyarrow.parquet as pq

        rows = pq.read_table(next((tmp_path / "out").glob("*.parquet")))
        assert not any(key in str(rows.to_pylist()) for key in keys.values())
        assert "***" in str(rows.to_pylist()) or leak == 3


def test_a_key_that_is_a_word_of_the_language_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers of one's own often want any key."""
    monkeypatch.setenv("A_WORD_AS_KEY", "anything")
    assert service(api_key_env="A_WORD_AS_KEY").api_key() == "anything"
    assert masked("I would not change anything here") == "I would not change anything here"
