"""Imports point down: a package imports nothing from a floor above its own, and nothing in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

import morvit_deploy
from morvit_deploy.exporters.targets import targets

LONGEST_CHAIN = 10  # packages that import one another in a row
MOST_FILES = 16  # Python files of a folder
AGENT = "morvit_deploy.agent"
RUNS_A_BUNDLE = ("exporters.onnx.run", "exporters.trt.run", "measuring.cpu.worker", "bundle.session")

PACKAGE = Path(morvit_deploy.__file__).parent
ROOT = PACKAGE.parent
FOLDERS = {"": PACKAGE, "exporters": ROOT / "exporters", "calibration": ROOT / "calibration"}


ROW = re.compile(r"^\| (\d) \| (.+?) \|", re.MULTILINE)  # of the table in CONTRIBUTING.md: floor, packages


@cache
def floors() -> dict[str, int]:
    """Package, or module beside the packages -> its floor, as CONTRIBUTING.md draws them."""
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    names = {name: int(floor) for floor, cell in rows for name in re.findall(r"`([^`]+)`", cell)}
    return {name.rstrip("/").removesuffix(".py"): floor for name, floor in names.items()}


@cache
def sources() -> dict[str, Path]:
    """Module name below the package -> file, over the three folders."""
    found = {}
    for prefix, folder in FOLDERS.items():
        for path in folder.rglob("*.py"):
            parts = [*filter(None, [prefix]), *path.relative_to(folder).with_suffix("").parts]
            found[".".join(parts).removesuffix("__init__").rstrip(".")] = path
    return found


def statements(tree: ast.Module, *, top_level: bool) -> Iterator[ast.AST]:
    """Every node of a file; with `top_level`, only what importing the file executes."""
    if not top_level:
        yield from ast.walk(tree)
        return
    waiting: list[ast.AST] = [*tree.body]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, (ast.Try, ast.With)) or (isinstance(node, ast.If) and not for_types(node)):
            waiting += ast.iter_child_nodes(node)


def for_types(node: ast.If) -> bool:
    return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


@cache
def imports_of(path: Path, *, top_level: bool = True) -> frozenset[str]:
    """Full names imported by a file: of modules, and of what is in them."""
    names = set()
    for node in statements(ast.parse(path.read_text(encoding="utf-8")), top_level=top_level):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


@cache
def own_imports(module: str) -> frozenset[str]:
    """The modules of the package that importing `module` imports."""
    names = {
        name.removeprefix("morvit_deploy.")
        for name in imports_of(sources()[module])
        if name.startswith("morvit_deploy.")
    }
    modules = {name if name in sources() else name.rpartition(".")[0] for name in names}
    return frozenset((modules & sources().keys()) - {module, ""})


def package_of(module: str) -> str:
    """The folder of a module, as a dotted name; "" for the package itself."""
    return module if sources()[module].name == "__init__.py" else module.rpartition(".")[0]


@cache
def packages() -> Mapping[str, frozenset[str]]:
    """Folder -> the other folders that importing its modules imports."""
    found: dict[str, set[str]] = {}
    for module in sources():
        own = package_of(module)
        found.setdefault(own, set()).update(package_of(name) for name in own_imports(module))
    return {name: frozenset(others - {name, ""}) for name, others in found.items()}


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle of a graph, if it has one: nodes without a way on are taken away until none is left."""
    left = {name: set(others) for name, others in graph.items()}
    while ends := [name for name, others in left.items() if not others & left.keys()]:
        for name in ends:
            del left[name]
    return sorted(left)


def floor_of(module: str) -> int:
    return floors().get(module.split(".")[0], max(floors().values()))


@pytest.mark.parametrize("module", sorted(sources()))
def test_imports_point_down(module: str) -> None:
    above = {name for name in own_imports(module) if floor_of(name) > floor_of(module)}
    assert not above, f"{module} (floor {floor_of(module)}) imports {above}"


def test_no_circles() -> None:
    assert not circle({module: own_imports(module) for module in sources()})
    assert not circle(packages())
    assert not circle(top_packages())


def top_packages() -> dict[str, set[str]]:
    """The same of the packages that have a floor."""
    found: dict[str, set[str]] = {}
    for module in sources():
        own = module.split(".")[0]
        found.setdefault(own, set()).update(name.split(".")[0] for name in own_imports(module))
    return {name: others - {name, ""} for name, others in found.items() if name}


def test_chains_are_short() -> None:
    graph = top_packages()

    @cache
    def longest(name: str) -> int:
        return 1 + max(map(longest, graph[name]), default=0)

    assert max(map(longest, graph)) <= LONGEST_CHAIN


def test_folders_are_small() -> None:
    counts = {path.parent: len([*path.parent.glob("*.py")]) for path in sources().values()}
    assert max(counts.values()) <= MOST_FILES, {str(k): n for k, n in counts.items() if n > MOST_FILES}


@pytest.mark.parametrize("module", RUNS_A_BUNDLE)
def test_what_runs_a_bundle_imports_no_torch(module: str) -> None:
    """All that importing it imports; ruff's banned imports hold each file to this one by one."""
    reached, waiting = set(), {module}
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting |= own_imports(name) - reached
    libraries = {name.split(".")[0] for one in reached for name in imports_of(sources()[one])}
    assert not {"torch", "onnx"} & libraries


@pytest.mark.parametrize("module", sorted(name for name in sources() if name.startswith("agent")))
def test_the_agent_imports_nothing_of_the_rest(module: str) -> None:
    names = imports_of(sources()[module], top_level=False)
    own = {name for name in names if name.startswith("morvit_deploy.")}
    assert all(name.startswith(AGENT) for name in own), own


def test_every_module_has_a_floor() -> None:
    assert {name.split(".")[0] for name in sources()} - {""} == set(floors())


def test_helpers_of_tests_have_names_of_their_own(pytestconfig: pytest.Config) -> None:
    """Of two modules of one name in the folders on the path, the tests of one would import the other's."""
    folders = [pytestconfig.rootpath / folder for folder in pytestconfig.getini("pythonpath")]
    names = [path.name for folder in folders for path in folder.glob("*.py")]
    assert [name for name in set(names) if names.count(name) > 1] == []


def test_the_built_package_has_every_folder() -> None:
    listed = re.search(
        r"^packages = \[(.*?)\]",
        (ROOT / "pyproject.toml").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
    assert listed is not None
    folders = {f"morvit_deploy.{package_of(module)}".rstrip(".") for module in sources()}
    assert set(re.findall(r'"([^"]+)"', listed.group(1))) == folders


def test_only_a_targets_own_folder_compares_with_its_name() -> None:
    names = {f'"{name}"' for name in targets()}
    compared = re.compile(r"target\W* (?:==|!=) (" + "|".join(names) + ")")
    for module, path in sources().items():
        for name in compared.findall(path.read_text(encoding="utf-8")):
            own = f"exporters.{name.strip(chr(34))}"
            assert module.startswith(own), f"{module} compares a target with {name}; ask its TARGET"
