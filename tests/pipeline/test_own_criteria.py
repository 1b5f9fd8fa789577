"""Own criteria, from the prompts in the documentation through to a selection: a local model and a service."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent

import yaml

from tamis import load
from tests.conftest import ROOT
from tests.llm_server import Asked, Reaction, Server, completion
from tests.pipeline.conftest import tamis, write


def prompt_in(page: str) -> str:
    """The first prompt in a page of the documentation."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = [dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]
    return next(block for block in blocks if "template" in yaml.safe_load(block))


def test_own_criteria_of_the_documentation_lead_to_a_selection(models: Path, tmp_path: Path) -> None:
    for page, name in (("own-criterion.md", "facts"), ("another-language.md", "deutsch")):
        (tmp_path / f"{name}.yaml").write_text(prompt_in(page), encoding="utf-8")
    validated = tamis("rating", "validate", tmp_path / "facts.yaml", tmp_path / "deutsch.yaml")
    assert validated.returncode == 0, validated.stderr
    subjects = ("metals", "rain", "bread", "maps", "music", "glass")
    rows = [
        {"instruction": f"Tell me about {subject} ({number}).", "output": f"{subject.capitalize()} matter {number}."}
        for subject in subjects
        for number in range(4)
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def behave(asked: Asked) -> Reaction:
        assert "Du bewertest Trainingsdaten" in asked.prompt
        score = 1 + len(asked.prompt) % 5
        scores = {"Rationale": "Kein Fehler.", "Factual correctness": score, "Language": 5}
        return Reaction(completion(json.dumps(scores)))

    with Server(behave) as server:
        service = {"kind": "openai", "model": "m", "base_url": server.url, "api_key_env": None}
        local = {"kind": "transformers", "model": str(models / "smollm2")}
        settings = {
            "work_dir": str(tmp_path / "work"),
            "pool": {"sources": [{"name": "facts", "path": str(data), "schema": "instruction"}]},
            "raters": [
                {"name": "facts", "prompt": str(tmp_path / "facts.yaml"), "backend": local},
                {
                    "name": "deutsch",
                    "prompt": str(tmp_path / "deutsch.yaml"),
                    "backend": service,
                    "store": str(tmp_path / "store"),
                },
            ],
            "embedding": {"model": str(models / "minilm")},
            "subsets": [{"name": "best", "strategy": "ds2", "size": 6, "rater": "facts"}],
        }
        settings["raters"][0]["store"] = str(tmp_path / "store")  # type: ignore[index]
        file = write(tmp_path, settings)
        planned = tamis("plan", file)
        assert planned.returncode == 0, planned.stderr
        ran = tamis("run", file, timeout=600)
        assert ran.returncode == 0, ran.stderr
    table = load(tmp_path / "work")
    assert sum(table["selections/best/picked"].to_pylist()) == 6
    for rater, column in (("facts", "clarity"), ("deutsch", "language")):
        assert set(table[f"ratings/{rater}/status"].to_pylist()) == {"ok"}
        assert set(table[f"ratings/{rater}/factual_correctness"].to_pylist()) <= {1, 2, 3, 4, 5}
        assert set(table[f"ratings/{rater}/{column}"].to_pylist()) <= {1, 2, 3, 4, 5}
    rationales = [text for text in table["ratings/facts/rationale"].to_pylist() if text]
    assert rationales
    assert max(map(len, rationales)) <= 400
    assert set(table["ratings/deutsch/rationale"].to_pylist()) == {"Kein Fehler."}
    report = (tmp_path / "work" / "report" / "report.html").read_text(encoding="utf-8")
    assert "Factual correctness (1 to 5)" in report
