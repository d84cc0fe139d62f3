"""Diffie-Hellman groups: the primes of RFC 2409 and 3526, the exchanges of RFC 5903, hostile public values."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labctl import crypto
from labctl.configuration import DhGroup
from labctl.crypto.diffie_hellman import prime

MODP = [DhGroup.MODP768, DhGroup.MODP1024, DhGroup.MODP1536, DhGroup.MODP2048, DhGroup.MODP3072, DhGroup.MODP4096]

# (group, private values of both, x and y of both, x of the shared point): RFC 5903 8.1 to 8.3.
EXCHANGES = [
    (
        DhGroup.ECP256,
        0xC88F01F510D9AC3F70A292DAA2316DE544E9AAB8AFE84049C62A9C57862D1433,
        0xC6EF9C5D78AE012A011164ACB397CE2088685D8F06BF9BE0B283AB46476BEE53,
        "dad0b65394221cf9b051e1feca5787d098dfe637fc90b9ef945d0c3772581180"
        "5271a0461cdb8252d61f1c456fa3e59ab1f45b33accf5f58389e0577b8990bb3",
        "d12dfb5289c8d4f81208b70270398c342296970a0bccb74c736fc7554494bf63"
        "56fbf3ca366cc23e8157854c13c58d6aac23f046ada30f8353e74f33039872ab",
        "d6840f6b42f6edafd13116e0e12565202fef8e9ece7dce03812464d04b9442de",
    ),
    (
        DhGroup.ECP384,
        0x099F3C7034D4A2C699884D73A375A67F7624EF7C6B3C0F160647B67414DCE655E35B538041E649EE3FAEF896783AB194,
        0x41CB0779B4BDB85D47846725FBEC3C9430FAB46CC8DC5060855CC9BDA0AA2942E0308312916B8ED2960E4BD55A7448FC,
        "667842d7d180ac2cde6f74f37551f55755c7645c20ef73e31634fe72b4c55ee6de3ac808acb4bdb4c88732aee95f41aa"
        "9482ed1fc0eeb9cafc4984625ccfc23f65032149e0e144ada024181535a0f38eeb9fcff3c2c947dae69b4c634573a81c",
        "e558dbef53eecde3d3fccfc1aea08a89a987475d12fd950d83cfa41732bc509d0d1ac43a0336def96fda41d0774a3571"
        "dcfbec7aacf3196472169e838430367f66eebe3c6e70c416dd5f0c68759dd1fff83fa40142209dff5eaad96db9e6386c",
        "11187331c279962d93d604243fd592cb9d0a926f422e47187521287e7156c5c4d603135569b9e9d09cf5d4a270f59746",
    ),
    (
        DhGroup.ECP521,
        int(
            "0037ade9319a89f4dabdb3ef411aaccca5123c61acab57b5393dce47608172a095aa"
            "85a30fe1c2952c6771d937ba9777f5957b2639bab072462f68c27a57382d4a52",
            16,
        ),
        int(
            "0145ba99a847af43793fdd0e872e7cdfa16be30fdc780f97bccc3f078380201e9c67"
            "7d600b343757a3bdbf2a3163e4c2f869cca7458aa4a4effc311f5cb151685eb9",
            16,
        ),
        "0015417e84dbf28c0ad3c278713349dc7df153c897a1891bd98bab4357c9ecbee1e3"
        "bf42e00b8e380aeae57c2d107564941885942af5a7f4601723c4195d176ced3e"
        "017cae20b6641d2eeb695786d8c946146239d099e18e1d5a514c739d7cb4a10ad8a7"
        "88015ac405d7799dc75e7b7d5b6cf2261a6a7f1507438bf01beb6ca3926f9582",
        "00d0b3975ac4b799f5bea16d5e13e9af971d5e9b984c9f39728b5e5739735a219b97"
        "c356436adc6e95bb0352f6be64a6c2912d4ef2d0433ced2b6171640012d9460f"
        "015c68226383956e3bd066e797b623c27ce0eac2f551a10c2c724d9852077b87220b"
        "6536c5c408a1d2aebb8e86d678ae49cb57091f4732296579ab44fcd17f0fc56a",
        "01144c7d79ae6956bc8edb8e7c787c4521cb086fa64407f97894e5e6b2d79b04d142"
        "7e73ca4baa240a34786859810c06b3c715a3a8cc3151f2bee417996d19f3ddea",
    ),
]


@pytest.mark.parametrize(
    ("group", "digest"),
    [
        (DhGroup.MODP768, "b52ba6a3026520a6c49d37e4587601801bee500123b3259b6bf03e7cecc3e63d"),
        (DhGroup.MODP1024, "3f35a3f5f6c4376a744acad409bb22f8d897f949d2311d885adaa890981b67a0"),
        (DhGroup.MODP1536, "64fcc83ec403930bf18393dbc883ccaa1fbb08ac876f77f7aa99748ca945019b"),
        (DhGroup.MODP2048, "d66436f79bbd6b2e38c0ffbd079be904d2641415e2e67140e09448be9a60890e"),
        (DhGroup.MODP3072, "48cf8b092fbce4359d9871abf74f98e25b6163379eaa15cd9087e800c6d1c55c"),
        (DhGroup.MODP4096, "4ee95187682bcb230ad26a95205f6920e84708f6251b3894329b09ec23919e33"),
    ],
)
def test_the_primes_are_those_of_the_rfcs(group: DhGroup, digest: str) -> None:
    value = prime(group)
    assert hashlib.sha256(value.to_bytes((value.bit_length() + 7) // 8, "big")).hexdigest() == digest


@pytest.mark.parametrize(("group", "private_i", "private_r", "public_i", "public_r", "secret"), EXCHANGES)
def test_the_elliptic_curve_exchanges_of_rfc_5903(
    group: DhGroup, private_i: int, private_r: int, public_i: str, public_r: str, secret: str
) -> None:
    initiator = crypto.load_private_value(group, private_i)
    responder = crypto.load_private_value(group, private_r)
    assert (initiator.public.hex(), responder.public.hex()) == (public_i, public_r)
    assert initiator.exchange(responder.public).hex() == responder.exchange(initiator.public).hex() == secret


@pytest.mark.parametrize("group", DhGroup)
def test_two_new_private_values_agree_at_the_lengths_of_the_group(group: DhGroup) -> None:
    ours, theirs = crypto.generate_private_value(group), crypto.generate_private_value(group)
    assert ours.public != theirs.public
    assert len(ours.public) == len(theirs.public) == crypto.public_length(group)
    secret = ours.exchange(theirs.public)
    assert secret == theirs.exchange(ours.public)
    assert len(secret) == crypto.secret_length(group)


@pytest.mark.parametrize("group", [DhGroup.MODP768, DhGroup.MODP1024])
def test_a_shared_secret_that_begins_with_zero_keeps_its_length(group: DhGroup) -> None:
    """The key schedule takes g^xy at a fixed length (RFC 2409 5); one secret in 256 is shorter as a number."""
    modulus, limit = prime(group), prime(group).bit_length() - 8
    base, ours = 1 << 128, 2**128 - 159
    theirs = next(
        exponent for exponent in range(base, base + 20_000) if pow(2, ours * exponent, modulus).bit_length() <= limit
    )
    secret = crypto.load_private_value(group, ours).exchange(crypto.load_private_value(group, theirs).public)
    assert secret[0] == 0
    assert secret == pow(2, ours * theirs, modulus).to_bytes(crypto.secret_length(group), "big")


@pytest.mark.parametrize("group", DhGroup)
def test_a_public_value_that_is_not_of_the_group_is_refused(group: DhGroup) -> None:
    private = crypto.generate_private_value(group)
    size = crypto.public_length(group)
    for hostile in (b"", bytes(size), bytes(size - 1) + b"\x01", b"\xff" * size, bytes(size + 1)):
        with pytest.raises(crypto.DiffieHellmanError):
            private.exchange(hostile)


@pytest.mark.parametrize("group", MODP)
def test_the_trivial_public_values_of_a_prime_are_refused(group: DhGroup) -> None:
    """0, 1, p-1 and p would give a secret that anybody knows."""
    private = crypto.load_private_value(group, 2**255 - 19)
    for value in (0, 1, prime(group) - 1, prime(group)):
        with pytest.raises(crypto.DiffieHellmanError, match="trivial"):
            private.exchange(value.to_bytes(crypto.public_length(group), "big"))


PRIVATE = {group: crypto.load_private_value(group, 2**255 - 19) for group in (DhGroup.MODP1024, DhGroup.ECP384)}


@given(st.sampled_from(list(PRIVATE)), st.data())
def test_any_octets_give_a_secret_or_the_one_error(group: DhGroup, data: st.DataObject) -> None:
    size = crypto.public_length(group)
    public = data.draw(st.binary(min_size=size, max_size=size) | st.binary(max_size=2 * size))
    try:
        secret = PRIVATE[group].exchange(public)
    except crypto.DiffieHellmanError:
        return
    assert len(secret) == crypto.secret_length(group)


def test_a_private_value_that_is_not_of_the_curve_is_refused() -> None:
    with pytest.raises(crypto.DiffieHellmanError):
        crypto.load_private_value(DhGroup.ECP256, 0)
