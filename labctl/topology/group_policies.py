"""What a group encrypts, and how: its access lists with their transforms and lifetimes, one or several `sa ipsec`.

Rules of reference/cisco-getvpn.md 1.3 and 2.6.
"""

from __future__ import annotations

from collections.abc import Iterator

from labctl.configuration import (
    MOST_PERMITS,
    NO_REPLAY,
    AccessListEntry,
    Action,
    Cipher,
    Replay,
    ReplayMethod,
    SaIpsec,
    TransformSet,
)
from labctl.configuration.access_list import describe_access_list_entry, parse_access_list_entry
from labctl.configuration.replay import COUNTER_WINDOWS
from labctl.configuration.transform_set import parse_transform_set
from labctl.configuration.words import WordError
from labctl.topology.model import Group
from labctl.topology.problems import Problems
from labctl.topology.raw import RawGroup, RawSaIpsec
from labctl.topology.raw_replay import RawReplay
from labctl.topology.shape import Shaped

# As many SATs as a registration has room for, with every permit's keys of before beside the present ones.
MOST_DENIES = 100
# Cisco's long SA lifetimes (reference 1.3): above a day only AES with 128 bits or more.
LONGEST_WITHOUT_AES = 86400

_Place = tuple[str | int, ...]
SA_IPSEC = "sa-ipsec"


class PolicyReader:
    """Reads the `sa ipsec` entries of one group: the short form is one, `sa-ipsec` a list of them."""

    def __init__(self, shaped: Shaped, problems: Problems, name: str, raw: RawGroup) -> None:
        self._shaped = shaped
        self._problems = problems
        self._name = name
        self._raw = raw
        self._example = "permit ip 10.1.0.0/16 10.1.0.0/16"
        if raw.ipv6:
            self._example = "permit ipv6 2001:db8:1::/48 2001:db8:1::/48"
        # Every entry that could be read, with its place in the file.
        self._entries: list[tuple[AccessListEntry, _Place]] = []
        # What was cut out of the file has a problem of its own.
        cut = {path[2] for path in shaped.missing if path[:2] == ("groups", name) and len(path) > 2}
        self._readable = cut.isdisjoint(("policy", SA_IPSEC))

    def read(self) -> tuple[SaIpsec, ...]:
        """The entries, numbered from 1. What cannot be read is noted and replaced by the default."""
        raw, place = self._raw, ("groups", self._name)
        if raw.sa_ipsec is None:
            short = RawSaIpsec.model_construct(
                policy=raw.policy or [], transform=raw.transform, lifetime=raw.lifetime.tek, replay=raw.replay
            )
            sas = [self._sa(1, short, place, ("lifetime", "tek"))]
            if raw.policy is None and self._readable:
                self._problems.add(
                    self._shaped.key_at(*place),
                    f"group {self._name!r} has no 'policy'",
                    f"say what is encrypted: 'policy: [{self._example}]'",
                )
                return tuple(sas)
        else:
            self._refuse_both()
            sas = [
                self._sa(index + 1, one, (*place, SA_IPSEC, index), ("lifetime",))
                for index, one in enumerate(raw.sa_ipsec)
            ]
        self._check_sizes()
        return tuple(sas)

    def _refuse_both(self) -> None:
        """`sa-ipsec` says for each entry what the short form says for one."""
        place = ("groups", self._name)
        hint = f"move it into the entries of {SA_IPSEC!r}, or remove {SA_IPSEC!r}"
        for key in ("policy", "transform", "replay"):
            if key in self._raw.model_fields_set:
                self._problems.add(
                    self._shaped.key_at(*place, key), f"group {self._name!r} has {key!r} beside {SA_IPSEC!r}", hint
                )
        if "tek" in self._raw.lifetime.model_fields_set:
            self._problems.add(
                self._shaped.key_at(*place, "lifetime", "tek"),
                f"group {self._name!r} has 'lifetime.tek' beside {SA_IPSEC!r}",
                "each entry has its own 'lifetime'; 'lifetime.kek' is the group's",
            )

    def _sa(self, number: int, raw: RawSaIpsec, place: _Place, life: _Place) -> SaIpsec:
        entries = tuple(self._access_list(raw.policy, (*place, "policy")))
        chosen = self._transform(raw.transform, (*place, "transform"))
        self._check_lifetime(raw.lifetime, chosen, (*place, *life))
        return SaIpsec(entries, chosen, raw.lifetime, number, self._replay(raw.replay, chosen, (*place, "replay")))

    def _replay(self, raw: RawReplay | str | None, transform: TransformSet, place: _Place) -> Replay:
        if raw is None:
            # The default of IOS, where sender IDs make it one that refuses nothing but replays.
            return Replay(ReplayMethod.COUNTER, COUNTER_WINDOWS[0]) if transform.uses_counter_mode else NO_REPLAY
        if isinstance(raw, str):
            return NO_REPLAY
        cut = any(path[: len(place)] == place for path in self._shaped.missing)
        if (raw.time is None) is (raw.counter is None) and not cut:
            self._problems.add(
                self._shaped.at(*place),
                "'replay' names one method: 'time' or 'counter'",
                "for example 'replay: {time: {window: 5}}'; 'replay: none' for none",
            )
        if raw.time is not None:
            return Replay(ReplayMethod.TIME, raw.time.window)
        return NO_REPLAY if raw.counter is None else Replay(ReplayMethod.COUNTER, raw.counter.window)

    def _access_list(self, lines: list[str], place: _Place) -> Iterator[AccessListEntry]:
        for index, line in enumerate(lines):
            at = (*place, index)
            try:
                entry = parse_access_list_entry(line, ipv6=self._raw.ipv6)
            except WordError as error:
                self._readable = False
                self._problems.add(self._shaped.inside(error.column, *at), error.problem, error.hint)
                continue
            if any(entry == known for known, _ in self._entries):
                self._problems.add(
                    self._shaped.at(*at),
                    f"'{describe_access_list_entry(entry)}' is in the policy twice",
                    "the first match wins: keep one of them",
                )
            self._entries.append((entry, at))
            yield entry

    def _check_sizes(self) -> None:
        self._check_size(
            Action.PERMIT,
            MOST_PERMITS,
            " (GDOI_ACL_NUM)",
            f"a key server hands out {MOST_PERMITS} at most: summarize the prefixes",
        )
        self._check_size(
            Action.DENY,
            MOST_DENIES,
            "",
            f"{MOST_DENIES} at most: summarize the prefixes, or put them in 'local-policy'",
        )
        if self._readable and not any(entry.action is Action.PERMIT for entry, _ in self._entries):
            key = "policy" if self._raw.sa_ipsec is None else SA_IPSEC
            self._problems.add(
                self._shaped.at("groups", self._name, key),
                f"the policy of group {self._name!r} permits nothing, so nothing is encrypted",
                f"add an entry such as '{self._example}'",
            )

    def _check_size(self, action: Action, most: int, mnemonic: str, hint: str) -> None:
        places = [place for entry, place in self._entries if entry.action is action]
        if len(places) > most:
            what = f"the policy has {len(places)} {action.value} entries{mnemonic}"
            self._problems.add(self._shaped.at(*places[most]), what, hint)

    def _transform(self, text: str, place: _Place) -> TransformSet:
        try:
            return parse_transform_set(text)
        except WordError as error:
            self._problems.add(self._shaped.inside(error.column, *place), error.problem, error.hint)
            return TransformSet(Cipher.AES_GCM, 256)

    def _check_lifetime(self, tek: int, transform: TransformSet, place: _Place) -> None:
        kek = self._raw.lifetime.kek
        if tek > kek:
            self._problems.add(
                self._shaped.at(*place),
                f"traffic keys live {tek} s, longer than the {kek} s of the key that renews them",
                "make kek at least three times tek",
            )
        if tek > LONGEST_WITHOUT_AES and transform.cipher is Cipher.TRIPLE_DES:
            self._problems.add(
                self._shaped.at(*place),
                f"a tek lifetime of {tek} s is too long for 3DES",
                f"above {LONGEST_WITHOUT_AES} s take AES",
            )


