"""Every node has a help page with a picture, which explains all its widgets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "web/docs"
SCHEMAS = json.loads((ROOT / "tests/nodes/schemas.json").read_text())
MAX_PICTURE_BYTES = 150_000


@pytest.mark.parametrize("node_id", SCHEMAS)
def test_a_page_with_a_picture(node_id: str) -> None:
    text = (DOCS / f"{node_id}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {SCHEMAS[node_id]['display_name']}\n")
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)
    assert pictures
    for name in pictures:
        assert (DOCS / name).stat().st_size < MAX_PICTURE_BYTES


def test_no_page_without_a_node() -> None:
    assert {path.stem for path in DOCS.glob("*.md")} == set(SCHEMAS)


def test_every_widget_is_explained_in_the_guide_or_its_page() -> None:
    for node_id, schema in SCHEMAS.items():
        text = (DOCS / f"{node_id}.md").read_text(encoding="utf-8")
        for entry in schema["inputs"]:
            if entry["type"] in ("INT", "FLOAT", "COMBO", "STRING"):
                assert entry["id"] in text, (node_id, entry["id"])
