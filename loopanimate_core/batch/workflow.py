"""A workflow in API format, adapted to each picture."""

from __future__ import annotations

import copy
import hashlib
import json
import posixpath
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import LoopAnimateError
from ..files import read_file
from ..parsing import MalformedError, parse_json
from ..video.filenames import PICTURE, safe_stem
from ..video.formats import FORMATS
from .answers import Graph, ServerFile

FOLDER_LOADER = "LoopAnimate_LoadPictureFromFolder"
LOADERS = (FOLDER_LOADER, "LoadImage")
SAVER = "LoopAnimate_SaveLoop"
SEED_INPUTS = ("seed", "noise_seed")
MAX_BYTES = 64 * 2**20

# The outputs that LoadPictureFromFolder has in addition to Load Image, which replaces it.
NAME_OUTPUT, COUNT_OUTPUT = 2, 3


@dataclass(frozen=True)
class BatchWorkflow:
    """A workflow, and its nodes that change from picture to picture.

    Attributes:
        graph: node id → {"class_type", "inputs"}; it is never modified.
        loader: id of the node that loads the picture.
        savers: ids of the nodes that write files.
    """

    graph: Graph
    loader: str
    savers: tuple[str, ...]

    @property
    def node_types(self) -> set[str]:
        """The node types that a server must have."""
        types = {node["class_type"] for key, node in self.graph.items() if key != self.loader}
        return types | {"LoadImage"}

    @property
    def on_white(self) -> bool:
        """Whether transparent parts are blended with white; Load Image does not do that."""
        return self.graph[self.loader]["class_type"] == FOLDER_LOADER

    def fit(self, uploaded: str, name: str, key: str, seed: int | None = None) -> Graph:
        """The workflow for one picture.

        Args:
            uploaded: the picture's name on the server, for Load Image.
            name: becomes part of the names of saved files.
            key: the picture's seeds are derived from it and from the workflow's seeds, so that each
                picture has its own seed, which is the same in every run.
            seed: one seed for every picture instead.
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
        """The file that the `number`-th run for a picture called `name` saves.

        None if it is not known: with several saving nodes, or a date in the name.
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
        try:
            return ServerFile(f"{last}_{number:05}_{suffix}", folder)
        except MalformedError:  # the server will refuse such a prefix, or change it
            return None

    def require_fetchable(self) -> None:
        """Raise LoopAnimateError if a result is a folder, because servers send only files."""
        for key in self.savers:
            if self.graph[key]["inputs"].get("format") == "png":
                raise LoopAnimateError(
                    "the workflow saves folders of PNGs, which cannot be downloaded; choose another"
                    " format in Save Loop, or run without --out"
                )

    def job(self, seed: int | None) -> str:
        """An id of this workflow with this seed: equal for equal results."""
        graph = self.fit("", "", "", seed)
        for node in graph.values():
            node.pop("_meta", None)
        return hashlib.sha256(json.dumps(graph, sort_keys=True).encode()).hexdigest()


def derived_seed(text: str) -> int:
    """A 32-bit seed derived from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def read_workflow(path: Path, loader: str | None = None) -> BatchWorkflow:
    """Read a workflow that ComfyUI exported in API format.

    Args:
        loader: the id of the node that loads the picture, if there are several.

    Raises:
        LoopAnimateError: the file is missing, is not a workflow in API format, or does not have the
            nodes that a batch needs.
    """
    graph = _parse(path)
    return BatchWorkflow(graph, _find_loader(graph, loader, path), _find_savers(graph, path))


def _parse(path: Path) -> Graph:
    data = read_file(path, "workflow", MAX_BYTES)
    try:
        content: Any = parse_json(data, str(path))
    except MalformedError as error:
        raise LoopAnimateError(f"{path} is not a workflow: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("nodes"), list):
        raise LoopAnimateError(
            f"{path} is not in API format; open it in ComfyUI and save it with Workflow > Export (API)"
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
    """The id of the node that loads the picture: the wanted one, or the only one of its kind."""
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
                f"{path} has several nodes that load a picture; choose one with --picture-node:"
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
    """Nodes with their titles: `10 (Load Image)`."""
    titles = (
        f"{key} ({graph[key].get('_meta', {}).get('title') or graph[key]['class_type']})"
        for key in keys
    )
    return ", ".join(titles) or "none"
