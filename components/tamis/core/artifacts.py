"""Artifacts: the folders that stages exchange. `manifest.json` is written last; a folder without one is unfinished."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import tamis
from tamis.core.errors import ArtifactError, TamisError
from tamis.core.settings import hash_of
from tamis.core.storage import Location, download, exists, locate, read_bytes, sha256_of

if TYPE_CHECKING:
    import pyarrow as pa

    from tamis.core.sample_columns import Rows

Kind = Literal[
    "pool",
    "ratings",
    "ratings_part",
    "ratings_parts",
    "embeddings",
    "neighbors",
    "neighbors_part",
    "curation",
    "scores",
    "signals",
    "selection",
    "model",
    "evaluation",
    "judgement",
    "report",
]
MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_VERSIONED = (
    "numpy",
    "pyarrow",
    "rensa",
    "torch",
    "transformers",
    "sentence-transformers",
    "peft",
    "trl",
    "vllm",
    "lm-eval",
)


class File(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    bytes: int
    sha256: str


class Execution(BaseModel):
    """How the stage ran: not part of the content hash.

    `machine` describes processors and GPUs (`core.hardware`); it is empty in artifacts of earlier versions of Tamis.
    `resumed`: the step continued the work of an earlier attempt, so `seconds` covers only a part of it.
    `warnings`: the step's warnings, which runs that reuse the artifact repeat.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    started: str
    seconds: float
    peak_memory_bytes: int
    machine: str = ""
    resumed: bool = False
    warnings: list[str] = []


class Manifest(BaseModel):
    """What an artifact is and how it came to be.

    `content_hash` covers the names and bytes of the files. `key` covers what they were made from: the stage, the
    `revision` of its output (0 for Tamis 0.3 or earlier, which had none), its settings and the content of its inputs.
    `inputs` maps an input's name to content hashes, `models` maps a model's role to its revision, and `facts` has what
    the stage counted and measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    schema_version: int
    name: str
    rows: int
    content_hash: str
    files: list[File]
    stage: str
    revision: int = 0
    key: str
    config: dict[str, Any]
    config_hash: str
    inputs: dict[str, list[str]]
    models: dict[str, str]
    facts: dict[str, Any]
    versions: dict[str, str]
    execution: Execution


def content_hash(files: Sequence[File]) -> str:
    """SHA-256 over the names and checksums of `files`. Their order does not matter."""
    return hash_of(sorted([file.name, file.sha256] for file in files))


def files_in(folder: Path) -> list[File]:
    """Every file below `folder` with its size and checksum, sorted by name, without the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    return [
        File(name=name, bytes=path.stat().st_size, sha256=sha256_of(path))
        for name, path in zip(names, paths, strict=True)
        if name != MANIFEST
    ]


def versions() -> dict[str, str]:
    """Versions of Tamis, Python and the installed packages that results depend on."""
    found = {"tamis": tamis.__version__, "python": platform.python_version()}
    for package in _VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


