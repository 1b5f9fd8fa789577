"""The `tamis` command as its user meets it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tamis.cli import main
from tamis.cli.stages import STAGES


def tamis(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_help_loads_no_package_that_takes_time_to_load() -> None:
    heavy = {"numpy", "pandas", "pyarrow", "pydantic", "torch", "transformers", "kfp", "yaml", "matplotlib"}
    heavy |= {"botocore", "obstore"}
    code = f"""
import sys
from tamis.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
loaded = {heavy!r} & set(sys.modules)
assert not loaded, loaded
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    for command in [*STAGES, "run", "doctor", "compile", "compare"]:
        assert f"\n  {command} " in shown.stdout


def test_commands_stand_in_the_order_of_the_work() -> None:
    listed = tamis("--help").output
    places = [listed.index(f"\n  {command} ") for command in STAGES]
    assert places == sorted(places)


@pytest.mark.parametrize("command", list(STAGES))
def test_the_help_of_a_stage_teaches_its_settings_and_shows_an_example(command: str) -> None:
    result = tamis(command, "--help")
    assert result.exit_code == 0, result.output
    assert f"  tamis {command} " in result.output
    if command != "merge-ratings":  # has none
        assert "\nSettings (" in result.output
        assert "default: " in result.output


def test_every_setting_of_every_stage_says_what_it_is() -> None:
    from tamis.cli.stages import describe

    bare = [
        f"{command}: {name}"
        for command, stage in STAGES.items()
        for name, text in describe(stage.settings_model)
        if text == "required" or text.startswith("default: ")
    ]
    assert bare == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["embed", "--pool", "nowhere", "--out", "out"], ["error: nowhere", "to do:", "code:    artifact"]),
        (["embed", "--pool", "x", "--out", "out", "--set", "bach_size=1"], ["did you mean 'batch_size'?"]),
        (["embed", "--pool", "x", "--out", "out", "--set", "batch_size=0"], ["seen 0", "greater than or equal to 1"]),
        (["embed", "--pool", "x", "--out", "out", "--settings", "no.yaml"], ["no.yaml", "code:    settings"]),
        (["run", "no.yaml"], ["no.yaml", "code:    settings"]),
    ],
)
def test_an_error_is_told_in_words_without_a_traceback(
    arguments: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = tamis(*arguments)
    assert result.exit_code == 78
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.output
