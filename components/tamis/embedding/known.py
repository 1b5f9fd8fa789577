"""Reusing vectors from embeddings of another pool."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tamis.core.artifacts import Artifact
from tamis.core.errors import InputError
from tamis.core.ids import Keys, pack, positions
from tamis.core.models import revision_of
from tamis.embedding.beginnings import Beginnings
from tamis.embedding.settings import EmbeddingSettings

_SAME = ("text", "max_tokens", "precision")  # settings that must be equal, besides the encoder


class KnownVectors:
    """Vectors of a pool's samples in earlier embeddings. They stay on disk until they are needed.

    `beginnings` are the beginnings that were left out of the texts of the earlier embeddings.
    """

    def __init__(self, artifact: Artifact, settings: EmbeddingSettings, pool: Keys) -> None:
        """Look up the samples with the keys (n,) `pool`.

        Raises:
            InputError: when the embeddings were made with another encoder or from other text.
        """
        here, manifest = settings.model_dump(mode="json"), artifact.manifest
        theirs = {"encoder": manifest.models["encoder"]} | {name: manifest.config[name] for name in _SAME}
        ours = {"encoder": revision_of(settings.model, settings.revision)} | {name: here[name] for name in _SAME}
        if different := [name for name in ours if ours[name] != theirs[name]]:
            seen = ", ".join(f"{name} {theirs[name]} instead of {ours[name]}" for name in different)
            raise InputError(
                f"{artifact.location} was made with other settings: {seen}",
                allowed="known embeddings from the same encoder and the same text",
                action="leave out these embeddings, or use their settings",
            )
        self.beginnings = Beginnings.of_facts(manifest.facts.get("beginnings_left_out", []))
        ids = pq.read_table(artifact.path("ids.parquet"))["id"].combine_chunks()
        self._places = positions(pool, pack(ids, where=str(artifact.location)))
        self._vectors = np.load(artifact.path("vectors.npy"), mmap_mode="r")

    def of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.float16]]:
        """Which of the pool's (m,) `rows` are known, (m,) bool, and their vectors, float16."""
        places = self._places[rows]
        there = places >= 0
        return there, self._vectors[places[there]]
