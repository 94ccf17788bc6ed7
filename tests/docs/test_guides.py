"""Every page's code runs as it stands, and prints what the page says."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from huggingface_hub import HfApi
from pages import ROOT, run_page

from detectors import saving
from pyramids import registry

DOCS = ROOT / "docs"
PAGES = [DOCS / "index.md", *sorted((DOCS / "guides").glob("*.md")), *sorted((DOCS / "explained").glob("*.md"))]


def write_stand_in(file: Path) -> None:
    """A checkpoint with the names of the authors' largest one, but two levels and zeros, that takes little room."""
    names = json.loads((ROOT / "tests" / "golden" / "official_state_dict_keys.json").read_text())
    weights = {}
    for name, shape in names["m2det512_vgg_sfam_false"]:
        part, _, rest = name.partition(".")
        level = part.removeprefix("unet") if part.startswith("unet") else rest.split(".")[0] if part == "leach" else "0"
        if int(level) > (2 if part.startswith("unet") else 1 if part == "leach" else 0):
            continue
        shape = [512 if side == 2048 else side for side in shape]
        weights[name] = torch.zeros(1).expand(shape) if shape else torch.tensor(0)
    torch.save(weights, file)


def stand_in_hub(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Hub as a folder: what is uploaded is what is downloaded."""

    def upload(self: HfApi, *, repo_id: str, folder_path: Path, **kwargs: Any) -> str:
        shutil.copytree(folder_path, folder / repo_id)
        return repo_id

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **kwargs: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    monkeypatch.setattr(saving, "hf_hub_download", lambda name, file, **options: str(folder / name / file))


@pytest.mark.docs
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_necks", dict(registry._necks))
    torch.manual_seed(0)
    if page.stem == "released_weights":
        write_stand_in(tmp_path / "m2det512_vgg.pth")
    if page.stem == "hub":
        stand_in_hub(tmp_path / "hub", monkeypatch)
    run_page(page)
