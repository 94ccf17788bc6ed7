"""Build hooks of the site: results pages as far as they were written, and links to them.

`python -m benchmarks report` and the sweep over timm write the pages in `docs/results`. A page that is there enters the
navigation; a page that is not there yet is "not measured yet" where another page speaks of it.
"""

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

RESULTS = "results"
REFERENCE = re.compile(r"<!-- result: (?P<page>[\w/.-]+) \| (?P<title>[^|>]+?) -->")


def title_of(page: Path) -> str:
    """The first heading of a Markdown page, or its name."""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            return line[2:].strip()
    return page.stem.replace("_", " ").capitalize()


def on_config(config: Any) -> Any:
    """Add the results pages to the navigation, `index.md` first."""
    folder = Path(config["docs_dir"]) / RESULTS
    pages = sorted(folder.rglob("*.md"), key=lambda page: (page.name != "index.md", page.as_posix()))
    entries = [{title_of(page): page.relative_to(config["docs_dir"]).as_posix()} for page in pages]
    if entries:
        config["nav"] = [*config["nav"], {"Results": entries}]
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, **kwargs: Any) -> str:
    """Turn `<!-- result: necks.md | title -->` into a link, or say that it is not measured yet.

    Results pages have no table of contents beside them: their tables need the width.
    """
    if PurePosixPath(page.file.src_uri).parts[0] == RESULTS:
        page.meta.setdefault("hide", ["toc"])
    here = PurePosixPath(page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        target = f"{RESULTS}/{match['page']}"
        if not (Path(config["docs_dir"]) / target).is_file():
            return f"{match['title']} (not measured yet)"
        return f"[{match['title']}]({os.path.relpath(target, here)})"

    return REFERENCE.sub(link, markdown)
