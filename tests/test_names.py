"""Names: private words are no identifiers, no class name exists twice, and a function names its object.

The lists of what is left may only shrink.
"""

import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ("mm", "datamodules")
# Words that stood for many technical terms each; names that begin with `cut_` read as "truncate".
FORBIDDEN = {"told", "said", "found", "kept", "asked", "wanted", "own", "whole", "how", "what"}
# Functions and methods whose name is only a verb or an adjective; a public one names its object.
WITHOUT_OBJECT = {"check", "find", "load", "build", "plain", "parts", "show", "flat"}

# Public names that are still to be renamed: function or class, and name; a module may be moved.
PUBLIC_LEFT = {
    "Benchmark.kept",
    "DataModule.wanted",
    "DigitsDataModule.told",
    "Missing.found",
    "Rows.own",
    "Rows.whole",
    "Table.kept",
    "TextTransform.how",
    "__init__.whole",
    "cells.what",
    "check_empty.found",
    "check_text.found",
    "columns.told",
    "cut_off.found",
    "cut_out.whole",
    "described.own",
    "files.whole",
    "find_columns.kept",
    "fitting.told",
    "lasting.own",
    "misspelt.said",
    "read_inputs.found",
    "read_inputs.kept",
    "read_part.kept",
    "resampled.wanted",
    "shown.wanted",
    "splitting.cut_rare",
    "splitting.cut_rare_classes",
    "splitting.kept",
    "tabular.cut_tabular",
    "tokens.cut_out",
    "waveform.cut_off",
}
# How often each word is still a name inside of functions.
LOCAL_LEFT = {
    "asked": 5,
    "found": 200,
    "how": 15,
    "kept": 15,
    "own": 55,
    "said": 15,
    "told": 45,
    "wanted": 35,
    "what": 25,
    "whole": 20,
}
# Class names that exist twice.
CLASSES_LEFT: set[str] = {
    "Head",
    "Joined",
    "LocalPool",
    "Part",
    "Ranking",
    "Table",
    "Text",
}
# How many public functions without an object are left of each name.
FUNCTIONS_LEFT = {"build": 2, "find": 1, "load": 1, "plain": 3, "show": 6}
# Public functions without an object that stay, and why.
FUNCTIONS = {
    "mm.checkpoint.loading.load",  # mm.load, as torch.load
    "mm.assembly.building.build",  # mm.build: the verb's function
}
# Attributes with weights, whose names are in every state dict.
WEIGHTS = {"mm.heads.detection.DetectionHead.what"}


class Found(NamedTuple):
    """An identifier: its qualified name, the name itself, and whether it is public."""

    place: str
    name: str
    public: bool


def without_module(place: str) -> str:
    """Return the last two parts of a qualified name."""
    return ".".join(place.split(".")[-2:])


def is_forbidden(name: str) -> bool:
    return name in FORBIDDEN or name.startswith("cut_")


def names_in(node: ast.AST, place: str, public: bool, local: bool) -> Iterator[Found]:
    """Yield every identifier that is defined below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            shown = public and not child.name.startswith("_")
            yield Found(f"{place}.{child.name}", child.name, shown)
            yield from names_in(child, f"{place}.{child.name}", shown, local)
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            shown = public and not local and (not child.name.startswith("_") or child.name == "__init__")
            yield Found(f"{place}.{child.name}", child.name, shown)
            args = child.args
            given = [*args.posonlyargs, *args.args, *args.kwonlyargs, *filter(None, (args.vararg, args.kwarg))]
            yield from (Found(f"{place}.{child.name}.{arg.arg}", arg.arg, shown) for arg in given)
            yield from names_in(child, f"{place}.{child.name}", shown, True)
        else:
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                yield Found(f"{place}.{child.id}", child.id, public and not local)
            if isinstance(child, ast.Attribute) and isinstance(child.ctx, ast.Store):
                owner = place.rpartition(".")[0] if local else place
                yield Found(f"{owner}.{child.attr}", child.attr, public)
            yield from names_in(child, place, public, local)


@cache
def modules() -> dict[str, ast.Module]:
    """Module -> its syntax tree."""
    trees = {}
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            if parts[:2] not in (("mm", "datamodules"), ("mm", "conf")):  # links to the folders beside
                trees[".".join(parts)] = ast.parse(file.read_text(encoding="utf-8"))
    return trees


@cache
def identifiers() -> list[Found]:
    """Every identifier that is defined in the package."""
    return [
        found
        for module, tree in modules().items()
        for found in names_in(tree, module, not module.rpartition(".")[2].startswith("_"), False)
    ]


def test_public_names_are_technical_terms() -> None:
    places = {found.place for found in identifiers() if found.public and is_forbidden(found.name)} - WEIGHTS
    new = {place for place in places if without_module(place) not in PUBLIC_LEFT}
    assert not new, f"use the field's term: {sorted(new)}"


def test_private_names_become_technical_terms() -> None:
    count = Counter(found.name for found in identifiers() if not found.public and is_forbidden(found.name))
    more = {name: number for name, number in count.items() if number > LOCAL_LEFT.get(name, 0)}
    assert not more, f"use the field's term: {more}, at most {LOCAL_LEFT}"


def test_config_keys_are_technical_terms() -> None:
    def keys(node: object) -> Iterator[str]:
        for key, child in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield str(key)
            yield from keys(child)

    for file in sorted((ROOT / "conf").rglob("*.yaml")):
        wrong = [key for key in keys(yaml.safe_load(file.read_text(encoding="utf-8"))) if is_forbidden(key)]
        assert not wrong, f"{file}: {wrong}"


def test_no_class_name_exists_twice() -> None:
    places = defaultdict(list)
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module)
    twice = {name: where for name, where in places.items() if len(where) > 1}
    assert not set(twice) - CLASSES_LEFT, {name: twice[name] for name in set(twice) - CLASSES_LEFT}


def test_public_functions_name_their_object() -> None:
    without = {
        f"{module}.{node.name}"
        for module, tree in modules().items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name in WITHOUT_OBJECT and "._" not in module
    } - FUNCTIONS
    count = Counter(name.rpartition(".")[2] for name in without)
    more = {name: number for name, number in count.items() if number > FUNCTIONS_LEFT.get(name, 0)}
    assert not more, f"name the object: {sorted(name for name in without if name.rpartition('.')[2] in more)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(own): pass", {("m.f.own", True)}),
        ("def _f(own): pass", {("m._f.own", False)}),
        ("def f():\n    found = 1", {("m.f.found", False)}),
        ("class A:\n    def f(self):\n        self.told = 1", {("m.A.told", True)}),
        ("def cut_off(): pass", {("m.cut_off", True)}),
        ("class A:\n    def __init__(self, whole=1): pass", {("m.A.__init__.whole", True)}),
        ("how: int = 1", {("m.how", True)}),
        ("def f(mine): told_apart = 1", set()),
    ],
)
def test_identifiers_are_seen(source: str, expected: set[tuple[str, bool]]) -> None:
    found = {(one.place, one.public) for one in names_in(ast.parse(source), "m", True, False) if is_forbidden(one.name)}
    assert found == expected
