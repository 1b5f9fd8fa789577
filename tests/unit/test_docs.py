"""The documentation's site: it builds without a broken link, needs no other host, and its reference is complete."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from tamis.cli import main
from tamis.core.errors import TamisError
from tamis.core.settings import all_fields, models_in
from tamis_pipelines.settings import RunSettings
from tests.conftest import ROOT

MKDOCS = [sys.executable, "-m", "mkdocs", "build"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built strictly: a broken link or anchor, or a page outside the navigation, fails."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run([*MKDOCS, "--site-dir", folder], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def page(site: Path, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def test_every_page_of_the_repository_is_in_it(site: Path) -> None:
    pages = {file.relative_to(site).with_suffix("").as_posix() for file in site.rglob("*.html")}
    assert {file.relative_to(ROOT / "docs").with_suffix("").as_posix() for file in ROOT.glob("docs/**/*.md")} <= pages
    stages = {file.parent.name for file in ROOT.glob("components/tamis/*/README.md")} - {"demo"}
    assert {f"stages/{name}" for name in stages} <= pages
    assert {f"examples/{file.stem}" for file in ROOT.glob("examples/*.yaml")} <= pages
    assert {"index", "demo", "changelog", "contributing", "security"} <= pages


def test_nothing_is_loaded_from_another_host(site: Path) -> None:
    for file in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=\"?(\S+?)[\"\s>]", file.read_text())
        loaded += re.findall(r"<link\b[^>]*\bhref=\"?(\S+?)[\"\s>]", file.read_text())
        assert [place for place in loaded if re.match(r"(https?:)?//", place)] == []
    for file in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", file.read_text())


def test_the_reference_has_every_setting(site: Path) -> None:
    def missing(model: type, text: str) -> list[str]:
        names = [field.alias or name for name, field in all_fields(model).items()]
        inner = [one for field in all_fields(model).values() for one in models_in(field.annotation)]
        found = [name for name in names if f"<code>{name}</code>" not in text]
        return found + [name for one in inner for name in missing(one, text)]

    for section, field in RunSettings.model_fields.items():
        for model in models_in(field.annotation):
            assert missing(model, page(site, f"reference/settings/{section}.html")) == []


def test_a_setting_is_told_with_its_type_default_range_and_meaning(site: Path) -> None:
    row = re.search(
        r"<tr>\s*<td><code>max_tokens</code></td>.*?</tr>", page(site, "reference/settings/embedding.html"), re.S
    )
    assert row is not None
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row[0], re.S)]
    field = {name: field for name, field in RunSettings.model_fields.items()}["embedding"].default
    assert cells[1:3] == ["whole number", str(field.max_tokens)]
    assert cells[3].startswith("≥")
    assert cells[4] == type(field).model_fields["max_tokens"].description


def test_the_reference_has_every_command_and_error(site: Path) -> None:
    commands, errors = page(site, "reference/commands.html"), page(site, "reference/errors.html")
    assert [name for name in main.commands if f'id="tamis-{name}"' not in commands] == []

    def codes(kind: type[TamisError]) -> set[str]:
        return {kind.code} | {code for one in kind.__subclasses__() for code in codes(one)}

    assert {code for code in codes(TamisError) - {"error"} if f"<code>{code}</code>" not in errors} == set()


@pytest.mark.parametrize("link", ["nowhere.md", "glossary.md#nothing", "../examples/none.yaml", "../pipelines"])
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "index.md").write_text(f"# Page\n\n[link]({link})\n")
    (docs / "glossary.md").write_text("# Glossary\n")
    lines = (ROOT / "mkdocs.yml").read_text().splitlines()
    start = lines.index("validation:")
    rules = "\n".join(lines[start : start + 5])
    (tmp_path / "mkdocs.yml").write_text(f"site_name: test\nstrict: true\n{rules}\n")
    done = subprocess.run(MKDOCS, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert link in done.stderr


PAGES = ["README.md", *(f"docs/{name}.md" for name in ("tutorial", "own-ratings", "own-server", "own-criterion"))]
PAGES += [f"docs/{name}.md" for name in ("another-language", "decontamination", "two-gpus", "thinking-models")]


@pytest.mark.parametrize("name", PAGES)
def test_settings_in_the_guides_are_valid(name: str) -> None:
    smallest = {
        "work_dir": "runs/first",
        "pool": {"sources": [{"name": "mine", "path": "mine.jsonl"}]},
        "raters": [{"name": "llama", "backend": {"kind": "transformers", "model": "some/model"}}],
        "subsets": [{"name": "best", "strategy": "ds2", "size": 10}],
    }
    blocks = [dedent(block) for block in re.findall(r"^ *```yaml\n(.*?)^ *```", (ROOT / name).read_text(), re.S | re.M)]
    settings = [
        values for block in blocks if RunSettings.model_fields.keys() >= (values := yaml.safe_load(block)).keys()
    ]
    assert settings
    for values in settings:
        RunSettings.model_validate(smallest | values)
