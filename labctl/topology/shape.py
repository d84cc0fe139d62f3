"""A tree of YAML values -> RawTopology, with every misfit in the user's words.

What does not fit is noted, cut out of the tree, and the rest is read again: one wrong value does not hide what is wrong
elsewhere. `Shaped.missing` says what was cut, so that nobody complains about the gap.
"""

from __future__ import annotations

import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, Tag, ValidationError

from labctl.configuration.words import did_you_mean
from labctl.topology.problems import START, Position, Problems
from labctl.topology.raw import RawTopology
from labctl.topology.source import Entry, Mapping, Path, Scalar, Sequence, Value, find, plain, without

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "bool_type": "true or false",
}


# Values of `impair:` that are no numbers, because a number has no unit.
_WITH_UNITS: dict[str | int, str] = {
    "delay": "20 ms",
    "jitter": "5 ms",
    "loss": "0.5 %",
    "duplicate": "1 %",
    "reorder": "1 %",
    "corrupt": "1 %",
    "rate": "10 Mbit/s",
}
# What a word alone is not enough for.
_LONG_FORMS: dict[str | int, str] = {"replay": "none, or for example {time: {window: 5}}"}


@dataclass(frozen=True, slots=True)
class Shaped:
    """A topology file that has the right shape, apart from what was cut out at the paths in `missing`."""

    raw: RawTopology
    tree: Value
    missing: frozenset[Path]

    def at(self, *path: str | int) -> Position:
        """Where the value at `path` stands, or as near to it as the file goes."""
        return find(self.tree, path)[0].at

    def key_at(self, *path: str | int) -> Position:
        """Where the key of `path` stands."""
        return find(self.tree, path)[1]

    def inside(self, index: int, *path: str | int) -> Position:
        """Where the character `index` of the text at `path` stands."""
        value = find(self.tree, path)[0]
        return value.position_of(index) if isinstance(value, Scalar) else value.at


def shape(tree: Value, problems: Problems) -> Shaped | None:
    """The raw topology in `tree`; None if not even its top level is left after the cuts."""
    if not isinstance(tree, Mapping):
        problems.add(
            tree.at, f"a topology is a mapping, not {_found(tree)}", "it begins with 'name:', 'nodes:', 'links:'"
        )
        return None
    missing: set[Path] = set()
    first = True
    while True:
        try:
            raw = RawTopology.model_validate(plain(tree))
            return Shaped(raw, tree, frozenset(missing))
        except ValidationError as error:
            cuts = set()
            for item in error.errors(include_url=False, include_input=False):
                if first or item["type"] != "missing":  # what is missing in a later round was cut
                    _describe(tree, item, problems)
                if item["type"] == "missing" and item["loc"] == ("name",):
                    tree = _named(tree)
                else:
                    # What lacks a required key is cut whole: there is nothing to go on with.
                    cuts.add(find(tree, item["loc"])[2])
        first = False
        if any(not path for path in cuts):
            return None
        missing |= cuts
        # Last first, so that a cut in a list does not move what is still to be cut.
        for path in sorted(cuts, key=_order, reverse=True):
            tree = without(tree, path)


def _order(path: Path) -> tuple[tuple[int, str], ...]:
    return tuple((part, "") if isinstance(part, int) else (0, part) for part in path)


def _named(tree: Value) -> Value:
    """The tree with a name, so that the rest of the file can be read."""
    assert isinstance(tree, Mapping)
    return Mapping(tree.at, (Entry("name", START, Scalar(START, "unnamed", "unnamed", None)), *tree.entries))


