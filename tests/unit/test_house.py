"""The floor plan: packages that show the data flow, and pages that show the packages."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from tests.bookinfo import ROOT

BENCH = ROOT / "bench"
DESIGN = (ROOT / "docs" / "design.md").read_text("utf-8")
MOST_MODULES = 25
STORED_LOCUSTFILES_IMPORT = "bookinfo.pages"


def name_of(path: Path) -> str:
    """`cli.run` for `bench/cli/run.py`, `meshes` for `bench/meshes/__init__.py`."""
    parts = path.relative_to(BENCH).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text("utf-8")) for path in sorted(BENCH.rglob("*.py"))}


def imports_of(tree: ast.Module) -> set[str]:
    """The modules of meshbench that a module imports, also inside functions."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "bench":
            package = node.module.removeprefix("bench").removeprefix(".")
            for alias in node.names:
                module = f"{package}.{alias.name}".removeprefix(".")
                found.add(module if module in TREES else package)
    return found


IMPORTS = {name: imports_of(tree) for name, tree in TREES.items()}


def test_no_package_has_too_many_modules() -> None:
    """A folder that cannot be read at a glance is divided."""
    folders = {path.parent for path in BENCH.rglob("*.py")}
    crowded = {str(folder): len(list(folder.glob("*.py"))) for folder in folders}
    assert not {folder: count for folder, count in crowded.items() if count > MOST_MODULES}


def test_imports_form_no_cycle() -> None:
    """Each module can be understood after those that it imports."""
    done, path = set[str](), list[str]()

    def visit(module: str) -> None:
        if module in path:
            pytest.fail(" -> ".join([*path[path.index(module) :], module]))
        if module not in done:
            path.append(module)
            for imported in sorted(IMPORTS[module] - {module}):
                visit(imported)
            done.add(path.pop())

    for module in TREES:
        visit(module)


def test_no_module_only_re_exports() -> None:
    """A name is imported from where it is defined; one old import path stays for stored Locust files."""
    hollow = {
        name
        for name, tree in TREES.items()
        if IMPORTS[name]
        and not any(isinstance(one, ast.FunctionDef | ast.ClassDef | ast.For) for one in tree.body)
        and not any(isinstance(one, ast.AnnAssign) for one in tree.body)
    }
    assert hollow <= {STORED_LOCUSTFILES_IMPORT}


def drawn() -> dict[str, set[str]]:
    """Package -> its modules, as the design page draws them."""
    (block,) = re.findall(r"```\nbench/\n(.*?)```", DESIGN, re.DOTALL)
    found: dict[str, set[str]] = {"": set()}
    path: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        if match := re.match(r"\s*(\w+)/\s+#", line):
            path = [*path[: depth - 1], match[1]]
            found[".".join(path)] = set()
        else:
            found[".".join(path)] |= set(line.split())
    return found


def test_the_design_draws_every_module() -> None:
    """The tree of the page and the files are the same."""
    there: dict[str, set[str]] = {}
    for path in BENCH.rglob("*.py"):
        package = ".".join(path.parent.relative_to(BENCH).parts)
        there.setdefault(package, set())
        if path.stem != "__init__":
            there[package].add(path.stem)
    assert drawn() == there


ROUTES = re.findall(r"^((?:run|sample|manifest|error), [^:]+): (.+)$", DESIGN, re.MULTILINE)


@pytest.mark.parametrize(("what", "route"), ROUTES, ids=[what for what, _ in ROUTES])
def test_the_design_follows_the_imports(what: str, route: str) -> None:
    """Each arrow of the page is an import."""
    modules, arrows = re.split(r" (?:->|<-) ", route), re.findall(r" (->|<-) ", route)
    assert len(modules) > 2, what
    for left, arrow, right in zip(modules, arrows, modules[1:], strict=False):
        user, used = (left, right) if arrow == "->" else (right, left)
        assert used in IMPORTS[user], f"{user} does not import {used}"


FOUND = re.findall(r"^\| [^|]+\? \| `(bench/[^`]+)`[^|]* \| `(\w+)` \|$", DESIGN, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), FOUND)
def test_the_design_names_where_things_are(file: str, name: str) -> None:
    """What a newcomer looks for is in the file that the page names."""
    body = ast.parse((ROOT / file).read_text("utf-8")).body
    assert name in {
        target.id if isinstance(target, ast.Name) else getattr(one, "name", "")
        for one in body
        for target in (one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)])
    }


def test_pages_name_files_that_exist() -> None:
    """A path in the docs leads somewhere."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {
        (page.name, path) for page in pages for path in re.findall(r"\bbench/[\w/]+(?:\.\w+)?", page.read_text("utf-8"))
    }
    assert named
    assert not [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()]
    assert len(FOUND) > 6
    assert len({what.split(",")[0] for what, _ in ROUTES}) == 4


def test_nothing_names_the_shipped_application() -> None:
    """What an application is, is data: outside of its own folder no module, template or record's description names
    Bookinfo or its services."""
    own = (BENCH / "application" / "bookinfo", BENCH / "bookinfo", BENCH / "report" / "study_2022.py")
    named = re.compile(r"bookinfo|productpage|(?<!access)reviews|ratings|details-v1", re.IGNORECASE)
    files = [
        file for file in BENCH.rglob("*") if file.suffix in {".py", ".json", ".html", ".css", ".js", ".tex", ".md"}
    ]
    assert len(files) > len(TREES)
    found = [
        f"{file.relative_to(BENCH)}:{number}: {line.strip()}"
        for file in files
        if not any(file.is_relative_to(path) for path in own)
        for number, line in enumerate(file.read_text("utf-8").splitlines(), start=1)
        if named.search(line) and (file.suffix != ".json" or '"description"' in line)
    ]
    assert not found, "\n".join(found)


def test_stored_locustfiles_can_still_be_imported() -> None:
    """A Locust file that an earlier run stored finds what it imports."""
    tree = ast.parse((ROOT / "tests" / "recorded" / "run_of_version_1" / "locustfile.py").read_text("utf-8"))
    imported = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("bench")
        for alias in node.names
    ]
    assert imported == [("bench.bookinfo.pages", "page_problem")]
    assert all(hasattr(importlib.import_module(module), name) for module, name in imported)
