"""Which room may import which: data flows one way, and nobody imports against it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

DATA = ("steps.data",)
MEASURES = (*DATA, "steps.measures", "monitoring.reference")
MODELS = (*MEASURES, "steps.models")
CHAIN = (*DATA, "steps.models", "steps.chain", "monitoring.reference")
ENTRY = (*MODELS, "steps.reports", "steps.chain")
OPERATIONS = (
    *DATA,
    "steps.measures",
    "steps.models",
    "steps.chain",
    "monitoring.reference",
    "monitoring.sidecar",
)

# A module falls under the longest prefix that fits; it may import its own room and what stands here.
MAY_IMPORT = {
    "steps.data": DATA,
    "steps.measures": MEASURES,
    "steps.models": MODELS,
    "steps.reports": (*MODELS, "steps.reports"),
    "steps.chain": CHAIN,
    "steps": ENTRY,
    "steps.ops": (*ENTRY, "steps.ops"),
    "monitoring.reference": (),
    "monitoring.sidecar": ("monitoring.reference",),
    "monitoring.predict": OPERATIONS,
    "monitoring.deploy": OPERATIONS,
    "monitoring.simulation": (*OPERATIONS, "monitoring.grafana", "monitoring.prometheus"),
    "monitoring.prometheus": (),
    "monitoring.grafana": ("monitoring.prometheus",),
}
MODULES = sorted((*(ROOT / "steps").rglob("*.py"), *(ROOT / "monitoring").rglob("*.py")))


def room(module: str) -> str:
    """The longest entry of MAY_IMPORT that a module falls under."""
    return max((name for name in MAY_IMPORT if f"{module}.".startswith(f"{name}.")), key=len, default="")


def imported(path: Path) -> Iterator[str]:
    """Modules of this repository that a file imports, inside functions and for types as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_follow_the_flow_of_data() -> None:
    """`steps.data <- measures <- models <- reports, chain <- entry points <- ops`; the sidecar alone."""
    against = []
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        own = room(module)
        for name in imported(path):
            if not name.startswith(("steps.", "monitoring.")) or room(name) == own:
                continue
            if not any(f"{name}.".startswith(f"{allowed}.") for allowed in MAY_IMPORT[own]):
                against.append(f"{module} imports {name}")
    assert not against, "\n".join(against)


@pytest.mark.parametrize("folder", ["steps", "monitoring"])
def test_every_module_stands_in_a_room(folder: str) -> None:
    """A new folder has to say here what it may import."""
    files = (ROOT / folder).rglob("*.py")
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files}
    assert {name for name in names if not room(name)} <= {"monitoring.__init__"}


def test_a_room_says_what_each_of_its_files_is() -> None:
    """The docstring of its `__init__` has a line for each, and for nothing else."""
    wrong = []
    for init in (*(ROOT / "steps").rglob("__init__.py"), *(ROOT / "monitoring").rglob("__init__.py")):
        told = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        listed = {line.split()[0] for line in told.splitlines()[2:] if line and not line.startswith(" ")}
        files = {path.stem for path in init.parent.glob("*.py")} - {"__init__"}
        wrong += [f"{init.relative_to(ROOT)}: {name}" for name in sorted(listed ^ files)]
    assert wrong == []