def _describe(tree: Value, item: Any, problems: Problems) -> None:
    kind, loc = item["type"], item["loc"]
    value, key_at, walked = find(tree, loc)
    context = item.get("ctx", {})
    if kind == "extra_forbidden":
        owner = _owner(walked[:-1])
        problems.add(
            key_at, f"{walked[-1]!r} is not a key of {owner}", did_you_mean(str(walked[-1]), _keys_at(loc[:-1]))
        )
    elif kind == "missing":
        at = key_at if walked else START
        problems.add(at, f"{_owner(walked)} has no {loc[-1]!r}", _missing_hint(str(loc[-1])))
    elif kind in _EXPECTED:
        secret = "pre-shared-keys" in walked
        what = f"{_owner(walked)} is {_expected(kind, walked)}, not {_found(value, secret=secret)}"
        problems.add(value.at, what, _type_hint(kind, walked, value))
    elif kind == "literal_error":
        choices = [str(choice) for choice in _choices(context["expected"])]
        if isinstance(value, Scalar) and value.value is not None:
            what = f"{value.text!r} is not {_kind_of_literal(walked)}"
            problems.add(value.at, what, _LONG_FORMS.get(walked[-1]) or did_you_mean(value.text, choices))
        else:
            problems.add(value.at, f"{_owner(walked)} is {_found(value)}", did_you_mean("", choices))
    elif kind in ("greater_than_equal", "less_than_equal"):
        low, high = _bounds(loc)
        problems.add(value.at, f"{_owner(walked)} is {plain(value)}, out of range", f"from {low} to {high}")
    elif kind in ("too_short", "too_long"):
        wanted = context.get("min_length", context.get("max_length"))
        problems.add(value.at, f"{_owner(walked)} takes {wanted} items, not {len(plain(value))}")
    elif kind == "string_pattern_mismatch":
        problems.add(
            value.at,
            f"{plain(value)!r} is no name of a lab",
            "letters, digits, '-', '_' and '.', a letter or digit first, 63 characters at most",
        )
    else:
        # pydantic's own words: right, if not ours, for an error that nobody foresaw.
        problems.add(value.at, f"{_owner(walked)}: {item['msg']}")


def _choices(expected: str) -> list[str]:
    return [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]


def _kind_of_literal(path: Path) -> str:
    last = str(path[-1])
    if path[0] == "nodes" and (len(path) == 2 or last == "kind"):
        return "a kind of node"
    words = {
        "runtime": "a runtime",
        "hash": "a hash",
        "group": "a Diffie-Hellman group",
        "authentication": "a way to authenticate",
        "fragmentation": "a time of fragmentation",
        "df-bit": "a word for the DF bit",
        "rsa-bits": "a size of RSA keys",
        "ecdsa-bits": "a size of ECDSA keys",
        "revocation-check": "a way to check for revocation",
        "identity": "a kind of identity",
        "replay": "a kind of anti-replay",
    }
    return words.get(last, f"{'an' if last[0] in 'aeiou' else 'a'} {last}")


def _owner(path: Path) -> str:
    """What the value at `path` is called in a sentence."""
    if not path:
        return "a topology"
    head, rest = path[0], path[1:]
    if head == "nodes" and rest:
        keys = [str(part) for part in rest[1:] if not isinstance(part, int)]
        if not keys:
            return f"node {rest[0]!r}"
        entry = "an entry of " if isinstance(path[-1], int) else ""
        return f"{entry}{keys[-1]!r} of node {rest[0]!r}"
    if head == "groups" and rest:
        words = [str(part) for part in rest[1:] if not isinstance(part, int)]
        if not words:
            return f"group {rest[0]!r}"
        entry = "an entry of " if isinstance(path[-1], int) else ""
        return f"{entry}{'.'.join(words)!r} of group {rest[0]!r}"
    if head in ("links", "checks") and rest:
        singular = "a link" if head == "links" else "a check"
        if len(rest) == 1:
            return singular
        entry = "an entry of " if isinstance(path[-1], int) else ""
        key = ".".join(str(part) for part in rest[1:] if not isinstance(part, int))
        return f"{entry}{key!r} of {singular}"
    return f"{'.'.join(str(part) for part in path)!r}"


def _expected(kind: str, path: Path) -> str:
    if path and path[0] == "links" and len(path) == 2:
        return "'NODE -- NODE' or a mapping"
    if path and path[0] == "nodes" and len(path) == 2:
        return "a kind or a mapping"
    return _EXPECTED[kind]


