"""Whole ESP packets that standards publish, SPI to ICV, and what is in them with its trailer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GcmPacket:
    """Of draft-mcgrew-gcm-test-01; `key` has the salt behind it (RFC 4106 8.1)."""

    bits: int
    key: bytes
    plain: bytes
    packet: bytes


@dataclass(frozen=True)
class CbcPacket:
    """Of RFC 3602 4: no ICV. `key` is of 128 bits."""

    case: int
    key: bytes
    plain: bytes
    packet: bytes


def _gcm(bits: int, key: str, salt: str, plain: str, packet: str) -> GcmPacket:
    return GcmPacket(bits, bytes.fromhex(key + salt), bytes.fromhex(plain), bytes.fromhex(packet))


# Those with sequence numbers of 32 bits.
GCM_PACKETS = [
    _gcm(
        128,
        "feffe9928665731c6d6a8f9467308308",
        "cafebabe",
        "4500003e698f000080114dccc0a80102c0a801010a980035002a2343b2d0010000010000000000000373697009637962"
        "65726369747902646b00000100010001",
        "0000a5f80000000afacedbaddecaf888deb22cd9b07c72c16e3a65beeb8df304a5a5897d33ae530f1ba76d5d114d2a5c"
        "3de81827c10e9a4f51330d0eec416642cfbb85a5b47e48a4ec3b9ba95d918bd183b70d3aa8bc6ee4c309e9d85a41ad4a",
    ),
    _gcm(
        256,
        "abbccddef00112233445566778899aababbccddef00112233445566778899aab",
        "11223344",
        "4500003069a6400080062690c0a801029389155e0a9e008b2dc57ee0000000007002400020bf0000020405b40101040201020201",
        "4a2cbfe3000000020102030405060708ff425c9b724599df7a3bcd510194e00d6a78107f1b0b1cbf06efae9d65a5d763"
        "748a637985771d347f0545659f14e99def842d8eb335f4eecfdbf831824b4c4915956c96",
    ),
    _gcm(
        128,
        "00000000000000000000000000000000",
        "00000000",
        "4500003c99c500008001cb7a40679318010101010800075c020044006162636465666768696a6b6c6d6e6f70717273"
        "7475767761626364656667686901020201",
        "000000000000000100000000000000004688daf2f973a392732909c331d56d60f694abaa414b5e7ff5fdcdfff5e9a284"
        "456476492719ffb64de7d9dca1e1d894bc3bd57873ed4d181d19d4d5c8c18af3f821d496eeb096e98ad2b69e4799c71d",
    ),
    _gcm(
        192,
        "feffe9928665731c6d6a8f9467308308feffe9928665731c",
        "cafebabe",
        "45000028a4ad4000400678800a01038f0a010612802306b8cb712602dd6bb03e501016d075680001",
        "0000a5f80000000afacedbaddecaf888a5b1f8066029aea40e598b8122de02420938b3ab33f828e687b8858b5bfbdbd0"
        "315b27452144cc7795457b9652037f5318027b5b4cd7a636",
    ),
    _gcm(
        128,
        "7d773d00c144c525ac619d18c84a3f47",
        "d9664267",
        "01020201",
        "335467aeffffffff43457e9182443bc6437f866bcb3f699fe9b0822bac961c4504bef270",
    ),
]


def _cbc(case: int, plain: str, packet: str) -> CbcPacket:
    key = "90d382b410eeba7ad938c46cec1a82bf" if case < 7 else "0123456789abcdef0123456789abcdef"
    return CbcPacket(case, bytes.fromhex(key), bytes.fromhex(plain), bytes.fromhex(packet))


# Cases 5 and 6 are of transport mode, 7 and 8 of tunnel mode.
CBC_PACKETS = [
    _cbc(
        5,
        "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b"
        "2c2d2e2f30313233343536370102030405060708090a0b0c0d0e0e01",
        "0000432100000001e96e8c08ab465763fd098d45dd3ff893f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4"
        "898dc856a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874aa269add047ad2d5913ac19b7cfbad4a6",
    ),
    _cbc(
        6,
        "0800b5e8a80a0500a69c083d0b660e0077777777777777777777777701020201",
        "000043210000000869d08df7d203329db093fc4924e5bd80f51995881ec4e0c4488987ce742e8109689bb379d2d750c0d915dca3"
        "46a89f75",
    ),
    _cbc(
        7,
        "45000054090400004001f988c0a87b03c0a87bc808009f76a90a0100b49c083d02a2040008090a0b0c0d0e0f1011121314151617"
        "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f30313233343536370102030405060708090a0a04",
        "0000876500000002f4e765244f6407adf13dc1380f673f37773b5241a4c449225e4f3ce5ed611b0c237ca96cf74a93013c1b0ea1"
        "a0cf70f8e4ecaec78ac53aad7a0f022b859243c647752e94a859352b8a4d4d2decd136e5c177f132ad3fbfb2201ac9904c74ee0a"
        "109e0ca1e4dfe9d5a100b842f1c22f0d",
    ),
    _cbc(
        8,
        "45000044090c00004001f990c0a87b03c0a87bc80800d63caa0a0200c69c083da3de0300ffffffffffffffffffffffffffffffff"
        "ffffffffffffffffffffffffffffffff0102030405060708090a0a04",
        "000087650000000585d47224b5f3dd5d2101d4ea8dffab2215b92683819596a8047232cc00f7048fe45318e11f8a0f62ede3c3fc"
        "61203bb50f980a08c9843fd3a1b06d5c07ff9639b7eb7dfb3512e5de435e7207ed971ef3d2726d9b5ef6affc6d17a0decbb13892",
    ),
]
