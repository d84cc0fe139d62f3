"""Which lab, and which topology file, a command means."""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from labctl.lab.directory import LabDirectory, labs
from labctl.lab.errors import BadRequest, NoSuchLab, NothingUp
from labctl.lab.journal import Journal, LabState

SUFFIXES = (".yml", ".yaml")
USUAL_NAMES = ("topology.yml", "topology.yaml")


def shipped_folder() -> Path:
    """The topologies that come with labctl: in the wheel, or in the checkout this code runs from."""
    package = Path(str(resources.files("labctl")))
    installed = package / "_topologies"
    return installed if installed.is_dir() else package.parent / "topologies"


def shipped_topologies() -> dict[str, Path]:
    """Name -> file of every shipped topology."""
    folder = shipped_folder()
    if not folder.is_dir():
        return {}
    return {path.stem: path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES}


def default_topology(folder: Path) -> Path | None:
    """The file that `up` without an argument means: topology.yml, or the only topology of the folder."""
    for name in USUAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    found = [path for path in sorted(folder.iterdir()) if path.suffix in SUFFIXES and path.is_file()]
    return found[0] if len(found) == 1 else None


def looks_like_topology(word: str) -> bool:
    """True for a path, a file name with a topology's suffix, or the name of a shipped topology."""
    return "/" in word or word.endswith(SUFFIXES) or word in shipped_topologies()


def topology_file(word: str | None, folder: Path) -> Path:
    """The topology that the user means by `word`, or by nothing. Raises BadRequest with what could be meant."""
    if word is None:
        found = default_topology(folder)
        if found is None:
            raise BadRequest(
                f"no topology named, and {folder} has no topology.yml and no single *.yml",
                f"name one: 'labctl up FILE', or a shipped one: {', '.join(shipped_topologies()) or 'none found'}",
            )
        return found
    if (path := Path(word)).is_file():
        return path
    shipped = shipped_topologies()
    if word in shipped:
        return shipped[word]
    if Path(word).is_dir() and (found := default_topology(Path(word))) is not None:
        return found
    close = difflib.get_close_matches(Path(word).stem, shipped, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"shipped topologies: {', '.join(shipped) or 'none found'}"
    raise BadRequest(f"no topology file {word}", hint)


def state_of(directory: LabDirectory) -> LabState:
    """What the lab's journal says."""
    return LabState.read(Journal(directory.journal))


def find_lab(word: str | None, folder: Path) -> LabDirectory:
    """The lab that the user means: by lab name, by topology file, or the only one there is.

    Raises NoSuchLab with what there is.
    """
    known = list(labs())
    if word is not None:
        return _named(word, known)
    if not known:
        raise NothingUp("no lab is up", "'labctl up TOPOLOGY' starts one")
    if len(known) == 1:
        return known[0]
    here = default_topology(folder)
    if here is not None and (matching := _of_file(here, known)) is not None:
        return matching
    names = ", ".join(lab.name for lab in known)
    raise NoSuchLab(f"several labs are up: {names}", "say which: --lab NAME")


def _named(word: str, known: list[LabDirectory]) -> LabDirectory:
    for lab in known:
        if lab.name == word:
            return lab
    path = Path(word)
    if path.is_file() and (matching := _of_file(path, known)) is not None:
        return matching
    names = [lab.name for lab in known]
    if not names:
        raise NoSuchLab(f"lab {word} is not up, and no other is", "'labctl up TOPOLOGY' starts one")
    close = difflib.get_close_matches(word, names, n=1)
    raise NoSuchLab(
        f"lab {word} is not up", f"did you mean {close[0]!r}?" if close else f"labs that are: {', '.join(names)}"
    )


def _of_file(path: Path, known: list[LabDirectory]) -> LabDirectory | None:
    wanted = path.resolve()
    for lab in known:
        if (recorded := state_of(lab).topology) is not None and recorded.resolve() == wanted:
            return lab
    return None


def split_up_words(words: tuple[str, ...], lab: str | None, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """`up [TOPOLOGY] [NODE...]`: the file and the nodes. Raises BadRequest.

    The first word is the topology if it looks like one; with --lab every word is a node, and the topology is the one
    that the lab was made from.
    """
    if lab is not None:
        recorded = state_of(find_lab(lab, folder)).topology
        if recorded is None or not recorded.is_file():
            raise BadRequest(f"the topology of lab {lab} is not there any more", "name the file: 'labctl up FILE'")
        return recorded, words
    if words and (looks_like_topology(words[0]) or default_topology(folder) is None):
        return topology_file(words[0], folder), words[1:]
    return topology_file(None, folder), words
