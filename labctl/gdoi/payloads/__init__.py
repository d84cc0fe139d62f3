"""GDOI's payloads (RFC 6407 5): SA with SAK, GAP and SATs inside, KD, SEQ."""

from labctl.gdoi.payloads.group_associated_policy import GroupAssociatedPolicy
from labctl.gdoi.payloads.key_download import KeyDownload, KeyPacket
from labctl.gdoi.payloads.lkh_download import LkhDownloadArray
from labctl.gdoi.payloads.lkh_update import LkhUpdateArray
from labctl.gdoi.payloads.sa import GdoiSa
from labctl.gdoi.payloads.sa_kek import SaKek
from labctl.gdoi.payloads.sa_tek import SaTek, Selector
from labctl.gdoi.payloads.sequence import SequenceNumber
from labctl.isakmp.header import PayloadType
from labctl.isakmp.payloads.chain import Parser

# Type 1 means another structure under this domain of interpretation, so chains of GDOI are parsed with these.
PARSERS: dict[int, Parser] = {
    PayloadType.SA: GdoiSa.parse,
    PayloadType.GAP: GroupAssociatedPolicy.parse,
    PayloadType.KD: KeyDownload.parse,
    PayloadType.SEQ: SequenceNumber.parse,
}

__all__ = [
    "PARSERS",
    "GdoiSa",
    "GroupAssociatedPolicy",
    "KeyDownload",
    "KeyPacket",
    "LkhDownloadArray",
    "LkhUpdateArray",
    "SaKek",
    "SaTek",
    "Selector",
    "SequenceNumber",
]
