"""What Prometheus sees of a run, and the check of raters' files."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from click.testing import CliRunner

from tamis.cli import main
from tamis.core.errors import SettingsError
from tamis.core.settings import parse
from tamis.rating.metrics import Metrics
from tamis.rating.settings import RatingSettings
from tamis.rating.stage import run
from tamis.rating.validating import shipped
from tests.artifacts import conversation, make_pool
from tests.llm_server import Asked, Reaction, Server, completion
from tests.storage.seaweed import free_port

pytest.importorskip("prometheus_client")


def test_metrics_are_served_while_the_run_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    port, seen = free_port(), {}
    monkeypatch.setenv("TAMIS_METRICS_PORT", str(port))

    def behave(asked: Asked) -> Reaction:
        if asked.number == 9:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as response:
                for line in response.read().decode().splitlines():
                    if match := re.fullmatch(r"tamis_rating_(\w+)\{(.*)\} ([\d.e+-]+)", line):
                        seen[match[1], match[2]] = float(match[3])
        return Reaction(completion())

    pool = make_pool(tmp_path / "pool", [conversation(f"Q{n}", f"A{n}") for n in range(10)])
    with Server(behave) as server:
        backend = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None, "concurrency": 1}
        values = {"name": "mini", "backend": backend, "price": {"input": 1000, "output": 0}}
        run(parse(RatingSettings, values, where="here"), pool=pool, out=tmp_path / "out")
    label = 'rater="mini"'
    assert seen["pool_samples", label] == 10
    rated = seen["samples_total", f'{label},status="ok"']
    assert 5 <= rated <= 9
    assert seen["tokens_total", f'kind="prompt",{label}'] == 100 * rated
    assert seen["cost", label] == pytest.approx(0.1 * rated)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5)


def test_a_port_that_is_taken_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as server:
        monkeypatch.setenv("TAMIS_METRICS_PORT", str(server.port))
        with pytest.raises(SettingsError, match=f"port {server.port}"), Metrics("r", 1, 0):
            pass


def test_raters_and_prompts_are_checked(tmp_path: Path) -> None:
    def called(*files: Path) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["rating", "validate", *map(str, files)])
        return result.exit_code, result.output

    code, said = called()
    assert code == 0
    assert "rater 'gpt-4o-mini', gpt-4o-mini by openai, prompt 'ds2-v1' (version 1" in said
    assert len(said.splitlines()) == len(shipped())
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\ndescription: mine\nsettings: {name: r, backend: {kind: openai, modle: m}}\n")
    code, said = called(wrong)
    assert code == 78
    assert "did you mean 'model'" in said
    wrong.write_text("version: 1\ndescription: d\ncriteria: {}\ntemplate: t\nmarker: m\n")
    assert called(wrong)[0] == 78
    mine = tmp_path / "settings.yaml"
    mine.write_text("name: r\nbackend: {kind: transformers, model: some/model}\n")
    assert "rater 'r', some/model by transformers" in called(mine)[1]
