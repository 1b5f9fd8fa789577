"""The example report of `reporting`, made once."""

from tests.unit.reporting.conftest import made as made  # a fixture
