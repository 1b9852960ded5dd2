"""Sphinx extension: writes the generated pages before the sources are read.

Reference pages come from the config files and from the docstrings, results pages from `docs/results/*.json`. Files are
written only where they have changed, so that a second build is quick.
"""

from pathlib import Path
from typing import Any

import config_pages
import python_pages
import results_pages

DOCS = Path(__file__).resolve().parents[1]
FOLDERS = ("reference/config", "reference/verbs", "reference/python", "results/generated")


def write_pages(pages: dict[str, str]) -> None:
    """Write the generated pages and remove those that are generated no more.

    Args:
        pages: Path below docs/ to the page's Markdown.
    """
    for name, text in pages.items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for folder in FOLDERS:
        for path in (DOCS / folder).glob("*.md"):
            if str(path.relative_to(DOCS)) not in pages:
                path.unlink()


def all_pages() -> dict[str, str]:
    """Return every generated page by its path below docs/."""
    return config_pages.pages() | python_pages.pages() | results_pages.pages(DOCS / "results")


def setup(app: Any) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", lambda _: write_pages(all_pages()), priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
