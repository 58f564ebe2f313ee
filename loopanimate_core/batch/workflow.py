"""A workflow in API format, fitted to one picture after the other."""

from __future__ import annotations

import copy
import hashlib
import json
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LoopAnimateError
from ..video.filenames import PICTURE, safe_stem
from ..video.formats import FORMATS
from .client import Graph, ServerFile

FOLDER_LOADER = "LoopAnimate_LoadPictureFromFolder"
LOADERS = (FOLDER_LOADER, "LoadImage")
SAVER = "LoopAnimate_SaveLoop"
SEED_INPUTS = ("seed", "noise_seed")

# Outputs of LoadPictureFromFolder beyond those of Load Image, which takes its place.
NAME_OUTPUT, COUNT_OUTPUT = 2, 3


@dataclass(frozen=True)
class BatchWorkflow:
    """A workflow and the nodes in it that differ from picture to picture.

    Attributes:
        graph: node id → {"class_type", "inputs"}; never changed.
        loader: id of the node that loads the picture.
        savers: ids of the nodes that write files.
    """

    graph: Graph
    loader: str
    savers: tuple[str, ...]

    @property
    def node_types(self) -> set[str]:
        """What a server must have."""
        types = {node["class_type"] for key, node in self.graph.items() if key != self.loader}
        return types | {"LoadImage"}

    @property
    def on_white(self) -> bool:
        """Whether the picture's transparent parts lie over white; Load Image leaves them as they are."""
        return self.graph[self.loader]["class_type"] == FOLDER_LOADER

    def fit(self, uploaded: str, name: str, key: str, seed: int | None = None) -> Graph:
        """The workflow for one picture.

        Args:
            uploaded: what the server calls the picture, as Load Image takes it.
            name: put into the names of the files that are saved.
            key: what the seeds are derived from, together with those of the workflow: another
                picture, another seed, but the same one every time.
            seed: the seed of every picture instead.
        """
        graph = copy.deepcopy(self.graph)
        graph[self.loader] = {"class_type": "LoadImage", "inputs": {"image": uploaded}}
        literals = {NAME_OUTPUT: name, COUNT_OUTPUT: 1}
        for node_id, node in graph.items():
            for field, value in node["inputs"].items():
                if isinstance(value, list) and value[0] == self.loader and value[1] in literals:
                    node["inputs"][field] = literals[value[1]]
                elif field in SEED_INPUTS and isinstance(value, int):
                    own = derived_seed(f"{key}\n{node_id}\n{value}")
                    node["inputs"][field] = own if seed is None else seed
        for node_id in self.savers:
            node = graph[node_id]
            if node["class_type"] == SAVER:
                node["inputs"]["picture_name"] = name
            else:
                prefix = node["inputs"]["filename_prefix"]
                node["inputs"]["filename_prefix"] = f"{prefix}_{name}"
        return graph

    def saved_file(self, name: str, number: int) -> ServerFile | None:
        """What the `number`-th run for a picture called `name` saves.

        None where that cannot be told: there are several saving nodes, or a date in the name.
        """
        node = self.graph[self.savers[0]]
        prefix = node["inputs"].get("filename_prefix")
        known = isinstance(prefix, str) and "%" not in prefix.replace(PICTURE, "")
        if len(self.savers) > 1 or node["class_type"] != SAVER or not known:
            return None
        row = FORMATS.get(str(node["inputs"].get("format")))
        if row is None or row.writer == "folder":
            return None
        stem = safe_stem(name)
        prefix = prefix.replace(PICTURE, stem) if PICTURE in prefix else f"{prefix}_{stem}"
        folder, _, last = posixpath.normpath(prefix.replace("\\", "/")).rpartition("/")
        suffix = ".png" if row.name == "apng" else row.suffixes[0]  # as Save Loop names it
        return ServerFile(f"{last}_{number:05}_{suffix}", folder)

    def require_fetchable(self) -> None:
        """Raise LoopAnimateError where a result is a folder, which no server hands out."""
        for key in self.savers:
            if self.graph[key]["inputs"].get("format") == "png":
                raise LoopAnimateError(
                    "the workflow saves folders of PNGs, which a server does not hand out; choose"
                    " another format in Save Loop, or leave --out away"
                )

    def job(self, seed: int | None) -> str:
        """What this workflow with this seed makes, as a short text: equal results, equal text."""
        graph = self.fit("", "", "", seed)
        for node in graph.values():
            node.pop("_meta", None)
        return hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()


def derived_seed(text: str) -> int:
    """A seed of 32 bits that only this text has."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def read_workflow(path: Path, loader: str | None = None) -> BatchWorkflow:
    """Read a workflow that ComfyUI exported in API format.

    Args:
        loader: id of the node that loads the picture, needed where there are several.

    Raises:
        LoopAnimateError: no such file, not a workflow, the format of ComfyUI's page, or a node
            that a batch needs is missing or not the only one.
    """
    graph = _parse(path)
    return BatchWorkflow(graph, _find_loader(graph, loader, path), _find_savers(graph, path))


def _parse(path: Path) -> Graph:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LoopAnimateError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise LoopAnimateError(f"{path} is not a workflow: it is not JSON ({error})") from error
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise LoopAnimateError(
            f"{path} is in the format of ComfyUI's page; open it there, choose Workflow > Export (API)"
            " in the menu, and give the file that this saves"
        )
    if isinstance(content, dict) and isinstance(content.get("prompt"), dict):
        content = content["prompt"]  # the body of a request to /prompt
    if not isinstance(content, dict) or not content or not all(map(_is_node, content.values())):
        raise LoopAnimateError(
            f"{path} is not a workflow in API format (node ids with class_type and inputs)"
        )
    return {
        str(key): {"class_type": node["class_type"], "inputs": node["inputs"]}
        | ({"_meta": node["_meta"]} if "_meta" in node else {})
        for key, node in content.items()
    }


def _is_node(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("class_type"), str)
        and isinstance(value.get("inputs"), dict)
    )


def _find_loader(graph: Graph, wanted: str | None, path: Path) -> str:
    """The id of the node that loads the picture: the only one, the folder's own, or the wanted one."""
    found = {
        key: node["class_type"] for key, node in graph.items() if node["class_type"] in LOADERS
    }
    if wanted is not None:
        if wanted not in found:
            raise LoopAnimateError(
                f"node {wanted} of {path} does not load a picture; these do: {_listed(graph, found)}"
            )
        return wanted
    for kind in LOADERS:
        of_kind = [key for key, own in found.items() if own == kind]
        if len(of_kind) == 1:
            return of_kind[0]
        if of_kind:
            raise LoopAnimateError(
                f"{path} loads several pictures; say with --picture-node which one changes:"
                f" {_listed(graph, of_kind)}"
            )
    raise LoopAnimateError(
        f"{path} has no node that loads a picture; it needs Load Picture From Folder or Load Image"
    )


def _find_savers(graph: Graph, path: Path) -> tuple[str, ...]:
    savers = tuple(
        key
        for key, node in graph.items()
        if node["class_type"] == SAVER or isinstance(node["inputs"].get("filename_prefix"), str)
    )
    if not savers:
        raise LoopAnimateError(f"{path} has no node that saves its result; it needs Save Loop")
    return savers


def _listed(graph: Graph, keys: Any) -> str:
    """Nodes as an artist knows them: `10 (Load Image)`."""
    titles = (
        f"{key} ({graph[key].get('_meta', {}).get('title') or graph[key]['class_type']})"
        for key in keys
    )
    return ", ".join(titles) or "none"
