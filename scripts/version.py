"""Copy the version in `components/tamis/__init__.py` to all other files that contain it.

    python scripts/version.py            # after a change of `__version__`
    python scripts/version.py 1.2.3      # set `__version__` first
    python scripts/version.py --check    # only list files that differ; exit status 1 if there are any

Compiled pipelines are not among these files; `tamis compile` writes them. `make version` does both.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "components/tamis/__init__.py"
NUMBER = r"\d+\.\d+\.\d+"
_SOURCE = re.compile(rf'^(__version__ = "){NUMBER}(")', re.MULTILINE)
_IMAGE = rf"\btamis-(?:cpu|rating|training|evaluation):({NUMBER})"
# Patterns of the version in files, by glob; the group is the version.
PLACES = {
    "images/*.Containerfile": rf"{_IMAGE}|^ARG VERSION=({NUMBER})$",
    "manifests/components/images/kustomization.yaml": rf"^ +newTag: ({NUMBER})$",
    "helm/tamis/Chart.yaml": rf'^version: ({NUMBER})$|^appVersion: "({NUMBER})"$',
    "docs/**/*.md": _IMAGE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", nargs="?", help="the new version, as 1.2.3")
    parser.add_argument("--check", action="store_true", help="write nothing")
    given = parser.parse_args()
    if given.version:
        if not re.fullmatch(NUMBER, given.version):
            parser.error(f"'{given.version}' is not a version; allowed: three numbers, as in 1.2.3")
        SOURCE.write_text(_SOURCE.sub(rf"\g<1>{given.version}\g<2>", SOURCE.read_text(encoding="utf-8")), "utf-8")
    stale = {path: text for path, text in placed(current()).items() if text != path.read_text(encoding="utf-8")}
    for path, text in stale.items():
        print(f"{'differs' if given.check else 'wrote'}: {path.relative_to(ROOT)}")
        if not given.check:
            path.write_text(text, encoding="utf-8")
    sys.exit(1 if stale and given.check else 0)


def current() -> str:
    """The version in the source."""
    found = re.search(rf'^__version__ = "({NUMBER})"', SOURCE.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        sys.exit(f"{SOURCE} has no __version__ of three numbers")
    return found[1]


def placed(version: str) -> dict[Path, str]:
    """Every file that contains the version, with its text for `version`."""
    return {
        path: re.sub(pattern, lambda found: _replaced(found, version), path.read_text(encoding="utf-8"), flags=re.M)
        for glob, pattern in PLACES.items()
        for path in sorted(ROOT.glob(glob))
    }


def _replaced(found: re.Match[str], version: str) -> str:
    """The match with only its group replaced."""
    (group,) = (number for number, text in enumerate(found.groups(), 1) if text is not None)
    start, end = (place - found.start() for place in found.span(group))
    return found[0][:start] + version + found[0][end:]


if __name__ == "__main__":
    main()
