"""The verdict on a check, from what was seen. Pure: the same evidence, the same verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from labctl.checks.evidence import Evidence, Needs, Probe, ProbeOutcome, Tap
from labctl.checks.needs import FlowAddresses, flow_addresses
from labctl.checks.packets import ESP, ICMP, ICMPV6, PROTOCOL_NAMES, Packet, packet_of
from labctl.checks.result import CheckResult, Verdict
from labctl.topology.checks import CheckKind, CheckSpec, was_refused
from labctl.topology.plan import Plan

# Of many things that went wrong, the reason names so many; the details have all.
NAMED = 3

_PERCENTILE = 0.95


class Judge:
    """Judges the checks of one run. Frames are looked into once, however many checks watch a link."""

    def __init__(self, plan: Plan, evidence: Evidence) -> None:
        self._plan = plan
        self._evidence = evidence
        self._packets: dict[Tap, list[tuple[Packet, bytes]]] = {}

    def judge(self, spec: CheckSpec, needs: Needs) -> CheckResult:
        """The verdict on one check."""
        verdicts: dict[CheckKind, Callable[[CheckSpec, Needs], _Finding]] = {
            CheckKind.REACHABLE: self._reachable,
            CheckKind.BLOCKED: self._blocked,
            CheckKind.REGISTERED: self._registered,
            CheckKind.REFUSED: self._refused,
            CheckKind.ENCRYPTED: self._encrypted,
            CheckKind.NO_PLAIN_TEXT: self._no_plain_text,
            CheckKind.LATENCY: self._latency,
            CheckKind.LOSS: self._loss,
        }
        finding = verdicts[spec.kind](spec, needs)
        seconds = max((self._evidence.probes[probe].seconds for probe in needs.probes), default=0.0)
        return CheckResult(
            spec.name, spec.kind, finding.verdict, finding.reason, round(seconds, 3), tuple(finding.details)
        )

    def _reachable(self, spec: CheckSpec, needs: Needs) -> _Finding:
        finding = _Finding(f"{_count(len(needs.probes), 'pair')} answered")
        for probe, outcome in self._outcomes(needs):
            if outcome.failure:
                finding.cannot(f"{_pair(probe)} could not be tried: {outcome.failure}")
            elif not outcome.received:
                finding.fail(f"{_pair(probe)}: no answer to {_count(outcome.sent, 'echo')}{_words(outcome)}")
            else:
                finding.note(f"{_pair(probe)}: {outcome.received} of {outcome.sent} answered")
        return finding

    def _blocked(self, spec: CheckSpec, needs: Needs) -> _Finding:
        finding = _Finding(f"no answer on {_count(len(needs.probes), 'pair')}")
        for probe, outcome in self._outcomes(needs):
            if outcome.failure:
                finding.cannot(f"{_pair(probe)} could not be tried: {outcome.failure}")
            elif outcome.received:
                finding.fail(f"{_pair(probe)}: {outcome.received} of {_count(outcome.sent, 'echo')} answered")
            elif not outcome.sent and not outcome.errors:
                finding.cannot(f"{_pair(probe)}: nothing was sent")
            else:
                finding.note(f"{_pair(probe)}: no answer{_words(outcome)}")
        return finding

    def _registered(self, spec: CheckSpec, needs: Needs) -> _Finding:
        finding = _Finding(f"{_count(len(needs.statuses), 'member')} registered")
        for name, status, group in self._memberships(spec, needs, finding):
            if group.get("state") != "registered":
                why = group.get("reason") or status.get("reason") or "no reason given"
                finding.fail(f"{name} is {group.get('state')}: {why}")
            else:
                finding.note(f"{name}: registered with {group.get('key_server')}")
        return finding

    def _refused(self, spec: CheckSpec, needs: Needs) -> _Finding:
        finding = _Finding(f"{_count(len(needs.statuses), 'member')} without keys")
        for name, status, group in self._memberships(spec, needs, finding):
            why = group.get("reason") or status.get("reason") or "no reason given"
            if group.get("state") == "registered":
                finding.fail(f"{name} is registered with {group.get('key_server')}")
            elif not was_refused(group):
                finding.cannot(f"{name} was not refused yet: {why}")
            else:
                finding.note(f"{name}: {why}")
        return finding

    def _memberships(
        self, spec: CheckSpec, needs: Needs, finding: _Finding
    ) -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
        """Node, its status, and the part on the group of the check; the finding takes who has none."""
        for name in needs.statuses:
            status = self._evidence.statuses[name]
            if isinstance(status, str):
                finding.cannot(f"{name}: {status}")
                continue
            groups = [item for item in status.get("groups", ()) if item.get("name") == spec.group]
            if groups:
                yield name, status, groups[0]
            else:
                finding.fail(f"{name} knows no group {spec.group}")

    def _encrypted(self, spec: CheckSpec, needs: Needs) -> _Finding:
        (probe,) = needs.probes
        finding = _Finding(f"ESP with its own addresses and DSCP {spec.dscp} on {_count(len(needs.links), 'link')}")
        addresses = self._addresses(probe)
        outcome = self._evidence.probes[probe]
        if outcome.failure or addresses is None:
            finding.cannot(f"{_pair(probe)} could not be tried: {outcome.failure or 'no route leads there'}")
            return finding
        for link, tap in needs.links.items():
            if self._can_listen(finding, link, tap):
                assert tap is not None
                self._encrypted_on(finding, link, self._seen(tap), probe, addresses)
        return finding

    def _encrypted_on(
        self,
        finding: _Finding,
        link: str,
        seen: Sequence[tuple[Packet, bytes]],
        probe: Probe,
        addresses: FlowAddresses,
    ) -> None:
        of_flow = [packet for packet, _ in seen if addresses.are_of(packet)]
        marked = [packet for packet, frame in seen if probe.marker in frame]
        clear = marked or [packet for packet in of_flow if packet.protocol in (ICMP, ICMPV6)]
        esp = [packet for packet in of_flow if packet.protocol == ESP]
        kept = [packet for packet in esp if packet.dscp == probe.dscp]
        flow = str(addresses)
        if clear:
            finding.fail(f"{link}: {_count(len(clear), 'packet')} in clear ({clear[0]})")
        elif esp and not kept:
            finding.fail(f"{link}: ESP {flow} has DSCP {_listed(packet.dscp for packet in esp)}, not {probe.dscp}")
        elif not esp:
            others = Counter(f"{packet.source} -> {packet.destination}" for packet, _ in seen if packet.protocol == ESP)
            instead = f"; ESP is seen only {', '.join(sorted(others)[:NAMED])}" if others else ""
            protocols = _listed(PROTOCOL_NAMES.get(packet.protocol, str(packet.protocol)) for packet in of_flow)
            what = f"only {protocols} of {flow}" if of_flow else f"nothing of {flow} was seen"
            finding.fail(f"{link}: {what}{instead}")
        else:
            finding.note(f"{link}: {_count(len(kept), 'ESP packet')} {flow}, DSCP {probe.dscp}")

    def _no_plain_text(self, spec: CheckSpec, needs: Needs) -> _Finding:
        finding = _Finding(f"no payload of {_count(len(needs.probes), 'flow')} on {_count(len(needs.links), 'link')}")
        heard = {
            link: tap for link, tap in needs.links.items() if self._can_listen(finding, link, tap) and tap is not None
        }
        for probe, outcome in self._outcomes(needs):
            if outcome.failure:
                finding.cannot(f"{_pair(probe)} could not be tried: {outcome.failure}")
                continue
            for link, tap in heard.items():
                leaked = [frame for frame in self._evidence.taps[tap].frames if probe.marker in frame]
                if leaked:
                    what = packet_of(leaked[0]) or f"a frame of {len(leaked[0])} octets"
                    finding.fail(f"{link}: payload of {_pair(probe)} in {_count(len(leaked), 'packet')} ({what})")
            self._prove_detector(finding, probe, needs, heard)
        return finding

    def _prove_detector(self, finding: _Finding, probe: Probe, needs: Needs, heard: dict[str, Tap]) -> None:
        """Not to see a marker means something only where it would have been seen."""
        origin = needs.origins.get(probe.source)
        if origin is None:
            finding.cannot(f"{_pair(probe)}: no route leads there")
            return
        at_origin = self._evidence.taps[origin]
        if not any(probe.marker in frame for frame in at_origin.frames):
            why = at_origin.failure or "it was not seen where it must be in clear"
            finding.cannot(f"{_pair(probe)}: the payload was looked for at {origin}, but {why}")
            return
        addresses = self._addresses(probe)
        passed = [
            link
            for link, tap in heard.items()
            if addresses is not None and any(addresses.are_of(packet) for packet, _ in self._seen(tap))
        ]
        if not passed and not finding.failed:
            finding.cannot(f"{_pair(probe)}: nothing of the flow passed the watched links")
        finding.note(f"{_pair(probe)}: in clear at {origin}, passed {_count(len(passed), 'watched link')}")

    def _latency(self, spec: CheckSpec, needs: Needs) -> _Finding:
        bound = _bound(spec)
        worst = 0.0
        finding = _Finding("")
        for probe, outcome in self._outcomes(needs):
            if outcome.failure:
                finding.cannot(f"{_pair(probe)} could not be tried: {outcome.failure}")
            elif not outcome.rtts_ms:
                finding.fail(f"{_pair(probe)}: no answer to {_count(outcome.sent, 'echo')}{_words(outcome)}")
            else:
                high = percentile(outcome.rtts_ms)
                worst = max(worst, high)
                line = f"{_pair(probe)}: 95th percentile {high:.1f} ms"
                if high > bound:
                    finding.fail(f"{line}, bound {bound:g} ms")
                else:
                    finding.note(line)
        finding.praise = f"95th percentile at most {worst:.1f} ms, bound {bound:g} ms"
        return finding

    def _loss(self, spec: CheckSpec, needs: Needs) -> _Finding:
        bound = _bound(spec)
        worst = 0.0
        finding = _Finding("")
        for probe, outcome in self._outcomes(needs):
            if outcome.failure or not outcome.sent:
                why = outcome.failure or f"nothing was sent{_words(outcome)}"
                finding.cannot(f"{_pair(probe)} could not be tried: {why}")
                continue
            lost = outcome.sent - outcome.received
            share = 100 * lost / outcome.sent
            worst = max(worst, share)
            line = f"{_pair(probe)}: {lost} of {outcome.sent} lost, {share:.1f} %"
            if share > bound:
                finding.fail(f"{line}, bound {bound:g} %{_words(outcome)}")
            else:
                finding.note(line)
        finding.praise = f"at most {worst:.1f} % lost, bound {bound:g} %"
        return finding

    def _outcomes(self, needs: Needs) -> list[tuple[Probe, ProbeOutcome]]:
        return [(probe, self._evidence.probes[probe]) for probe in needs.probes]

    def _addresses(self, probe: Probe) -> FlowAddresses | None:
        """Source and destination of the probe's packets."""
        return flow_addresses(self._plan, probe.source, probe.destination, ipv6=probe.ipv6)

    def _can_listen(self, finding: _Finding, link: str, tap: Tap | None) -> bool:
        if tap is None:
            finding.cannot(f"{link}: no node is on this link to listen")
            return False
        outcome = self._evidence.taps[tap]
        if outcome.failure:
            finding.cannot(f"{link}: the capture at {tap} failed: {outcome.failure}")
            return False
        if outcome.dropped:
            finding.cannot(f"{link}: the capture at {tap} lost {_count(outcome.dropped, 'packet')}")
        return True

    def _seen(self, tap: Tap) -> list[tuple[Packet, bytes]]:
        if tap not in self._packets:
            found = ((packet_of(frame), frame) for frame in self._evidence.taps[tap].frames)
            self._packets[tap] = [(packet, frame) for packet, frame in found if packet is not None]
        return self._packets[tap]


