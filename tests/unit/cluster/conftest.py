"""A finished subset, and an API server."""

from tests.kubernetes.conftest import kubectl as kubectl  # a fixture
from tests.unit.finetuning.conftest import selection as selection  # a fixture
