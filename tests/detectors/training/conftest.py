"""A data folder for the tests of training, and no pictures where none is looked at."""

from pathlib import Path

import pytest
from training_runs import no_pictures, write_data

from detectors.training import run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def drawn() -> None:
    """Asked for by the tests that look at the pictures of a run."""


@pytest.fixture(autouse=True)
def _draw_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes half the time of a tiny run."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(run, "draw_results", no_pictures)