class _Finding:
    """What speaks against a check, and for it. `praise` is the reason if nothing speaks against it."""

    def __init__(self, praise: str) -> None:
        self.praise = praise
        self.failed: list[str] = []
        self._unclear: list[str] = []
        self._notes: list[str] = []

    def fail(self, line: str) -> None:
        """The statement is refuted."""
        self.failed.append(line)

    def cannot(self, line: str) -> None:
        """Something could not be seen."""
        self._unclear.append(line)

    def note(self, line: str) -> None:
        """Something is as stated."""
        self._notes.append(line)

    @property
    def verdict(self) -> Verdict:
        """What was refuted stays refuted, whatever else could not be seen."""
        if self.failed:
            return Verdict.FAILED
        return Verdict.INCONCLUSIVE if self._unclear else Verdict.PASSED

    @property
    def reason(self) -> str:
        """One line."""
        against = self.failed or self._unclear
        if not against:
            return self.praise
        more = f"; and {len(against) - NAMED} more" if len(against) > NAMED else ""
        return "; ".join(against[:NAMED]) + more

    @property
    def details(self) -> list[str]:
        """Everything, what speaks against it first."""
        return [*self.failed, *self._unclear, *self._notes]


def percentile(values: Sequence[float]) -> float:
    """The 95th percentile, nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(math.ceil(_PERCENTILE * len(ordered)) - 1, 0)]


def _bound(spec: CheckSpec) -> float:
    assert spec.bound is not None, "topology/statements.py asks for one"
    return spec.bound


def _pair(probe: Probe) -> str:
    return f"{probe.source} -> {probe.destination}"


def _count(number: int, word: str) -> str:
    plural = f"{word}es" if word.endswith("ch") or word == "echo" else f"{word}s"
    return f"{number} {word if number == 1 else plural}"


def _listed(values: Iterable[int | str]) -> str:
    return ", ".join(str(value) for value in sorted(set(values), key=str))


def _words(outcome: ProbeOutcome) -> str:
    if not outcome.errors:
        return ""
    return f" ({', '.join(f'{word} {count}' for word, count in sorted(outcome.errors.items()))})"
