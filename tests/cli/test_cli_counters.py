"""Counters as a student reads them: every drop has a meaning, and a watcher sees what has come since."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from labctl.cli.counters import blocks
from labctl.esp import DropReason, tunnel
from labctl.lab.counters import FITTING, MEANINGS

LINK = dict.fromkeys(("tx_packets", "rx_bytes", "tx_bytes", "rx_errors", "tx_errors", "rx_dropped", "tx_dropped"), 0)


def counted(frames: int, drops: dict[str, int]) -> dict[str, Any]:
    octets = {"octets_encrypted": frames * 84, "octets_decrypted": 588}
    sa = {"encrypted": frames, "decrypted": 7, **octets, "replayed": 2, "plaintext_mtu": 1446}
    return {
        "interfaces": {"eth0": {"rx_packets": frames, **LINK}},
        "crypto": {
            "eth0": {
                "frames": {"outbound": frames, "inbound": 9},
                "drops": drops,
                "associations": {"0x00000100": sa},
                "entries": [{"entry": "permit ip 10.1.0.0/16 10.1.0.0/16", "hits": frames}],
                "closed": ["GETVPN_LAB"],
            }
        },
    }


def shown(found: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    stream = io.StringIO()
    console = Console(file=stream, width=140, highlight=False, emoji=False, markup=False)
    for block in blocks(found, before):
        console.print(block)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_member_says_what_passed_what_was_dropped_and_what_that_means() -> None:
    assert shown(counted(5, {"no-sa": 1, "not-an-ipsec-packet": 12}), None) == [
        "INTERFACE  FRAMES IN  OUT  OCTETS IN  OUT  DROPPED IN  OUT  ERRORS",
        "eth0       5          0    0          0    0           0    0",
        "",
        "crypto map on eth0: 5 outbound, 9 inbound; fails close for GETVPN_LAB",
        "",
        "SPI         ENCRYPTED  DECRYPTED  OCTETS ENCRYPTED  OCTETS DECRYPTED  REPLAYED  PLAIN-TEXT MTU",
        "0x00000100  5          7          420               588               2         1446",
        "",
        "POLICY ENTRY                       HITS",
        "permit ip 10.1.0.0/16 10.1.0.0/16  5",
        "",
        "DROPPED  WHY",
        "12       not-an-ipsec-packet  it came in clear, and the policy protects it",
        "1        no-sa                the policy protects it, and there is no key to send it under",
    ]


def test_a_watcher_sees_what_has_come_since_and_nothing_where_nothing_has() -> None:
    lines = shown(counted(8, {"no-sa": 3}), counted(5, {"no-sa": 1}))
    assert "eth0       8 (+3)     0    0          0    0           0    0" in lines
    assert "0x00000100  8 (+3)     7          672 (+252)        588               2         1446" in lines
    assert any(line.startswith("3 (+2)   no-sa") for line in lines)


def test_every_reason_that_esp_has_to_drop_a_packet_is_explained() -> None:
    assert {reason.value for reason in DropReason} <= MEANINGS.keys()


def test_a_member_says_what_it_did_to_packets_so_that_they_fit() -> None:
    found = counted(5, {})
    found["crypto"]["eth0"]["tunnel"] = {"counts": {"split-after-encryption": 4}, "paths": {"10.1.2.10": 1400}}
    lines = shown(found, None)
    assert any(
        line.startswith("4       split-after-encryption  packets encrypted, then in fragments") for line in lines
    )
    assert lines[-2:] == ["PATH TO    MTU", "10.1.2.10  1400"]


def test_everything_that_is_done_to_packets_is_explained() -> None:
    names = (tunnel.SPLIT_BEFORE, tunnel.SPLIT_AFTER, tunnel.SPLIT_INSIDE, tunnel.REASSEMBLED, tunnel.SENDERS_TOLD)
    assert {*names, tunnel.PATHS_LOWERED, tunnel.MSS_LOWERED} == FITTING.keys()
