"""The Containerfiles, read: what can be said of an image without building it."""

from __future__ import annotations

import re
import tomllib

import pytest

from tests.kubernetes.binaries import ROOT

IMAGES = ["cpu", "rating", "training", "evaluation"]


def stages(name: str) -> list[list[str]]:
    """The instructions of each stage of a Containerfile; what stands before the first FROM is left out."""
    text = (ROOT / "images" / f"{name}.Containerfile").read_text()
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    found: list[list[str]] = []
    for line in lines:
        if line.startswith("FROM "):
            found.append([])
        if found and line:
            found[-1].append(line)
    return found


def variables(name: str) -> dict[str, str]:
    (line,) = [line for line in stages(name)[-1] if line.startswith("ENV ")]
    return dict(item.split("=", 1) for item in line.removeprefix("ENV ").split())


def installation(name: str) -> tuple[str, set[str]]:
    """The file of exact versions by which Tamis is installed, and the extras that come with it by default."""
    (line,) = [line for line in stages(name)[0] if re.search(r"\.\[.*\]", line)]
    match = re.search(r"""--constraint (\S+) ['"]\.\[(.+)\]['"]$""", line)
    assert match
    given = {line.split("=")[0]: line.split("=")[1] for line in stages(name)[0] if re.match(r"ARG \w+=", line)}
    return match[1], set(given.get("ARG EXTRAS", match[2]).split(","))


@pytest.mark.parametrize("name", IMAGES)
def test_the_base_is_pinned_and_can_be_named_by_digest(name: str) -> None:
    text = (ROOT / "images" / f"{name}.Containerfile").read_text()
    assert re.search(r"(?m)^ARG PYTHON_IMAGE=docker\.io/library/python:3\.11\.\d+-slim-bookworm$", text)
    assert re.findall(r"(?m)^FROM (\S+)", text) == ["${PYTHON_IMAGE}", "${PYTHON_IMAGE}"]


@pytest.mark.parametrize("name", IMAGES)
def test_it_runs_as_a_numbered_user_and_starts_tamis(name: str) -> None:
    last = stages(name)[-1]
    assert "USER 10001:10001" in last
    assert last.index("USER 10001:10001") > max(i for i, line in enumerate(last) if line.startswith(("RUN ", "COPY ")))
    assert 'ENTRYPOINT ["tamis"]' in last


@pytest.mark.parametrize("name", IMAGES)
def test_everything_that_is_written_lies_below_the_cache(name: str) -> None:
    told = variables(name)
    for variable in ("HOME", "TAMIS_HOME", "HF_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"):
        assert (told[variable] + "/").startswith("/cache/"), variable
    assert "VOLUME /cache" in stages(name)[-1]


@pytest.mark.parametrize("name", IMAGES)
def test_the_installation_is_pinned_by_a_file_and_names_extras_that_are_there(name: str) -> None:
    constraints, named = installation(name)
    files = [item for line in stages(name)[0] if line.startswith("COPY ") for item in line.split()[1:-1]]
    assert constraints in [file.rsplit("/", 1)[-1] for file in files]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert named <= set(extras)
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    for file in files:
        assert f"!{file.split('/')[0]}" in ignored or f"!{file}" in ignored, file


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_can_talk_to_storage_and_be_a_step_of_kubeflow(name: str) -> None:
    extras = installation(name)[1]
    assert {"azure", "gcs", "kubeflow", "s3"} <= extras or extras == {"all"}


@pytest.mark.parametrize("name", IMAGES)
def test_a_change_of_the_code_alone_fetches_no_package_again(name: str) -> None:
    first = stages(name)[0]
    code = first.index("COPY components components")
    assert [line for line in first[code:] if line.startswith("RUN ")] == [first[-1]]
    assert "--no-deps" in first[-1]


def test_no_build_tool_is_in_a_last_stage_but_the_compiler_that_triton_needs() -> None:
    for name in IMAGES:
        installed = [line for line in stages(name)[-1] if "apt-get install" in line or "pip install" in line]
        assert bool(installed) == (name == "rating")
        for line in installed:
            assert re.findall(r"--no-install-recommends (.*?)(?: &&|$)", line) == ["gcc libc6-dev"]


def test_the_images_differ_in_what_they_install_and_not_in_how_they_run() -> None:
    own = {"VLLM_CACHE_ROOT", "VLLM_CONFIG_ROOT", "VLLM_NO_USAGE_STATS", "FLASHINFER_WORKSPACE_BASE", "NLTK_DATA"}
    common = [{k: v for k, v in variables(name).items() if k not in own} for name in IMAGES]
    assert all(told == common[0] for told in common)


def test_constraints_of_the_rating_image_differ_from_the_common_ones_in_numpy_alone() -> None:
    def versions(file: str) -> dict[str, str]:
        lines = [line.strip() for line in (ROOT / file).read_text().splitlines() if "==" in line and line[0] != "#"]
        pairs = [line.split("==") for line in lines]
        return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}

    common, rating = versions("constraints.txt"), versions("images/rating.constraints.txt")
    assert {name for name in set(common) & set(rating) if common[name] != rating[name]} == {"numpy"}
