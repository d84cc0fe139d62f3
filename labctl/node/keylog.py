"""Keys in the forms that Wireshark takes (reference 10.2, 10.3). Only ever told on request, written mode 0600."""

from __future__ import annotations

from labctl.configuration import Cipher, Integrity
from labctl.gdoi.events import Phase1KeyLog
from labctl.gdoi.policy import TrafficEncryptionKey

ENCRYPTION = {
    Cipher.NULL: "NULL",
    Cipher.TRIPLE_DES: "TripleDES-CBC [RFC2451]",
    Cipher.AES_CBC: "AES-CBC [RFC3602]",
    Cipher.AES_GCM: "AES-GCM with 16 octet ICV [RFC4106]",
}
# tshark has no GMAC: with this pair it at least cuts the ICV off (reference 10.3).
GMAC = ("NULL", "ANY 128 bit authentication [no checking]")
AUTHENTICATION = {
    Integrity.NONE: "NULL",
    Integrity.MD5: "HMAC-MD5-96 [RFC2403]",
    Integrity.SHA1: "HMAC-SHA-1-96 [RFC2404]",
    Integrity.SHA256: "HMAC-SHA-256-128 [RFC4868]",
    Integrity.SHA384: "HMAC-SHA-384-192 [RFC4868]",
    Integrity.SHA512: "HMAC-SHA-512-256 [RFC4868]",
}


def isakmp_line(initiator_cookie: bytes, cipher_key: bytes) -> str:
    """A line of `ikev1_decryption_table`."""
    return f"{initiator_cookie.hex()},{cipher_key.hex()}"


def exchange_line(log: Phase1KeyLog) -> str:
    """A line of labctl's own table `gdoi_exchange`: cookies, hash, last block of phase 1, cipher key.

    Wireshark finds the IVs of exchanges only where it saw phase 1 itself.
    """
    return f"{log.cookies.hex()},{log.hash.value},{log.last_block.hex()},{log.cipher_key.hex()}"


def rekey_line(spi: bytes, iv: bytes, key: bytes) -> str:
    """A line of labctl's own table `gdoi_kek`: SPI (both cookies), IV, key; Wireshark has no table for it."""
    return f"{spi.hex()},{iv.hex()},{key.hex()}"


def esp_line(tek: TrafficEncryptionKey, *, ipv6: bool = False) -> str:
    """A line of `esp_sa`; wildcards make it serve every sender of the group."""
    if tek.transform.cipher is Cipher.AES_GMAC:
        encryption, authentication = GMAC
    else:
        encryption, authentication = ENCRYPTION[tek.transform.cipher], AUTHENTICATION[tek.transform.integrity]
    key = f"0x{tek.encryption_key.hex()}" if encryption != "NULL" else ""
    integrity = f"0x{tek.integrity_key.hex()}" if tek.integrity_key else ""
    fields = ("IPv6" if ipv6 else "IPv4", "*", "*", f"{tek.spi:#010x}", encryption, key, authentication, integrity)
    return ",".join(f'"{field}"' for field in fields)
