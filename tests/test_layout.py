"""The layout keeps itself: who may import whom, how long a file may be, what an import may cost."""

import ast
import graphlib
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAY_IMPORT = {
    "storage": {"storage"},
    "deploy": {"deploy"},
    "training": {"training", "storage"},
    "pipeline": {"pipeline", "training", "storage", "deploy"},
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for folder in MAY_IMPORT
    for path in sorted((ROOT / folder).rglob("*.py"))
}
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}
SHELVES = {
    "storage.readers",
    "storage.mocks",
    "training.models",
    "pipeline.indices",
    "deploy.backends",
}
SHELVED = {name for name in FILES if name.rpartition(".")[0] in SHELVES}


def imported(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, at its top or inside a function, by their full names."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else str(node.module)


IMPORTS = {
    name: set(imported(ast.parse(path.read_text(encoding="utf-8")))) for name, path in FILES.items()
}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_imports_run_down(folder: str) -> None:
    wrong = [
        f"{name} imports {target}"
        for name, targets in IMPORTS.items()
        for target in targets
        if name.split(".")[0] == folder
        and target.split(".")[0] in {*MAY_IMPORT, "tests", "benchmarks"} - MAY_IMPORT[folder]
    ]
    assert wrong == []


def test_nothing_imports_a_module_of_a_shelf() -> None:
    """Shelf -> contract -> ground: a shelved module is resolved by the name that a card gives."""
    wrong = [f"{n} imports {t}" for n, targets in IMPORTS.items() for t in targets & SHELVED]
    assert wrong == []


def test_a_survey_s_parts_are_its_readers_alone() -> None:
    """What only one reader needs stays behind it: `storage.desi` is of `storage.readers.desi`."""
    for name in ("desi", "sdss", "table", "weave"):
        mine = (f"storage.{name}.", f"storage.readers.{name}")
        users = {n for n, targets in IMPORTS.items() for t in targets if t.startswith(mine[0])}
        assert [user for user in users if not user.startswith(mine)] == []


def test_no_imports_go_in_a_circle() -> None:
    graph = {name: targets & FILES.keys() for name, targets in IMPORTS.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_a_file_is_one_idea() -> None:
    lines = {n: len(p.read_text(encoding="utf-8").splitlines()) for n, p in FILES.items()}
    assert {name: count for name, count in lines.items() if count > 300} == {}


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_a_package_is_a_docstring(package: str) -> None:
    body = ast.parse(FILES[package].read_text(encoding="utf-8")).body
    assert [type(node) for node in body] == [ast.Expr]


def test_nothing_reads_or_writes_pickles() -> None:
    """A pickle freezes the paths of classes, and runs what it holds."""
    wrong = {"pickle", "cloudpickle", "dill", "joblib", "shelve"}
    assert {name: found for name, t in IMPORTS.items() if (found := t & wrong)} == {}
    for name, path in FILES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"load", "save"}:
                assert ast.unparse(node.value) != "torch", f"{name}: use safetensors"


@pytest.mark.parametrize("module", ["storage.store", "deploy.job"])
def test_an_import_costs_what_it_needs(module: str) -> None:
    show = f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})"
    run = subprocess.run([sys.executable, "-c", show], cwd=ROOT, capture_output=True, check=True)
    assert {"torch", "ray", "dask_cuda", "bokeh"} & set(run.stdout.decode().split()) == set()


def test_what_is_packaged_is_what_is_there() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == PACKAGES
    # A package folder that is the root gives a plain path file, which type checkers read.
    assert project["tool"]["setuptools"]["package-dir"] == {"": "."}
    assert "Private :: Do Not Upload" in project["project"]["classifiers"]
