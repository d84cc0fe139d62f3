"""What can go wrong around a lab, each with what happened and a hint. `cli/status.py` gives them exit statuses."""

from __future__ import annotations


class LabError(Exception):
    """Something about a lab. `what` is one sentence without a full stop, `hint` may be empty."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class BadRequest(LabError):
    """What the user named does not exist or makes no sense: a node, a link, a file."""


class NoSuchLab(LabError):
    """No lab of that name, or none at all, is up."""


class NothingUp(NoSuchLab):
    """There is no lab at all."""


class LabBusy(LabError):
    """Another labctl is at work on the same lab."""


class LabDead(NoSuchLab):
    """The lab has state, but nothing answers at its door."""


class NotReady(LabError):
    """A node did not become ready in time, or failed."""


class TopologyChanged(LabError):
    """The topology differs from the lab that is up, and nobody asked to apply it."""
