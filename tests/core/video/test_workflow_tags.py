"""A ComfyUI workflow as metadata that every reader understands."""

from __future__ import annotations

import json
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from loopanimate_core.video.workflow_tags import workflow_tags

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(json_values.filter(lambda value: value is not None))
def test_tags_are_the_same_values_in_plain_ascii(value: object) -> None:
    text = workflow_tags(None, {"workflow": value})["workflow"]
    assert json.loads(text) == value
    assert text.isascii() and "\0" not in text


def test_the_reader_of_webm_that_counts_braces_finds_the_end() -> None:
    text = workflow_tags({"1": {"inputs": {"text": 'a {red|"} blue\\" {{'}}}, None)["prompt"]
    depth = 0
    for index, letter in enumerate(text):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth > 0 or index == len(text) - 1
    assert depth == 0


def test_what_no_file_or_page_can_hold_is_left_out() -> None:
    tags = workflow_tags({"is_changed": [math.nan]}, {"workflow": {}, "Some Pack": 1})
    assert tags == {"prompt": '{"is_changed": [null]}', "workflow": "{}"}
    assert workflow_tags(None, None) == {}
