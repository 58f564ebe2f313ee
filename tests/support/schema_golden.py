"""What saved workflows rely on: ids, order and types of every node, held in schemas.json.

    make node-schemas

writes schemas.json and locales/en again. It refuses a change that would break saved workflows: a page stores
widget values by position and links by number. Only new nodes, and new optional inputs and outputs after the
old ones, leave saved workflows as they were.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import extension

GOLDEN = extension.ROOT / "tests/nodes/schemas.json"
LOCALES = extension.ROOT / "locales"

Description = dict[str, Any]


def describe(nodes: list[Any]) -> Description:
    """Every node as plain values, by id, in menu order. The folders the nodes list should be empty."""
    return {node.GET_SCHEMA().node_id: _describe(node.GET_SCHEMA()) for node in nodes}


def _describe(schema: Any) -> Description:
    return {
        "display_name": schema.display_name,
        "category": schema.category,
        "description": schema.description,
        "is_output_node": schema.is_output_node,
        "inputs": [
            {"id": entry.id, "type": entry.io_type, "optional": entry.optional, **entry.as_dict()}
            for entry in schema.inputs
        ],
        "outputs": [
            {
                "id": entry.id,
                "type": entry.io_type,
                "display_name": entry.display_name,
                "tooltip": entry.tooltip,
            }
            for entry in schema.outputs
        ],
    }


def broken_promises(old: Description, new: Description) -> list[str]:
    """What saved workflows would lose from `old` to `new`, one sentence each."""
    found = [f"{name} is gone" for name in old if name not in new]
    for name in old.keys() & new.keys():
        for side in ("inputs", "outputs"):
            found += _broken(name, side, old[name][side], new[name][side])
        if old[name]["is_output_node"] and not new[name]["is_output_node"]:
            found.append(f"{name} is no longer an output node")
    return found


def _broken(node: str, side: str, old: list[Description], new: list[Description]) -> list[str]:
    found = []
    for before, after in zip(old, new, strict=False):
        where = f"{node}, {side} {before['id']}"
        if (before["id"], before["type"]) != (after["id"], after["type"]):
            found.append(f"{where} became {after['id']} of type {after['type']}")
        elif before.get("optional") and not after["optional"]:
            found.append(f"{where} is no longer optional")
        elif bool(before.get("control_after_generate")) != bool(
            after.get("control_after_generate")
        ):
            found.append(f"{where} gained or lost the widget control_after_generate")
        elif lost := set(before.get("options") or []) - set(after.get("options") or []):
            found.append(f"{where} lost the options {sorted(lost)}")
        elif after.get("min", 0) > before.get("min", 0) or after.get("max", 0) < before.get(
            "max", 0
        ):
            found.append(f"{where} has a narrower range")
    found += [f"{node}, {side} {entry['id']} is gone" for entry in old[len(new) :]]
    if side == "inputs":
        added = new[len(old) :]
        found += [
            f"{node}: new input {e['id']} is not optional" for e in added if not e["optional"]
        ]
    return found


def labels(description: Description) -> Description:
    """A description in the form of `nodeDefs.json`, a language's texts in ComfyUI's page."""
    return {
        name: {
            "display_name": node["display_name"],
            "description": node["description"],
            "inputs": {e["id"]: {"name": e["id"], "tooltip": e["tooltip"]} for e in node["inputs"]},
            "outputs": {
                str(index): {"name": e["display_name"], "tooltip": e["tooltip"]}
                for index, e in enumerate(node["outputs"])
            },
        }
        for name, node in description.items()
    }


def read_golden() -> Description:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        extension.use_folders(Path(folder))
        new = describe(extension.load_nodes())
    if broken := broken_promises(read_golden() if GOLDEN.exists() else {}, new):
        print(
            "schemas.json was not changed, because saved workflows would break:",
            *broken,
            sep="\n",
        )
        return 1
    _write(GOLDEN, new)
    _write(LOCALES / "en/nodeDefs.json", labels(new))
    return 0


def _write(path: Path, content: Description) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
