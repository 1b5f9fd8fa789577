"""What is found instead of listed: modules of a folder, and entry points."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tamis.core.errors import RegistryError
from tamis.core.registry import Registry, yaml_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the package `fruits`, which Python finds; what is imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    (tmp_path / "fruits").mkdir()
    (tmp_path / "fruits/__init__.py").touch()
    (tmp_path / "fruits/pear.py").write_text("FRUIT = 'pear'\n")
    (tmp_path / "fruits/apple.py").write_text("FRUIT = 'apple'\n")
    (tmp_path / "fruits/helper.py").write_text("PEEL = 1\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def fruits(first: str = "") -> Registry[str]:
    return Registry("fruits", "FRUIT", "fruits.test", str, name_of=lambda fruit: fruit, first=first)


def adds(folder: Path, package: str, module: str, *points: str) -> None:
    """Install a package with a module and entry points, each "name = module:attribute"."""
    info = folder / f"{package}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (info / "entry_points.txt").write_text("\n".join(["[fruits.test]", *points, ""]))
    (folder / f"{package}.py").write_text(module)


def test_modules_that_have_the_attribute_are_found_by_name(folder: Path) -> None:
    assert list(fruits()) == ["apple", "pear"]
    assert list(fruits(first="pear")) == ["pear", "apple"]
    assert fruits()["pear"] == "pear"
    assert "helper" not in fruits()


def test_entry_points_add_to_them(folder: Path) -> None:
    adds(folder, "exotic", "KIWI = 'kiwi'\n", "any = exotic:KIWI")
    assert list(fruits()) == ["apple", "kiwi", "pear"]


def test_keys_hold_the_version_of_the_package_that_adds_something_and_of_tamis_nothing(folder: Path) -> None:
    adds(folder, "exotic", "KIWI = 'kiwi'\n", "any = exotic:KIWI")
    registry = fruits()
    assert registry.origin("kiwi") == {"fruits.test: kiwi": "exotic 1"}
    assert registry.origin("pear") == registry.origin("nothing") == {}


def test_nothing_is_imported_before_something_is_looked_up(folder: Path) -> None:
    adds(folder, "exotic", "KIWI = 'kiwi'\n", "any = exotic:KIWI")
    registry = fruits()
    assert not {"fruits", "exotic"} & set(sys.modules)
    assert len(registry) == 3
    assert {"fruits.pear", "exotic"} <= set(sys.modules)


@pytest.mark.parametrize(
    ("module", "point", "told"),
    [
        ("raise OSError('no')", "any = exotic:KIWI", ["'any' of exotic", "OSError: no"]),
        ("raise SystemExit(3)", "any = exotic:KIWI", ["'any' of exotic", "SystemExit: 3"]),
        ("", "any = exotic:KIWI", ["'any' of exotic", "KIWI"]),
        ("KIWI = 7\n", "any = exotic:KIWI", ["'any' of exotic", "fruits.test"]),
        ("KIWI = 'a/kiwi'\n", "any = exotic:KIWI", ["'any' of exotic", "'a/kiwi'"]),
        ("KIWI = 'pear'\n", "any = exotic:KIWI", ["'any' of exotic", "fruits.pear.FRUIT", "'pear'"]),
    ],
    ids=["it fails", "it exits", "it lacks the object", "another kind", "its name is no name", "the name is taken"],
)
def test_an_entry_point_that_cannot_be_used_is_named_with_its_package(
    folder: Path, module: str, point: str, told: list[str]
) -> None:
    adds(folder, "exotic", module, point)
    with pytest.raises(RegistryError) as caught:
        len(fruits())
    assert all(part in str(caught.value) for part in told)


def test_yaml_files_are_found_in_the_folder_and_beside_the_packages_that_entry_points_name(
    folder: Path, tmp_path: Path
) -> None:
    shipped, theirs = tmp_path / "shipped", tmp_path / "exotic"
    for place in (shipped, theirs):
        place.mkdir()
    (shipped / "pear.yaml").touch()
    (theirs / "__init__.py").touch()
    (theirs / "kiwi.yaml").touch()
    info = tmp_path / "exotic-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: exotic\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[fruits.test]\nany = exotic\n")
    assert yaml_files(shipped, "fruits.test") == {"pear": shipped / "pear.yaml", "kiwi": theirs / "kiwi.yaml"}
    (theirs / "pear.yaml").touch()
    with pytest.raises(RegistryError) as caught:
        yaml_files(shipped, "fruits.test")
    assert "pear.yaml" in str(caught.value)


def test_yaml_files_are_found_in_a_folder_without_an_init_file_and_beside_a_module(folder: Path) -> None:
    (folder / "kiwis").mkdir()
    (folder / "kiwis/green.yaml").touch()
    adds(folder, "exotic", "KIWI = 'kiwi'\n", "any = kiwis", "beside = exotic")
    (folder / "lime.yaml").touch()
    found = yaml_files(folder / "fruits", "fruits.test")
    assert found == {"green": folder / "kiwis/green.yaml", "lime": folder / "lime.yaml"}


def test_an_entry_point_for_yaml_files_that_names_no_module_is_refused(folder: Path) -> None:
    adds(folder, "exotic", "KIWI = 'kiwi'\n", "any = exotic:KIWI")
    with pytest.raises(RegistryError) as caught:
        yaml_files(folder / "fruits", "fruits.test")
    assert "fruits.test" in caught.value.allowed
