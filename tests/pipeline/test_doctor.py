"""What `tamis doctor` says of raters that are services."""

from __future__ import annotations

import pytest

from tests.conftest import ROOT

pytest.importorskip("kfp")


def test_a_service_needs_its_key_and_no_model_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    settings = load_run(ROOT / "examples/demo.yaml", ("raters=[{rater: gpt-4o-mini}]",))

    def said() -> list[str]:
        return [str(check) for check in examine(settings) if "gpt-4o-mini.backend" in check.what]

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    (missing,) = said()
    assert missing.startswith("FAIL")
    assert "OPENAI_API_KEY" in missing
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    (there,) = said()
    assert there == "ok    raters.gpt-4o-mini.backend.model: gpt-4o-mini at OpenAI, key in OPENAI_API_KEY"


def test_a_judge_and_its_prompts_are_looked_at_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from tamis_pipelines.doctor import examine
    from tamis_pipelines.settings import load_run

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    service = "{kind: service, name: other, model: m, base_url: 'http://x/v1', api_key_env: NO_SUCH_KEY}"
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    judging = (
        "judging={prompts: [{name: set, path: nowhere.jsonl}], against: {kind: model, model: no/such/folder}, "
        f"opponents: {{elsewhere: {service}}}, judge: {{backend: {{kind: openai, model: gpt-4o-mini}}}}}}"
    )
    found = {check.what: check for check in examine(load_run(ROOT / "examples/demo.yaml", (judging,)))}
    assert not found["judging.prompts.set.path"].passed
    assert not found["judging.against.model"].passed
    assert found["judging.judge.backend.model"].seen == "gpt-4o-mini at OpenAI, key in OPENAI_API_KEY"
    assert not found["judging.opponents.elsewhere.model"].passed
