"""Every public name has a page in the reference, a docstring and an example, and every example is true."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch

import detectors
import detectors.data
import pyramids
import pyramids.testing
from pyramids import registry

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PUBLIC = [
    f"{module.__name__}.{name}"
    for module in (pyramids, pyramids.testing, detectors)
    for name in module.__all__
    if not name.startswith("__")
]


def on_pages() -> set[str]:
    """Names that the reference has an entry for."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(REFERENCE.glob("*.md")))
    return set(re.findall(r"^::: ([\w.]+)$", text, re.MULTILINE))


@pytest.fixture(scope="module")
def docstrings() -> dict[str, str]:
    """Docstrings as the reference renders them: constants have theirs in the source below them."""
    griffe = pytest.importorskip("griffe", reason="the reference is built with the extra `docs`")
    packages = griffe.GriffeLoader(search_paths=[str(ROOT)])
    for package in ("pyramids", "detectors"):
        packages.load(package)
    packages.resolve_aliases()
    found = {}
    for name in sorted({*PUBLIC, *on_pages()}):
        docstring = packages.modules_collection[name].docstring
        found[name] = docstring.value if docstring else ""
    return found


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_has_a_page_a_docstring_and_an_example(name: str, docstrings: dict[str, str]) -> None:
    assert name in on_pages(), f"{name} is public, but no page of docs/reference has `::: {name}`"
    assert docstrings[name], f"{name} has no docstring"
    assert ">>> " in docstrings[name], f"the docstring of {name} has no example"


def test_all_of_the_data_package_is_on_its_page() -> None:
    assert {f"detectors.data.{name}" for name in detectors.data.__all__} <= on_pages()


def test_what_the_reference_shows_beyond_is_documented_too(docstrings: dict[str, str]) -> None:
    assert not [name for name, text in docstrings.items() if not text]


def modules() -> list[str]:
    """Modules of both packages; those that run something when imported are left out."""
    names = []
    for package in (pyramids, detectors):
        names += [
            package.__name__,
            *(info.name for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")),
        ]
    return [name for name in names if not name.endswith("__main__")]


class _Checker(doctest.OutputChecker):
    """Lets an example end an error's message in `...`."""

    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(want, got, optionflags | doctest.ELLIPSIS)


@pytest.mark.docs
@pytest.mark.parametrize("name", modules())
def test_examples_are_true(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_necks", dict(registry._necks))  # an example registers a neck
    module: ModuleType = importlib.import_module(name)
    runner = doctest.DocTestRunner(checker=_Checker(), optionflags=doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    torch.manual_seed(0)
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
