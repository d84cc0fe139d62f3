"""tshark reads what a real lab sends: the registration with the key log, the data with the SA keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oracle_lab import Lab, finish, read

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Path, Path]]:
    """The lab, a capture of the registration at the key server, a capture of pings at a member's wire."""
    lab = Lab(tmp_path_factory.mktemp("tshark"), "two-sites")
    try:
        lab.up("ks1", "pe1", "h1", "h2")
        process, registration = lab.capture("ks1:eth0", "registration.pcapng", "--decrypt")
        lab.up()
        finish(process)
        process, data = lab.capture("ce1:eth0", "data.pcapng")
        lab.labctl("exec", "--lab", lab.name, "h1", "--", "ping", "-c", "3", "-i", "0.2", "-Q", "0xb8", "h2")
        finish(process)
        yield lab, registration, data
    finally:
        lab.labctl("down", lab.name)


def test_a_registration_decrypts_with_the_keys_beside_its_capture(
    tshark: str, captured: tuple[Lab, Path, Path]
) -> None:
    _, registration, _ = captured
    keys = registration.with_name("registration.pcapng.keys")
    first, *_ = read(tshark, registration, ["isakmp.ispi"], "-Y", "isakmp", config=keys)
    only = ["-Y", f"isakmp.ispi == {first[0]}"]
    rows = read(tshark, registration, ["isakmp.exchangetype", "isakmp.typepayload"], *only, config=keys)
    assert [(kind, payloads.split(",")) for kind, payloads in rows[4:]] == [
        ("2", ["5", "8", "11"]),
        ("2", ["5", "8"]),
        ("32", ["8", "10", "5"]),
        ("32", ["8", "10", "1", "16"]),  # with the chain nested in SA, behind SAK
        ("32", ["8"]),
        ("32", ["8", "18", "17"]),
    ], rows
    policy = ["isakmp.sat.src_id_data", "isakmp.sat.dst_id_data", "_ws.malformed"]
    networks = read(tshark, registration, policy, *only, config=keys)[7]
    assert [word.replace(":", "") for word in networks] == ["0a010000ffff0000", "0a010000ffff0000", ""]
    (group,) = {row[0] for row in read(tshark, registration, ["isakmp.id.data.key_id"], *only, config=keys) if row[0]}
    assert group.replace(":", "") == f"{1234:08x}"
    packets_in_kd = read(tshark, registration, ["isakmp.kd.num_pkt"], *only, config=keys)[-1][0]
    assert int(packets_in_kd) == 2, "the KEK and the TEK"


def test_the_data_decrypts_with_the_keys_of_the_sa_and_keeps_its_addresses(
    tshark: str, captured: tuple[Lab, Path, Path]
) -> None:
    lab, _, data = captured
    settings = ("enable_encryption_decode:TRUE", "enable_authentication_check:TRUE", "do_esp_sequence_analysis:FALSE")
    options = [word for setting in settings for word in ("-o", f"esp.{setting}")] + ["-Y", "esp"]
    fields = ["ip.src", "ip.dst", "ip.dsfield.dscp", "ip.proto", "icmp.type"]
    rows = read(tshark, data, fields, *options, config=lab.keylog)
    assert len(rows) == 6
    for source, destination, dscp, protocols, kind in rows:
        there = source.startswith("10.1.1.")
        outer_and_inner = ("10.1.1.10,10.1.1.10", "10.1.2.10,10.1.2.10")
        assert (source, destination) == (outer_and_inner if there else outer_and_inner[::-1])
        assert protocols == "50,1"
        assert kind == ("8" if there else "0")
        assert dscp == "46,46"


def test_the_key_log_is_for_its_owner_alone(captured: tuple[Lab, Path, Path]) -> None:
    lab, _, _ = captured
    tables = {"ikev1_decryption_table", "esp_sa", "gdoi_kek", "gdoi_exchange"}
    settings = {"preferences", "decode_as_entries"}
    assert {path.name for path in lab.keylog.iterdir()} == tables | settings
    modes: list[Any] = [path.stat().st_mode & 0o777 for path in (lab.keylog, *lab.keylog.iterdir())]
    assert modes == [0o700, *[0o600] * 6]
