"""The doctor says what works, and for what does not, what to do. It tries things, and leaves nothing."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from labctl.lab import doctor
from labctl.lab.doctor import Diagnosis, Verdict, diagnose
from labctl.runtime.protocol import Availability


class Probed:
    """A runtime of which only the probe is asked."""

    def __init__(self, found: Availability) -> None:
        self._found = found

    async def probe(self) -> Availability:
        return self._found


def diagnosis(
    monkeypatch: pytest.MonkeyPatch, state: Path, docker: Availability, namespaces: Availability
) -> Diagnosis:
    answers = {"docker": docker, "namespaces": namespaces}
    monkeypatch.setattr(doctor, "runtime_named", lambda name: Probed(answers[name]))
    return asyncio.run(diagnose())


YES = Availability(True)
NO = Availability(False, "no user namespaces", "sysctl -w user.max_user_namespaces=15000")


def test_one_runtime_is_enough(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    found = diagnosis(monkeypatch, state, docker=YES, namespaces=NO)
    assert found.can_run_labs
    assert found.runtimes == ("docker",)
    (missing,) = [item for item in found.findings if item.name == "runtime namespaces"]
    assert (missing.verdict, missing.found, missing.remedy) == (Verdict.MISSING, NO.reason, NO.remedy)


def test_no_runtime_is_no_lab(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    assert not diagnosis(monkeypatch, state, docker=NO, namespaces=NO).can_run_labs


def test_a_missing_program_comes_with_its_package(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = diagnosis(monkeypatch, state, docker=YES, namespaces=YES)
    (tshark,) = [item for item in found.findings if item.name == "tshark"]
    assert tshark.verdict is Verdict.MISSING
    assert tshark.remedy == "sudo apt-get install tshark"
    assert found.can_run_labs, "labs do without it"


def test_a_kernel_feature_that_labs_need_and_the_kernel_lacks_is_broken(
    monkeypatch: pytest.MonkeyPatch, state: Path, tmp_path: Path
) -> None:
    trial = tmp_path / "python"
    trial.write_text('#!/bin/sh\necho \'{"veth": "Operation not supported", "bridge": ""}\'\n')
    trial.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(trial))
    found = diagnosis(monkeypatch, state, docker=NO, namespaces=YES)
    (veth,) = [item for item in found.findings if item.name == "veth"]
    assert (veth.verdict, veth.found) == (Verdict.BROKEN, "Operation not supported")
    assert "modprobe veth" in veth.remedy
    assert not found.can_run_labs


def test_a_state_folder_that_cannot_be_written_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABCTL_STATE", "/proc/labctl")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = diagnosis(monkeypatch, Path("/proc/labctl"), docker=YES, namespaces=YES)
    (state,) = [item for item in found.findings if item.name == "state"]
    assert state.verdict is Verdict.BROKEN
    assert "LABCTL_STATE" in state.remedy


@pytest.mark.lab
def test_the_kernel_is_tried_in_a_namespace_that_ends_with_the_trial() -> None:
    before = {path.name for path in Path("/sys/class/net").iterdir()}
    done = subprocess.run([sys.executable, "-m", "labctl.lab.kernel_trial"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {"veth": "", "bridge": "", "packet sockets": "", "sysctls": ""}
    assert {path.name for path in Path("/sys/class/net").iterdir()} == before
