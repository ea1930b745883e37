"""The digest of the code that a stage runs: it moves when a result could, and only then.

A result is what later stages compute with and what a report tabulates: data, weights,
predictions, figures. The rule of what counts:

1. Imports are followed from the stage's module, its `__main__` and its `run`; those inside
   functions too, and `import_module` of a literal. Nothing that a stage runs may be imported by a
   name that is computed; only `components.core` starts the stage itself so, and loads the data sets
   that its config names (`layouts`): of those that it reads, what reads them is followed, of those
   that it writes, what writes them. Declarations of others are imported to find one by its name,
   and don't count.
2. Of a Python file its syntax tree counts. Layout and comments don't, nor do strings that are
   statements, as docstrings are, nor what a log is told by a statement like `log.info(...)`: its
   level, its text, its fields, and values that it only reads. What it computes for them counts.
3. Of any other file beside these sources every byte counts, but Markdown is for people.
4. A module that only carries, shows or estimates says so itself, at its top level:
   `IN_CODE_DIGEST = False`; a package says it in its `__init__` for all that is in it. Nothing that
   it returns or changes may go into a result, but bytes that are verified by their hash. What is
   imported there alone is left out with it.

Versions of other packages are not in it; see `components.core.version.image`.
"""

import ast
import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import components
from components.core.config import C
from components.core.dataset import dataset_roots, find_dataset
from components.core.stage import Stage

IN_CODE_DIGEST = False  # it names code, and runs none

_LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
_NOT_DATA = {".py", ".pyc", ".pyi", ".md"}
_SAYS_NOTHING = {"ctx", "kind", "type_comment", "type_ignores"}
"""Fields of a syntax tree that follow from others, or that nothing executes."""


def code_digest(stage: Stage[C], config: C, roots: Sequence[str | Path] | None = None) -> str:
    """Return the SHA-256 of what can change a stage's result; any Python gives the same.

    Args:
        stage: The stage.
        config: Its config, which names data sets.
        roots: Folders that the package `components` is in; by default, where it and its data sets
            are imported from.
    """
    if roots is None:
        roots = list(dict.fromkeys([*map(Path, components.__path__), *dataset_roots()]))
    return _digest(modules_of(stage, config), tuple(map(Path, roots)))


def modules_of(stage: Stage[C], config: C) -> tuple[str, ...]:
    """Return the modules of a stage that all else it executes is imported from."""
    modules = [stage.module, f"{stage.module}.__main__", stage.run.partition(":")[0]]
    for port, name in config.layouts().items():
        modules += find_dataset(name).modules(written=port in stage.outputs)
    return tuple(modules)


def reachable(modules: Sequence[str], roots: Sequence[Path]) -> dict[str, str]:
    """Return what counts of the code that modules import: SHA-256 by path below its root."""
    tree = _Tree(roots)
    seen: set[str] = set()
    files: dict[str, str] = {}
    pending = list(modules)
    while pending:
        module = pending.pop()
        if module in seen or not tree.counts(module):
            continue
        seen.add(module)
        if file := tree.find(module):  # else a name in a module
            files |= file.files()
            pending += [module.rpartition(".")[0], *file.source.imports]
    return files


