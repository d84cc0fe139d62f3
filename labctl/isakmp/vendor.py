"""Vendor IDs that we send and know."""

# Dead peer detection (RFC 3706 5.1).
DEAD_PEER_DETECTION = bytes.fromhex("afcad71368a1f1c96b8696fc77570100")

# Our private code points: MD5 of the text "getvpn-lab proposals v1" (reference 12.1).
PRIVATE_PROPOSALS = bytes.fromhex("78d53e034862aef364ebd208627eb4e7")

OURS = (DEAD_PEER_DETECTION, PRIVATE_PROPOSALS)
