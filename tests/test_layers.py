"""Who may import whom, read from the sources."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import qir

ROOT = Path(__file__).parent.parent
FRAMEWORKS = {"torch", "torchvision", "einops", "keras", "tensorflow", "jax", "onnxruntime", "onnxscript"}
CORE = {"networkx", "numpy", "onnx", "ml_dtypes", "google", "qir"}
EXTRAS = {"jsonschema", "plotly", "referencing", "rich", "safetensors"}
FACADES = {"api", "cli", "simulation", "__init__.py", "__main__.py", "execution.py"}
"""The folders and files of qir/ that may reach into the three other folders."""


def is_facade(path: Path) -> bool:
    return path.relative_to(ROOT / "qir").parts[0] in FACADES


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def module_of(path: Path) -> str:
    """What a file is imported as."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in (*(() if parts[0] == "qir" else ("qir",)), *parts) if part != "__init__")


def imports(path: Path) -> Iterator[tuple[str, bool, int]]:
    """Every module that a file imports, whether on import of the file, and the line."""
    tree = ast.parse(path.read_text())
    late: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or _is_typing(node):
            late.update(inner for inner in ast.walk(node) if inner is not node)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node not in late, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or ""), node not in late, node.lineno


def _is_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def top(module: str) -> str:
    return module.partition(".")[0]


def folder_of(module: str) -> str:
    """`passes`, `frontends`, `backends`, or `qir` for the core; empty for a module of others."""
    first, _, rest = module.partition(".")
    if first != "qir":
        return ""
    return top(rest) if top(rest) in ("passes", "frontends", "backends") else "qir"


@pytest.mark.parametrize("path", sources("qir"), ids=module_of)
def test_the_core_imports_networkx_numpy_and_onnx(path: Path) -> None:
    for module, early, line in imports(path):
        place = f"{path.name}:{line} imports {module}"
        if is_facade(path):
            allowed = folder_of(module) in ("", "qir") if early else True
            assert allowed, f"{place}, which a facade does inside a function"
            assert not (early and top(module) in FRAMEWORKS), f"{place} before anybody asked for it"
            continue
        assert folder_of(module) in ("", "qir"), f"{place}: the core knows no pass, frontend or backend"
        known = CORE | sys.stdlib_module_names | (EXTRAS if not early else set())
        assert top(module) in known, place


@pytest.mark.parametrize("path", sources("passes"), ids=lambda path: path.stem)
def test_passes_import_the_core_alone(path: Path) -> None:
    for module, _, line in imports(path):
        assert folder_of(module) in ("", "qir", "passes"), f"{path.name}:{line} imports {module}"
        assert top(module) in CORE | sys.stdlib_module_names, f"{path.name}:{line} imports {module}"


@pytest.mark.parametrize(
    "path", [*sources("frontends"), *sources("backends")], ids=lambda p: f"{p.parent.name}-{p.stem}"
)
def test_frontends_and_backends_import_the_core_and_their_framework(path: Path) -> None:
    own = path.parent.name
    for module, _, line in imports(path):
        place = f"{path.name}:{line} imports {module}"
        assert folder_of(module) in ("", "qir", own), place
        assert top(module) in CORE | EXTRAS | FRAMEWORKS | sys.stdlib_module_names, place
        for framework in ("torch", "keras"):
            if top(module) == framework:
                assert path.stem.startswith(framework), f"{place}: that is for {framework}_*.py"


def test_a_file_says_which_frontend_it_is_for() -> None:
    for path in [*sources("frontends"), *sources("backends")]:
        assert path.stem.startswith(("torch", "keras", "onnx", "__init__")), path


@pytest.mark.parametrize("folder", ["qir", "passes", "frontends", "backends", "tests", "bench", "examples"])
def test_imports_are_absolute_and_by_the_installed_name(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for module, _, line in imports(path):
            assert not module.startswith("."), f"{path.name}:{line} imports {module}"
            assert top(module) not in ("passes", "frontends", "backends"), f"{path.name}:{line}: say qir.{module}"


def test_the_command_line_is_imported_by_itself_alone() -> None:
    for path in (path for folder in ("qir", "passes", "frontends", "backends") for path in sources(folder)):
        own = path.parent.name == "cli" or path.name == "__main__.py"
        for module, _, line in imports(path):
            assert own or not module.startswith("qir.cli"), f"{path.name}:{line} imports {module}"


def test_no_module_hides_a_function_of_qir() -> None:
    public = {name for name in dir(qir) if callable(getattr(qir, name))}
    assert not public & {module_of(path).split(".")[1] for path in sources("qir") if path.stem != "__init__"}


def test_import_qir_loads_no_framework() -> None:
    heavy = sorted(FRAMEWORKS | {"jsonschema", "rich", "safetensors", "hypothesis", "pytest", "scipy", "sklearn"})
    code = f"import qir, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_module_of_the_core_loads_without_a_framework() -> None:
    names = [module_of(path) for path in [*sources("qir"), *sources("passes")] if path.stem != "__main__"]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]"
    code += f"; print([name for name in {sorted(FRAMEWORKS)} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_loads_on_use_is_what_type_checkers_see() -> None:
    names = [
        (found.module, alias.name)
        for block in ast.walk(ast.parse((ROOT / "qir/__init__.py").read_text()))
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name)
        for found in block.body
        if isinstance(found, ast.ImportFrom)
        for alias in found.names
    ]
    assert sorted(names) == sorted((module, name) for module, names in qir._ON_USE.items() for name in names)
    assert all(getattr(qir, name) is getattr(import_module(module), name) for module, name in names)
    assert {name for _, name in names} <= set(dir(qir))
    with pytest.raises(AttributeError, match="module 'qir' has no attribute 'quantise'"):
        _ = qir.quantise
