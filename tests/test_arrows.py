"""The arrows of docs/internals.md hold: which room may import which, and the sans-IO rooms touch no world."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "labctl"

PROTOCOLS = {"isakmp", "gdoi", "coop", "esp", "mpls"}

ARROWS: dict[str, set[str]] = {
    "configuration": set(),
    "door": set(),
    "crypto": {"configuration"},
    "isakmp": {"crypto", "configuration"},
    "gdoi": {"isakmp", "crypto", "configuration"},
    "coop": {"isakmp", "gdoi", "crypto", "configuration"},
    "esp": {"crypto", "configuration"},
    "mpls": {"configuration"},
    "impairment": {"configuration"},
    "dataplane": {"esp", "mpls", "kernel", "configuration"},
    "ios": {"configuration"},
    "kernel": {"configuration"},
    "node": {"ios", "gdoi", "coop", "dataplane", "esp", "isakmp", "crypto", "door", "configuration", "kernel"},
    "topology": {"impairment", "configuration"},
    "fabric": {"kernel", "door", "node", "dataplane", "impairment", "topology", "configuration"},
    "runtime": {"fabric", "kernel", "topology", "door", "configuration"},
    "simulation": PROTOCOLS | {"crypto", "configuration"},
    "measure": {"dataplane", "esp", "crypto", "kernel", "node", "configuration"},
    "decode": {"isakmp", "crypto", "configuration"},
    "checks": {"topology", "door", "configuration"},
    "lab": {
        "simulation",
        "decode",
        "impairment",
        "crypto",
        "ios",
        "runtime",
        "topology",
        "fabric",
        "checks",
        "door",
        "configuration",
    },
    "cli": {
        "lab",
        "measure",
        "simulation",
        "impairment",
        "runtime",
        "topology",
        "fabric",
        "checks",
        "door",
        "configuration",
    },
}

# What a sans-IO room may not import: the network, the event loop, the clock, randomness of its own.
WORLD = {"socket", "asyncio", "time", "random", "secrets", "select", "selectors", "threading", "subprocess", "datetime"}

# Python modules directly below labctl/ that belong to no room.
ENTRANCES = {"__init__", "__main__"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Full dotted names of everything the module imports, at any depth of its code."""
    found: set[str] = set()
    package = ("labctl", *path.relative_to(PACKAGE).parent.parts)
    for item in ast.walk(ast.parse(path.read_text())):
        if isinstance(item, ast.Import):
            found.update(alias.name for alias in item.names)
        elif isinstance(item, ast.ImportFrom):
            base = ".".join(package[: len(package) - item.level + 1]) if item.level else ""
            name = ".".join(part for part in (base, item.module or "") if part)
            found.add(name)
            found.update(f"{name}.{alias.name}" for alias in item.names)
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_imports_only_what_the_design_allows(path: Path) -> None:
    room = room_of(path)
    if room in ENTRANCES:
        return
    assert room in ARROWS, f"labctl/{room} is not a room of the design: add its arrows here and in docs/internals.md"
    rooms = {name.split(".")[1] for name in imports_of(path) if name.startswith("labctl.") and name.count(".")}
    rooms = {name for name in rooms if (PACKAGE / name).is_dir()}
    assert rooms - {room} <= ARROWS[room], f"{path.name} imports {sorted(rooms - {room} - ARROWS[room])}"


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if room_of(path) in PROTOCOLS | {"configuration", "topology"}],
    ids=lambda path: str(path.relative_to(PACKAGE)),
)
def test_a_sans_io_room_touches_no_world(path: Path) -> None:
    imported = imports_of(path)
    assert {name.split(".")[0] for name in imported} & WORLD == set()
    names = {
        f"{item.value.id}.{item.attr}"
        for item in ast.walk(ast.parse(path.read_text()))
        if isinstance(item, ast.Attribute) and isinstance(item.value, ast.Name)
    }
    assert "os.urandom" not in names


def test_the_arrows_have_no_circle() -> None:
    seen: set[str] = set()
    while rest := {room for room in ARROWS if room not in seen}:
        free = {room for room in rest if ARROWS[room] <= seen}
        assert free, f"a circle among {sorted(rest)}"
        seen |= free


def test_scapy_is_never_imported_by_the_product() -> None:
    users = [path for path in modules() if any(name.split(".")[0] == "scapy" for name in imports_of(path))]
    assert users == []
