"""Packages list their public names once for type checkers and once in `__all__`, and import each on first use."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from test_imports import HEAVY, imported

from mm.lazy import read_exports

ROOT = Path(__file__).parents[1]
PACKAGES = {
    ".".join(file.parent.relative_to(ROOT).parts): file
    for file in sorted(ROOT.glob("mm/**/__init__.py"))
    if "lazy_exports(" in file.read_text(encoding="utf-8")
}


@pytest.mark.parametrize("package", PACKAGES)
def test_the_names_of_a_package_are_imported_on_first_use(package):
    module = import_module(package)
    exports = read_exports(PACKAGES[package].read_text(encoding="utf-8"))
    assert sorted(exports) == sorted(module.__all__)
    for name, defined in exports.items():
        assert getattr(module, name) is getattr(import_module(defined), name)
        assert not (PACKAGES[package].parent / f"{name}.py").exists()  # the module would hide the name
    for name in dir(module):
        assert getattr(module, name) is not None


@pytest.mark.parametrize("room", sorted({file.parent for file in ROOT.glob("mm/*/*.py")}), ids=lambda room: room.name)
def test_every_package_says_what_it_holds(room):
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    assert ast.get_docstring(tree)


def test_a_package_imports_nothing_but_its_names_do():
    rooms = ", ".join(sorted(PACKAGES))
    assert imported(f"import {rooms}", HEAVY) == set()
    assert imported("from mm.encoders import VisionConv", HEAVY) >= {"torch"}


def test_a_name_that_a_package_lacks_is_an_error():
    with pytest.raises(AttributeError, match=r"module 'mm.fusion' has no attribute 'ConcatenateFusion'"):
        import_module("mm.fusion").ConcatenateFusion  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'ConcatenateFusion'"):
        from mm.fusion import ConcatenateFusion  # noqa: F401  # pyright: ignore[reportAttributeAccessIssue]
