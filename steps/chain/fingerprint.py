"""Everything that a run's result depends on, as digests: inputs, parameters, code, package versions, pins.

Two runs of a step with the same fingerprint compute the same result, so the second may reuse that of the
first. Two that differ only in their pins (the packages that only serve a model) differ in how the model is
packed, not in what was fitted.

The code is compared as syntax trees: of the step's module and of every module of this repository that it
imports, directly or indirectly. Comments, layout, docstrings, imports for types, and code that runs only when
a module is started as a script (the wiring of the chain) do not count. A module that reads files of the
repository names them in a literal `READS` tuple (paths or globs beside it), and their content counts.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

PACKAGES = ("steps", "monitoring")
_PARTS = ("inputs", "parameters", "code", "versions", "pins")


def digest(value: object) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Fingerprint:
    """The parts that a result depends on, each name -> digest or value.

    versions: of the packages that decide its numbers. pins: of further packages that serve its model.
    """

    inputs: Mapping[str, str]
    parameters: Mapping[str, str]
    code: Mapping[str, str]
    versions: Mapping[str, str]
    pins: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return digest([self.inputs, self.parameters, self.code, self.versions, self.pins])

    @property
    def fit_digest(self) -> str:
        """Digest of all but the pins: two runs that share it fit the same model."""
        return digest([self.inputs, self.parameters, self.code, self.versions])

    def tags(self) -> dict[str, str]:
        """MLflow tags from which a later run can tell what has changed since this one."""
        return {
            "fingerprint": self.digest,
            "fingerprint.fit": self.fit_digest,
            **{
                f"fingerprint.{part}": json.dumps(
                    dict(getattr(self, part)), sort_keys=True, separators=(",", ":")
                )
                for part in _PARTS
            },
        }

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Fingerprint:
        """The fingerprint that `tags` wrote.

        Raises:
            KeyError: the run carries none, or one that another version of this project computed differently.
        """
        return cls(*(json.loads(tags[f"fingerprint.{part}"]) for part in _PARTS))

    def changes_since(self, earlier: Fingerprint) -> list[str]:
        """The differences from an earlier fingerprint, a phrase each, the most informative first."""

        def phrase(part: str, name: str, old: str | None, new: str | None) -> str:
            if part == "parameters":
                return f"{name} {old or 'unset'} -> {new or 'unset'}"
            if part in ("versions", "pins"):
                return f"{name} {old or 'absent'} -> {new or 'absent'}"
            return f"{name} changed" if old and new else f"{name} is {'new' if new else 'gone'}"

        changes = []
        for part in _PARTS:
            new_values, old_values = getattr(self, part), getattr(earlier, part)
            names = sorted(
                name
                for name in new_values.keys() | old_values.keys()
                if new_values.get(name) != old_values.get(name)
            )
            changes += [phrase(part, name, old_values.get(name), new_values.get(name)) for name in names]
        return changes


def code(module: str, project: Path) -> dict[str, str]:
    """Digest of each file that a module's behaviour depends on, by its path in the project."""
    files: dict[str, str] = {}
    queue = [module]
    visited: set[str] = set()
    while queue:
        name = queue.pop()
        if name in visited:
            continue
        visited.add(name)
        path = _source(name, project)
        if path is None:
            continue
        content, reads, imports = _module(path.read_text(encoding="utf-8"), name, path.name == "__init__.py")
        files[path.relative_to(project).as_posix()] = content
        for pattern in reads:
            matches = sorted(path.parent.glob(pattern))
            if not matches:
                raise FileNotFoundError(
                    f"{path.name} lists {pattern!r} in READS, and no such file is beside it"
                )
            files.update({file.relative_to(project).as_posix(): _content(file) for file in matches})
        queue.extend(imports)
    return files


@functools.cache
def _module(source: str, name: str, is_package: bool) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """Digest of a module's code, the files that it reads, its imports; steps share most modules."""
    tree = _Essence().visit(ast.parse(source))
    return digest(ast.dump(tree)), _reads(tree), tuple(_imports(tree, name, is_package=is_package))


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Version of each of these packages that is installed; `python` is the interpreter."""
    installed = {}
    for name in packages:
        if name == "python":
            installed[name] = platform.python_version()
            continue
        with contextlib.suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return installed


def _source(module: str, project: Path) -> Path | None:
    if module.split(".")[0] not in PACKAGES:
        return None
    path = project.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> Iterator[str]:
    parents = module.split(".")
    for count in range(1, len(parents)):
        yield ".".join(parents[:count])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = parents if is_package else parents[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            yield base
            for alias in node.names:
                yield f"{base}.{alias.name}"


def _reads(tree: ast.Module) -> tuple[str, ...]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "READS" for t in node.targets
        ):
            return tuple(ast.literal_eval(node.value))
    return ()


class _Essence(ast.NodeTransformer):
    """Removes docstrings and the blocks that run only for type checkers or in a script."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        test = ast.unparse(node.test)
        if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING", "__name__ == '__main__'") and not node.orelse:
            return None
        return self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
        return node


def _content(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