def refuse_overlaps(shaped: Shaped, groups: list[Group], problems: Problems) -> None:
    """Reference 2.6: overlapping access lists of two groups on one device are prohibited."""
    for number, group in enumerate(groups):
        for other in groups[:number]:
            if group.ipv6 is not other.ipv6:
                continue
            shared = [name for name in group.members if name in other.members]
            clash = next(_overlaps(shaped, group, other), None) if shared else None
            if clash is None:
                continue
            (entry, place), (theirs, their_place) = clash
            problems.add(
                shaped.at(*place),
                f"'{describe_access_list_entry(entry)}' overlaps '{describe_access_list_entry(theirs)}' of group "
                f"{other.name!r} (line {shaped.at(*their_place).line}), and {shared[0]!r} is in both groups",
                "policies of groups on one member must not overlap",
            )


_Placed = tuple[AccessListEntry, _Place]


def _overlaps(shaped: Shaped, group: Group, other: Group) -> Iterator[tuple[_Placed, _Placed]]:
    for entry, place in _permits(shaped, group):
        for theirs, their_place in _permits(shaped, other):
            if _entries_overlap(entry, theirs):
                yield (entry, place), (theirs, their_place)


def _permits(shaped: Shaped, group: Group) -> Iterator[_Placed]:
    """The permit entries of a group, with their places."""
    raw, place = shaped.raw.groups[group.name], ("groups", group.name)
    lists: list[tuple[list[str], _Place]] = [(raw.policy or [], (*place, "policy"))]
    if raw.sa_ipsec is not None:
        lists = [(item.policy, (*place, SA_IPSEC, index, "policy")) for index, item in enumerate(raw.sa_ipsec)]
    for lines, where in lists:
        for index, line in enumerate(lines):
            try:
                entry = parse_access_list_entry(line, ipv6=raw.ipv6)
            except WordError:
                continue  # has a problem of its own
            if entry.action is Action.PERMIT:
                yield entry, (*where, index)


def _entries_overlap(one: AccessListEntry, other: AccessListEntry) -> bool:
    def meet(a: int, b: int) -> bool:
        return a == b or 0 in (a, b)

    return (
        meet(one.protocol, other.protocol)
        and meet(one.source_port, other.source_port)
        and meet(one.destination_port, other.destination_port)
        and one.source.overlaps(other.source)
        and one.destination.overlaps(other.destination)
    )
