"""What `tamis doctor` says of services, and one sample rated on trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tamis.cli import main
from tamis.core.errors import SettingsError
from tests.llm_server import Reaction, Server, completion, error
from tests.pipeline.conftest import write, write_settings

pytest.importorskip("kfp")
pytest.importorskip("openai")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Settings of a run whose rater is a service at a place that is still to be given."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-test")
    found: dict[str, Any] = yaml.safe_load(write_settings(tmp_path, tmp_path).read_text())
    price = {"input": 1.0, "output": 10.0}
    return found | {"raters": [{"name": "asked", "price": price, "backend": {"kind": "openai", "model": "m"}}]}


def checked(folder: Path, settings: dict[str, Any], url: str, model: str = "m") -> tuple[str, str]:
    """Level and words of the check of the rater's service."""
    from tamis_pipelines.checks.services import services
    from tamis_pipelines.settings import load_run

    settings["raters"][0]["backend"] |= {"base_url": url, "model": model}
    (check,) = services(load_run(write(folder, settings), ()))
    assert check.what == "raters.asked.backend.model"
    return check.level, f"{check.seen} {check.action}"


def test_a_service_is_asked_once_for_its_models_and_for_nothing_else(tmp_path: Path, settings: dict[str, Any]) -> None:
    with Server() as server:
        assert checked(tmp_path, settings, server.url)[0] == "ok"
        level, said = checked(tmp_path, settings, server.url, model="n")
        assert (level, "m" in said) == ("note", True)
        server.on_models = Reaction(error("no such path"), 404)
        assert checked(tmp_path, settings, server.url, model="n")[0] == "ok"
        server.on_models = Reaction(b"<html>")
        assert checked(tmp_path, settings, server.url, model="n")[0] == "ok"
        for status in (401, 403):
            server.on_models = Reaction(error("wrong key sk-of-a-test"), status)
            level, said = checked(tmp_path, settings, server.url)
            assert (level, "OPENAI_API_KEY" in said, "sk-of-a-test" in said) == ("failed", True, False)
        assert server.asked == []


def test_a_service_that_is_not_there_is_a_failed_check(tmp_path: Path, settings: dict[str, Any]) -> None:
    level, said = checked(tmp_path, settings, "http://127.0.0.1:9/v1")
    assert (level, "127.0.0.1:9" in said) == ("failed", True)


def test_a_sample_on_trial_shows_what_was_asked_answered_read_and_paid(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    from tamis_pipelines.checks.trial import tried
    from tamis_pipelines.settings import load_run

    with Server(lambda asked: Reaction(completion("I would say seven.\x1b[2J"))) as server:
        settings["raters"][0]["backend"]["base_url"] = server.url
        said = list(tried(load_run(write(tmp_path, settings), ()), 2))
    assert len(said) == len(server.asked) == 2
    assert "the Moon" in said[0]
    assert "I would say seven." in said[0]
    assert "\x1b" not in said[0]
    assert "unparsable" in said[0]
    assert f"cost: {(100 * 1.0 + 30 * 10.0) / 1e6:.6f}" in said[0]


def test_nothing_is_tried_where_a_check_failed(tmp_path: Path, settings: dict[str, Any]) -> None:
    with Server() as server:
        settings["raters"][0]["backend"]["base_url"] = server.url
        settings["embedding"] = {"model": str(tmp_path / "nowhere")}
        ended = CliRunner().invoke(main, ["doctor", str(write(tmp_path, settings)), "--try", "1"])
        assert ended.exit_code == 1, ended.output
        assert server.asked == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"neighbors": {"k": 4}}, "curation.diversity_neighbors is 10"),
        ({"subsets": [{"name": "far", "strategy": "knn", "size": 5, "k": 40}]}, "subset 'far': k is 40"),
    ],
)
def test_a_graph_that_is_too_small_for_its_users_is_refused_at_once(
    tmp_path: Path, settings: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    from tamis_pipelines.settings import load_run

    with pytest.raises(SettingsError, match=said):
        load_run(write(tmp_path, settings | change), ())
