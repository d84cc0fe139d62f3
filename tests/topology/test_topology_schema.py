"""The JSON Schema comes from the models that read topologies, and docs/topology.schema.json is that schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from labctl.topology import load, schema

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted((ROOT / "topologies").glob("*.yml"))


def test_the_schema_in_docs_is_the_schema_of_the_models() -> None:
    written = (ROOT / "docs/topology.schema.json").read_text()
    assert json.loads(written) == schema(), "run: labctl schema > docs/topology.schema.json"


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_fits_the_schema_and_tells_editors_so(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=../docs/topology.schema.json\n")
    jsonschema.Draft202012Validator(schema()).validate(yaml.safe_load(text))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_is_fine_and_named_like_its_file(path: Path) -> None:
    assert load(path).name == path.stem


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "x", "nodes": {"a": "hst"}, "links": []},
        {"name": "x", "nodes": {"a": "pe"}, "links": [], "more": 1},
        {"name": "x y", "nodes": {"a": "pe"}, "links": []},
        {"name": "x", "nodes": {"a_b": "pe"}, "links": []},
        {"name": "x", "nodes": {"a": "pe"}, "links": [], "checks": [{"reachable": "any", "blocked": "any"}]},
    ],
)
def test_the_schema_refuses_what_labctl_refuses(wrong: object) -> None:
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(wrong))


def test_getvpn_basic_fits_sixty_lines() -> None:
    assert len((ROOT / "topologies/getvpn-basic.yml").read_text().splitlines()) <= 60


def test_a_plan_is_read_without_pydantic_or_yaml() -> None:
    code = (
        "import sys, labctl.topology.plan, labctl.topology.checks\n"
        "print([name for name in ('pydantic', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
