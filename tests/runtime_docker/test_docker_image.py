"""When the node image is current, what a build takes from where, and what is said when it cannot be built."""

from __future__ import annotations

import fcntl
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from docker.errors import APIError, ImageNotFound

from labctl.runtime import image, image_base, image_wheels
from labctl.runtime.protocol import RuntimeFailure


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of our own: labctl/ and images/."""
    package = tmp_path / "labctl"
    shutil.copytree(image.package_folder(), package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(image.recipe_folder(), tmp_path / "images")
    monkeypatch.setattr(image, "package_folder", lambda: package)
    return tmp_path


def test_the_digest_tells_every_change_that_the_image_would_show(code: Path) -> None:
    seen = [image.source_digest()]

    def change(*, seen_in_image: bool) -> None:
        digest = image.source_digest()
        assert (digest != seen[-1]) is seen_in_image
        seen.append(digest)

    change(seen_in_image=False)
    with (code / "labctl/node/agent.py").open("a") as file:
        file.write("# changed\n")
    change(seen_in_image=True)
    (code / "labctl/node/agent.py").rename(code / "labctl/esp/agent.py")
    change(seen_in_image=True)
    with (code / "images/node/packages").open("a") as file:
        file.write("strace\n")
    change(seen_in_image=True)
    (code / "labctl/_topologies").mkdir()
    (code / "labctl/_topologies/x.py").touch()
    (code / "labctl/node/notes.txt").touch()
    change(seen_in_image=False)


def test_an_installed_labctl_has_its_recipe_beside_the_code(code: Path) -> None:
    assert image.recipe_folder() == code / "images"
    (code / "images").rename(code / "labctl/_images")
    assert image.recipe_folder() == code / "labctl/_images"
    shutil.rmtree(code / "labctl/_images")
    with pytest.raises(RuntimeFailure, match="Dockerfile is missing"):
        image.recipe_folder()


class Registry:
    """An engine without images, and what became of pulling."""

    def __init__(self, refusal: str = "dial tcp: no route to host") -> None:
        self.pulled: list[str] = []
        self._refusal = refusal

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name in self.pulled:
            return {"Id": name}
        raise ImageNotFound("404", explanation=f"No such image: {name}")

    def pull(self, repository: str, *, tag: str, stream: bool, decode: bool) -> list[dict[str, str]]:
        if self._refusal:
            raise APIError("500", explanation=self._refusal)
        self.pulled.append(f"{repository}:{tag}")
        return [{"status": "done"}]


def find(client: Any, base: str | None = None, *, bootstrap: bool = False, told: list[str] | None = None) -> str:
    packages = image.recipe_folder() / "node/packages"
    return image_base.find_base(client, base, bootstrap, packages, (told if told is not None else []).append)


def test_a_base_is_pulled_where_it_can_be() -> None:
    client = Registry(refusal="")
    assert find(client) == "debian:bookworm-slim"
    assert find(client, "registry.example:5000/python") == "registry.example:5000/python"
    assert client.pulled == ["debian:bookworm-slim", "registry.example:5000/python:latest"]


def test_without_registry_and_mmdebstrap_every_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RuntimeFailure) as caught:
        find(Registry())
    assert "debian:bookworm-slim is not here and cannot be pulled (dial tcp: no route to host)" in caught.value.message
    for way in ("install --no-install-recommends mmdebstrap", "--bootstrap", "--base IMAGE", "--runtime namespaces"):
        assert way in caught.value.hint


def test_without_registry_a_base_is_bootstrapped_where_that_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(image_base, "_bootstrap", lambda client, name, *_: made.append(name))
    told: list[str] = []
    assert [find(Registry(), told=told)] == made
    assert made[0].startswith(image_base.BOOTSTRAPPED)
    assert "making one instead" in told[-1]


def test_a_base_that_was_asked_for_is_never_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    with pytest.raises(RuntimeFailure, match=r"base image mine:1 is not here and cannot be pulled"):
        find(Registry(), "mine:1")


def test_wheels_are_collected_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    calls: list[str] = []

    def download(python: str, machine: str, folder: Path) -> None:
        calls.append(python)
        folder.mkdir()
        (folder / "some.whl").write_text(python)

    monkeypatch.setattr(image_wheels, "_download", download)
    for number, python in enumerate(("3.11", "3.11", "3.12")):
        image_wheels.collect(python, "x86_64", tmp_path / str(number), lambda _: None)
        assert (tmp_path / str(number) / "some.whl").read_text() == python
    assert calls == ["3.11", "3.12"]


def test_whoever_comes_second_waits_for_the_first_builder_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(image, "_build", lambda *_: "sha256:built")
    (tmp_path / "labctl").mkdir()
    told = threading.Event()
    built: list[str] = []
    with (tmp_path / "labctl/image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(
            target=lambda: built.append(image.build(client=object(), progress=lambda _: told.set()))
        )
        second.start()
        assert told.wait(10) and not built
        fcntl.flock(lock, fcntl.LOCK_UN)
        second.join(10)
    assert built == ["sha256:built"]