class Artifact:
    """A finished artifact, open for reading, local or in object storage."""

    def __init__(self, location: Location, manifest: Manifest, cache: Path | None) -> None:
        self.location, self.manifest, self._cache = location, manifest, cache

    @classmethod
    def open(cls, uri: str | Path, *kinds: Kind, cache: Path | None = None) -> Artifact:
        """Open the artifact at `uri`.

        Args:
            uri: a local folder, or a prefix in object storage.
            kinds: the allowed kinds; any kind if empty.
            cache: folder for downloads. Each file of a remote artifact is downloaded into it once and checked.

        Raises:
            ArtifactError: when it is missing, unfinished, of another kind or schema, or its files are incomplete.
        """
        location = locate(uri)
        if not exists(location / MANIFEST):
            wanted = " or ".join(kinds) or "artifact"
            if isinstance(location, Path) and location.is_file():
                raise ArtifactError(f"{uri} is a file", allowed=f"the folder of a {wanted}, as its stage wrote it")
            seen = "is unfinished: it has no manifest.json" if exists(location) else "does not exist"
            raise ArtifactError(f"{uri} {seen}", action=f"run the stage that makes the {wanted}, or correct the path")
        manifest = _parse_manifest(uri, read_bytes(location / MANIFEST))
        if kinds and manifest.kind not in kinds:
            raise ArtifactError(
                f"{uri} is a {manifest.kind}", allowed=" or ".join(kinds), action="give the path of the right artifact"
            )
        artifact = cls(location, manifest, cache)
        artifact._check_sizes(uri)
        return artifact

    @property
    def name(self) -> str:
        """The user's name for it, as of a rater or a subset; empty where a run has only one of its kind."""
        return self.manifest.name

    @cached_property
    def folder(self) -> Path:
        """The artifact as a local folder. A remote artifact is downloaded first; each file's checksum is verified."""
        if isinstance(self.location, Path):
            return self.location
        if self._cache is None:
            raise ArtifactError(f"{self.location} is in object storage, and there is no cache folder for downloads")
        folder = self._cache / self.manifest.content_hash[:32]
        for file in self.manifest.files:
            local = folder / file.name
            if local.is_file() and local.stat().st_size == file.bytes:
                continue
            download(self.location / file.name, local, sha256=file.sha256)
        return folder

    def path(self, name: str) -> Path:
        """Local path of one of its files.

        Raises:
            ArtifactError: when the artifact has no such file.
        """
        names = [file.name for file in self.manifest.files]
        if name not in names:
            raise ArtifactError(f"{self.location} has no file '{name}'", allowed=", ".join(names))
        return self.folder / name

    def parts(self) -> list[Path]:
        """Its Parquet parts, in order."""
        return [self.folder / file.name for file in self.manifest.files if file.name.startswith("part-")]

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """All parts as one table, with all columns or only `columns`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [pq.read_table(part, columns=self._stored(part, columns)) for part in self.parts()]
        return pa.concat_tables([self._current(table, columns) for table in tables])

    def batches(self, columns: list[str] | None = None, rows: int = 10_000) -> Iterator[pa.RecordBatch]:
        """The rows in order, in batches of at most `rows`; memory does not grow with the pool."""
        import pyarrow.parquet as pq

        for part in self.parts():
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(batch_size=rows, columns=self._stored(part, columns)):
                    yield self._current(batch, columns)

    def _stored(self, part: Path, columns: list[str] | None) -> list[str] | None:
        """Those of `columns` that a part has; pools of old revisions have no tools."""
        if self.manifest.kind != "pool" or columns is None or "tools" not in columns:
            return columns
        import pyarrow.parquet as pq

        there = pq.read_schema(part).names
        return [name for name in columns if name in there or name != "tools"]

    def _current(self, rows: Rows, columns: list[str] | None) -> Rows:
        """Rows of any revision in today's schema."""
        if self.manifest.kind != "pool":
            return rows
        from tamis.core.sample_columns import upgraded

        return upgraded(rows, columns)

    def _check_sizes(self, uri: str | Path) -> None:
        if not isinstance(self.location, Path):
            return  # checked by checksum when downloaded
        for file in self.manifest.files:
            path = self.location / file.name
            seen = path.stat().st_size if path.is_file() else None
            if seen != file.bytes:
                state = "is missing" if seen is None else f"has {seen} bytes instead of {file.bytes}"
                raise ArtifactError(f"{uri}: {file.name} {state}", action="make the artifact again")

    def verify(self) -> None:
        """Compare every file with its checksum.

        Raises:
            ArtifactError: naming the first file that differs.
        """
        for file in self.manifest.files:
            if sha256_of(self.folder / file.name) != file.sha256:
                problem = f"{self.location}: {file.name} has changed since it was written"
                raise ArtifactError(problem, action="make the artifact again")


def manifest_of(uri: str | Path) -> Manifest | None:
    """The manifest of the artifact at `uri`, or None when there is no finished, complete artifact."""
    try:
        return Artifact.open(uri).manifest
    except ArtifactError:
        return None


def manifest_in(folder: Path) -> Manifest | None:
    """The manifest in a local folder, whether or not the artifact is complete; None when it cannot be read."""
    try:
        return _parse_manifest(folder, read_bytes(folder / MANIFEST))
    except TamisError:
        return None


def _parse_manifest(uri: str | Path, text: bytes) -> Manifest:
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as error:
        raise ArtifactError(
            f"{uri}/{MANIFEST} cannot be read: {error.error_count()} errors, the first: {error.errors()[0]['msg']}",
            action="make the artifact again with this version of Tamis",
        ) from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(
            f"{uri} has schema version {manifest.schema_version}", allowed=str(SCHEMA_VERSION), action="make it again"
        )
    return manifest
