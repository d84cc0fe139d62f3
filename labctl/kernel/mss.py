"""`ip tcp adjust-mss` by the kernel: an nftables table of its own, so that it can be exchanged while a node runs.

A SYN that passes an interface, in or out, offers no more than the size (RFC 9293 3.7.1); what offers less, or says
nothing, is left as it is. Expressions: nft(8), "TCP header expression", "Extension header expressions".
"""

from __future__ import annotations

from collections.abc import Sequence

from labctl.configuration import MssAdjustment

TABLE = "labctl_mss"


def mss_ruleset(adjustments: Sequence[MssAdjustment]) -> str:
    """What nft(8) reads to have these adjustments and no others."""
    # A table can be deleted only where it is: declared first, it always is. All of it takes effect at once.
    lines = [f"table ip {TABLE}", f"delete table ip {TABLE}"]
    if adjustments:
        lines += [
            f"table ip {TABLE} {{",
            "\tchain adjust {",
            "\t\ttype filter hook forward priority mangle; policy accept;",
            *(f"\t\t{rule}" for item in adjustments for rule in _rules(item)),
            "\t}",
            "}",
        ]
    return "\n".join((*lines, ""))


def _rules(adjustment: MssAdjustment) -> list[str]:
    size = adjustment.size
    does = f"tcp flags & (syn | rst) == syn tcp option maxseg size > {size} counter tcp option maxseg size set {size}"
    return [f'{word} "{adjustment.interface}" {does}' for word in ("iifname", "oifname")]