def _found(value: Value, *, secret: bool = False) -> str:
    """What stands there; of a secret, only its type."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, Sequence):
        return "a list"
    if value.value is None:
        return "empty"
    if isinstance(value.value, bool):
        return "true or false" if secret else value.text
    if isinstance(value.value, (int, float)):
        return "a number" if secret else f"the number {value.text}"
    return "text" if secret else f"text {value.text!r}"


def _type_hint(kind: str, path: Path, value: Value) -> str:
    if "pre-shared-keys" in path:
        return "put it in quotes"
    if path[0] == "links" and len(path) == 2:
        return "for example 'ce1 -- pe1'"
    if path[-1] in _WITH_UNITS and "impair" in path and kind == "string_type":
        return f"with its unit, for example '{_WITH_UNITS[path[-1]]}'"
    if kind == "string_type" and isinstance(value, Scalar) and value.value is not None:
        return f'put it in quotes: "{value.text}"'
    if kind == "list_type" and isinstance(value, Scalar) and value.value is not None:
        return f"a list of one is [{value.text}]"
    if kind in ("int_type", "float_type") and isinstance(value, Scalar) and value.lead == 1:
        return "a number has no quotes"
    if isinstance(value, Scalar) and value.value is None:
        return "give it a value, or remove the key"
    return ""


def _missing_hint(key: str) -> str:
    return {
        "name": "add 'name: my-lab'",
        "nodes": "add 'nodes:' with 'NAME: KIND' lines",
        "links": "add 'links:' with '- NODE -- NODE' lines",
        "identity": "add a number, the same for key servers and members: 'identity: 1234'",
        "key-servers": "name a node of kind ks: 'key-servers: [ks1]'",
        "members": "name nodes of kind ce: 'members: [ce1, ce2]'",
        "policy": "say what is encrypted: 'policy: [permit ip 10.1.0.0/16 10.1.0.0/16]'",
        "kind": "one of: host, ce, ks, pe, p, switch",
        "ends": "name two nodes: 'ends: [ce1, pe1]'",
    }.get(key, "")


def _steps(loc: Iterable[str | int]) -> Any:
    """The annotation of what `loc` names, walked through the models."""
    hint: Any = RawTopology
    field: Any = None
    for part in loc:
        hint = _plain_hint(hint)
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            field = next((item for item in hint.model_fields.values() if item.alias == part), None)
            if field is None:
                return None, None
            hint = (
                field.annotation if not field.metadata and field.discriminator is None else field.rebuild_annotation()
            )
        elif get_origin(hint) in (dict, list):
            hint = get_args(hint)[-1]
        else:
            hint = next((choice for choice in get_args(hint) if _tag(choice) == part), None)
    return hint, field


def _plain_hint(hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        choices = [choice for choice in get_args(hint) if choice is not type(None)]
        return _plain_hint(choices[0]) if len(choices) == 1 else hint
    return hint


def _tag(choice: Any) -> str | None:
    return next((item.tag for item in getattr(choice, "__metadata__", ()) if isinstance(item, Tag)), None)


def _keys_at(loc: Iterable[str | int]) -> list[str]:
    """The keys that the mapping at `loc` may have."""
    hint = _plain_hint(_steps(loc)[0])
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return [str(field.alias) for field in hint.model_fields.values()]
    return []


def _bounds(loc: Iterable[str | int]) -> tuple[Any, Any]:
    """The least and the greatest value at `loc`."""
    hint, field = _steps(loc)
    constraints = [*getattr(hint, "__metadata__", ()), *(field.metadata if field is not None else ())]
    for item in list(constraints):
        constraints += getattr(item, "metadata", [])
    low = next((item.ge for item in constraints if hasattr(item, "ge")), 0)
    high = next((item.le for item in constraints if hasattr(item, "le")), "any number")
    return low, high
