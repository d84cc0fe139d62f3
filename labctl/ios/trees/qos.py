"""`class-map`, `policy-map`, `service-policy`: code points that are set on packets that come in, before encryption."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from labctl.configuration import Action, NodeConfiguration
from labctl.configuration.translation import DSCP_NAMES, LARGEST_DSCP, Marking, MarkingRule
from labctl.ios.grammar.arguments import Named, Word, ios_interface
from labctl.ios.grammar.command import Command
from labctl.ios.grammar.language import GLOBAL, Tree
from labctl.ios.meaning import Notes, Part
from labctl.ios.running import Section
from labctl.ios.trees import access_lists
from labctl.ios.trees.interfaces import INTERFACE, INTERFACE_MODE

CLASS_MODE, POLICY_MODE, POLICY_CLASS_MODE = "class-map", "policy-map", "policy-map-class"

CLASS_MAP = Command(
    "class-map [match-all:_] {name}",
    {"name": Word("class-map name")},
    ("name",),
    CLASS_MODE,
    {"class-map": "Configure QoS Class Map", "match-all": "Logical-AND all matching statements under this classmap"},
)
MATCH = Command(
    "match access-group name {list}",
    {"list": Word("Named Access List")},
    helps={"match": "classification criteria", "access-group": "Access group", "name": "Named Access List"},
)
POLICY_MAP = Command(
    "policy-map {name}",
    {"name": Word("policy-map name")},
    ("name",),
    POLICY_MODE,
    {"policy-map": "Configure QoS Policy Map"},
)
CLASS = Command(
    "class {name}",
    {"name": Word("class-map name")},
    ("name",),
    POLICY_CLASS_MODE,
    {"class": "policy criteria"},
)
SET = Command(
    "set dscp {dscp}",
    {"dscp": Named(DSCP_NAMES, 0, LARGEST_DSCP, "Differentiated services codepoint value")},
    helps={"set": "Set QoS values", "dscp": "Set DSCP in IP(v4) and IPv6 packets"},
)
SERVICE_POLICY = Command(
    "service-policy input {name}",
    {"name": Word("policy-map name")},
    helps={"service-policy": "Configure QoS Service Policy", "input": "Assign policy-map to the input of an interface"},
)

TREE = Tree(
    {
        GLOBAL: (CLASS_MAP, POLICY_MAP),
        CLASS_MODE: (MATCH,),
        POLICY_MODE: (CLASS,),
        POLICY_CLASS_MODE: (SET,),
        INTERFACE_MODE: (SERVICE_POLICY,),
    },
    {CLASS_MODE: "config-cmap", POLICY_MODE: "config-pmap", POLICY_CLASS_MODE: "config-pmap-c"},
)

POLICY_NAME = "MARK"


def write(node: NodeConfiguration) -> Iterator[str]:
    """Its lines: a class for each rule, and one that sets nothing for a rule that denies."""
    if node.marking is None:
        return
    for number, rule in enumerate(node.marking.rules, start=1):
        yield from access_lists.extended_lines(f"MARK_{number}", [replace(rule.entry, action=Action.PERMIT)])
        yield f"class-map MARK_{number}"
        yield f" match access-group name MARK_{number}"
    yield f"policy-map {POLICY_NAME}"
    for number, rule in enumerate(node.marking.rules, start=1):
        yield f" class MARK_{number}"
        if rule.entry.action is Action.PERMIT:
            yield f"  set dscp {rule.dscp}"
    for name in node.marking.interfaces:
        yield f"interface {ios_interface(name)}"
        yield f" service-policy input {POLICY_NAME}"


def read(root: Section, node: NodeConfiguration, notes: Notes) -> NodeConfiguration:
    """The rules of the one policy that is applied."""
    applied: dict[str, str] = {}
    for interface in node.interfaces:
        section = root.section(INTERFACE, name=interface.name)
        said = None if section is None else section.one(SERVICE_POLICY)
        if said is not None:
            applied[interface.name] = said["name"]
    if not applied:
        return replace(node, marking=None)
    name = next(iter(applied.values()))
    if set(applied.values()) != {name}:
        notes.append(f"labctl has one policy-map a node: only {name} counts")
    section = root.section(POLICY_MAP, name=name)
    if section is None:
        notes.append(f"service-policy input {name}: there is no such policy-map")
        return replace(node, marking=None)
    rules = tuple(
        rule for said in section.all(CLASS) for rule in _rules(root, said.values["name"], said.section, notes)
    )
    return replace(node, marking=Marking(tuple(item for item, its in applied.items() if its == name), rules))


PART = Part(TREE, write, read)


def _rules(root: Section, name: str, section: Section | None, notes: Notes) -> Iterator[MarkingRule]:
    assert section is not None
    class_map = root.section(CLASS_MAP, name=name)
    match = None if class_map is None else class_map.one(MATCH)
    try:
        listed = None if match is None else access_lists.entries(root, match["list"])
    except access_lists.Unusable as error:
        notes.append(f"class {name}: {error}")
        return
    if listed is None:
        notes.append(f"class {name} matches no access list")
        return
    mark = section.one(SET)
    for entry in listed:
        if entry.action is Action.DENY:
            continue  # not of this class: the next one may have it
        action = Action.DENY if mark is None else Action.PERMIT
        yield MarkingRule(replace(entry, action=action), 0 if mark is None else mark["dscp"])
