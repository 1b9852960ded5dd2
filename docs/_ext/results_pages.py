"""Results pages: tables from `docs/results/*.json`, which benchmark scripts and people write."""

import json
from pathlib import Path
from typing import Any

from markdown import code, escape, table

WANTED = {"title", "date", "commit", "machine", "seeds", "command", "columns", "rows"}
ALLOWED = WANTED | {"introduction", "notes"}


def pages(folder: Path) -> dict[str, str]:
    """Return a page per results file.

    Raises:
        ValueError: If a file lacks a field, or a row has another number of cells than there are columns.
    """
    return {f"results/generated/{file.stem}.md": page(file.name, read(file)) for file in sorted(folder.glob("*.json"))}


def read(file: Path) -> dict[str, Any]:
    """Return the checked content of one results file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    for name, one in [(file.name, one) for one in content.get("tables", [content])]:
        if lacking := WANTED - set(one):
            raise ValueError(f"{name}: got no {', '.join(sorted(lacking))}; every table states them")
        if unknown := set(one) - ALLOWED:
            raise ValueError(f"{name}: nothing reads {', '.join(sorted(unknown))}")
        for row in one["rows"]:
            if len(row) != len(one["columns"]):
                raise ValueError(f"{name}: a row has {len(row)} cells, wanted {len(one['columns'])}: {row}")
    return content


def page(name: str, content: dict[str, Any]) -> str:
    """Return the Markdown of one results file, which holds one table or several under `tables`."""
    if "tables" not in content:
        return f"# {content['title']}\n\n{body(content)}"
    lines = [f"# {content['title']}"]
    if content.get("introduction"):
        lines.append(content["introduction"])
    for one in content["tables"]:
        lines += [f"## {one['title']}", body(one)]
    return "\n\n".join([*lines, *content.get("notes", [])]) + "\n"


def body(one: dict[str, Any]) -> str:
    """Return introduction, table, provenance and notes of one table."""
    lines = [one["introduction"]] if one.get("introduction") else []
    lines.append(table(one["columns"], [[str(cell) for cell in row] for row in one["rows"]]))
    facts = [
        ("command", code(one["command"])),
        ("date", escape(one["date"])),
        ("commit", code(one["commit"]) if one["commit"] else "not recorded"),
        ("seeds", escape(one["seeds"])),
        ("machine", escape(one["machine"])),
    ]
    lines.append("\n".join(f"- **{name}**: {value}" for name, value in facts if value))
    return "\n\n".join([*lines, *one.get("notes", [])]) + "\n"