@functools.cache
def _digest(modules: tuple[str, ...], roots: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for name, content in sorted(reachable(modules, roots).items()):
        digest.update(f"{name}\0{content}\n".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class _Source:
    """What a Python file says.

    Attributes:
        digest: SHA-256 of what it executes.
        imports: Absolute names that it imports: of modules, or of what is in one.
        counts: Whether it can change a result.
    """

    digest: str
    imports: tuple[str, ...]
    counts: bool


@dataclass(frozen=True)
class _Module:
    """A module's file, below one of the roots."""

    root: Path
    path: Path
    source: _Source

    def files(self) -> dict[str, str]:
        """Return the SHA-256 of it and of the data beside it, by path below the root."""
        data = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in _data(self.path)}
        data[self.path] = self.source.digest
        return {path.relative_to(self.root).as_posix(): digest for path, digest in data.items()}


class _Tree:
    """The package `components`, each file read once."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self._modules: dict[str, _Module | None] = {}

    def find(self, module: str) -> _Module | None:
        """Return a module; None if it is none, or none of `components`."""
        if module not in self._modules:
            self._modules[module] = self._find(module)
        return self._modules[module]

    def counts(self, module: str) -> bool:
        """Say whether neither a module nor a package that it is in can be left out."""
        parent = module.rpartition(".")[0]
        file = self.find(module)
        return (file is None or file.source.counts) and (not parent or self.counts(parent))

    def _find(self, module: str) -> _Module | None:
        top, *names = module.split(".")
        if top != "components":
            return None
        for root in self.roots:
            package = root.joinpath(*names)
            for path in (package / "__init__.py", package.with_suffix(".py")):
                if path.is_file():
                    inside = module if path.parent == package else module.rpartition(".")[0]
                    return _Module(root, path, _read(path.read_bytes(), inside))
        return None


def _data(source: Path) -> Iterator[Path]:
    """Find what is no source in a source's folder, and below where no package is."""
    for path in source.parent.iterdir():
        if path.name.startswith((".", "__pycache__")):
            continue
        if path.is_dir() and not (path / "__init__.py").exists():
            yield from _data(path / "__init__.py")
        elif path.is_file() and path.suffix not in _NOT_DATA:
            yield path


@functools.cache
def _read(content: bytes, package: str) -> _Source:
    """Read a source.

    Args:
        content: Of the file.
        package: That the module is in, or is; relative imports start there.
    """
    tree = ast.parse(content)
    imports: list[str] = []
    bound: list[str] = []
    for node in ast.walk(tree):
        imports += _imports(node, package)
        if isinstance(node, ast.arg):
            bound.append(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            bound.append(node.id)
    loggers = {name for name in _loggers(tree) if bound.count(name) == 1}
    written: list[str] = []
    _write(tree, loggers, written)
    digest = hashlib.sha256("\0".join(written).encode("utf-8", "surrogatepass"))
    return _Source(digest.hexdigest(), tuple(imports), not _left_out(tree))


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        names = package.split(".")
        base = names[: len(names) - node.level + 1] if node.level else []
        module = ".".join([*base, *([node.module] if node.module else [])])
        yield module
        yield from (f"{module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and _called(node.func) in ("import_module", "__import__"):
        for name in node.args:
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield name.value


def _loggers(tree: ast.Module) -> Iterator[str]:
    """Find names that a module gives to loggers."""
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name(name)], ast.Call(func)) if _called(func) == "get_logger":
                yield name


def _left_out(tree: ast.Module) -> bool:
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name("IN_CODE_DIGEST")], ast.Constant(False)):
                return True
    return False


def _write(value: Any, loggers: set[str], written: list[str]) -> None:
    """Write a part of a syntax tree; two texts are equal exactly if the parts execute alike."""
    if isinstance(value, ast.Expr):
        for part in _executed(value, loggers):
            _write(part, loggers, written)
    elif isinstance(value, ast.AST):
        written.append(f"{type(value).__name__}(")
        for field, part in _fields(value):
            written.append(f"{field}=")
            _write(part, loggers, written)
        written.append(")")
    elif isinstance(value, list):
        written.append("[")
        for part in value:
            _write(part, loggers, written)
        written.append("]")
    else:
        written.append(ascii(value))  # what repr escapes depends on the Python


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield what a node holds; Pythons differ in how they say that there is nothing."""
    for field in node._fields:
        part = getattr(node, field, None)
        if isinstance(node, ast.JoinedStr):
            part = [piece for piece in part or () if getattr(piece, "value", None) != ""]
        if field not in _SAYS_NOTHING and part not in (None, []):
            yield field, part


def _executed(statement: ast.Expr, loggers: set[str]) -> Iterator[ast.expr]:
    """Find what is executed of a statement that is an expression."""
    match statement.value:
        case ast.Constant():
            return
        case ast.Call(ast.Attribute(logger, level), arguments, keywords) if level in _LEVELS and (
            (isinstance(logger, ast.Name) and logger.id in loggers)
            or (isinstance(logger, ast.Call) and _called(logger.func) == "get_logger")
        ):
            values = (*arguments, *(keyword.value for keyword in keywords))
            yield from (value for value in values if not _only_reads(value))
        case expression:
            yield expression


def _only_reads(value: ast.expr) -> bool:
    """Say whether an expression is a constant, a name or an attribute of one."""
    while isinstance(value, ast.Attribute):
        value = value.value
    return isinstance(value, (ast.Constant, ast.Name))


def _called(function: ast.expr) -> str | None:
    """Return the last part of the name of what is called."""
    match function:
        case ast.Name(name) | ast.Attribute(_, name):
            return name
    return None
