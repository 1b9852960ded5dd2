"""Packages of extras: one sentence where they are not installed, and every call names the extra that installs it."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from mm.extras import MissingPackageError, require

ROOT = Path(__file__).parents[1]
FILES = sorted([*ROOT.glob("mm/**/*.py"), *ROOT.glob("datamodules/**/*.py")])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
TOOLS = {"docs", "dev", "all"}
# Imported as part of what declares them: hydra-core brings OmegaConf's grammar, and so on.
GIVEN = {"mm", "hydra_plugins"}
# What other packages of ours import for us, by name in a config or inside of a class that we use.
INDIRECT = {"pycocotools", "tensorboard"}


def distribution(requirement: str) -> str:
    """The name of a requirement, without version, extras and comment, as metadata writes it."""
    for end in "[<>=!~; ":
        requirement = requirement.partition(end)[0]
    return requirement.lower().replace("_", "-")


CORE = {distribution(r) for r in PROJECT["dependencies"]}
OPTIONAL = {name: {distribution(r) for r in wanted} for name, wanted in EXTRAS.items() if name not in TOOLS}
PACKAGES = packages_distributions()


def owners(module: str) -> set[str]:
    return {distribution(name) for name in PACKAGES.get(module.split(".")[0], [])}


def calls() -> list[tuple[str, str, str]]:
    """File, module and extra of every call of `require`."""
    found = []
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
                module, extra = (ast.literal_eval(arg) for arg in node.args)
                found.append((str(file.relative_to(ROOT)), module, extra))
    return found


@pytest.mark.parametrize(("file", "module", "extra"), calls())
def test_the_extra_that_is_named_installs_the_package(file, module, extra):
    assert owners(module) & OPTIONAL[extra], f"{file}: mm[{extra}] does not install {module}"


@pytest.mark.parametrize(("module", "extra"), sorted({(m.split(".")[0], e) for _, m, e in calls()}))
def test_a_package_that_is_not_there_is_one_sentence(module, extra, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as Python marks what must not be imported
    with pytest.raises(MissingPackageError, match=rf"'{module}'.*pip install 'mm\[{extra}\]'"):
        require(f"{module}.deeper", extra)


def test_a_package_that_lacks_something_itself_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "halfway.py").write_text("import nowhere_at_all\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="nowhere_at_all") as caught:
        require("halfway", "search")
    assert not isinstance(caught.value, MissingPackageError)


def imports(file: Path) -> list[tuple[str, bool]]:
    """Every imported module of a file, and whether a plain import of the package runs it."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    lazy = set()
    for node in ast.walk(tree):
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if checking or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lazy |= {id(inner) for inner in ast.walk(node)}
    found = []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        found += [(name, id(node) not in lazy) for name in names]
    return found


def test_every_import_is_declared():
    declared = CORE.union(*OPTIONAL.values())
    for file in FILES:
        for module, _ in imports(file):
            top = module.split(".")[0]
            if top not in sys.stdlib_module_names | GIVEN:
                assert owners(top) & declared, f"{file.relative_to(ROOT)} imports {module}, which pyproject.toml lacks"


def test_packages_of_extras_are_not_imported_with_a_module():
    optional = set().union(*OPTIONAL.values()) - CORE
    for file in FILES:
        for module, eager in imports(file):
            assert not (eager and owners(module) & optional), f"{file.relative_to(ROOT)} imports {module} at its top"


def test_everything_declared_is_imported():
    used = {m.split(".")[0] for file in FILES for m, _ in imports(file)} | {m.split(".")[0] for _, m, _ in calls()}
    known = {name for top in used | INDIRECT for name in owners(top)}
    assert CORE.union(*OPTIONAL.values()) - known == set()


def test_all_has_every_extra():
    assert EXTRAS["all"] == [f"mm[{','.join(sorted(OPTIONAL))}]"]
    assert "mm[all,docs]" in EXTRAS["dev"]


def test_the_version_stands_in_one_place():
    import mm

    assert "version" not in PROJECT and PROJECT["dynamic"] == ["version"]
    assert mm.__version__.count(".") == 2
