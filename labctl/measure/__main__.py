"""The inside of `isolated`: measures every pair in turn, and says how it goes in JSON lines."""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from labctl.measure.pairs import Pair, kernel, members
from labctl.measure.traffic import Effort, measure
from labctl.measure.world import World, sh


def main(transforms: list[str], rounds: int, effort: Effort) -> None:
    """Round after round over all pairs, so that what else the machine does is spread over them."""
    pairs: dict[str, Pair] = {"": kernel, **{text: partial(members, transform=text) for text in transforms}}
    for number in range(1, rounds + 1):
        for transform, pair in pairs.items():
            said = {"transform": transform, "round": number}
            with tempfile.TemporaryDirectory(prefix="labctl-bench-") as folder, World(Path(folder)) as world:
                figures = measure(world, pair(world), effort, partial(_say, said, "doing"))
            _say(said, "figures", asdict(figures))


def _say(beside: dict[str, Any], key: str, value: Any) -> None:
    print(json.dumps({**beside, key: value}), flush=True)


if __name__ == "__main__":
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    asked = json.loads(sys.argv[1])
    main(asked["transforms"], asked["rounds"], Effort(**asked["effort"]))
