"""The user study of Tables 3 and 4: one page of blind pairs, and the key that says which system is which.

The page knows loops by random ids. The key is a file of its own, for whoever runs the study.
"""

from __future__ import annotations

import hashlib
import random
import secrets
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import LoopAnimateError
from ..files import atomic_write
from ..picture.images import load_picture
from ..picture.sheet import draw_sheet, shrink_frames
from .cases import Case
from .runner import Row
from .sheets import data_uri, html_page, layout_of, sheet_facts, to_webp
from .store import Store, write_json
from .table import summarise

KEY_FORMAT, ANSWERS_FORMAT = "loopanimate-study-key/1", "loopanimate-study-answers/1"
SCALE = (1, 2, 3)  # Sec. 4.1.2, 3 is best
CELL_PX = 384
QUESTIONS = {
    "q_s": (
        "Is it still the subject of the picture?",
        ("no, it changes or falls apart", "partly", "yes, all the time"),
    ),
    "q_m": (
        "Does it move well, and as the text says?",
        ("no", "partly", "yes"),
    ),
}


def write_study(
    cases: Sequence[Case],
    rows: Sequence[Row],
    out: Path,
    page: Path,
    about: Mapping[str, Mapping[str, Any]],
    pictures: int = 20,
    seed: int = 0,
) -> list[Path]:
    """Write the page, and its key `PAGE_key.json` beside it.

    Args:
        cases, rows: of the evaluation in the folder `out`; loops that failed are left out.
        about: facts of each system for the key, such as a bundle's `routing`.
        pictures: at most so many, drawn by the seed among those that at least two systems have a loop of.

    Raises:
        LoopAnimateError: there is no picture of which two systems have a loop.
    """
    draw, store, salt = random.Random(seed), Store(out), secrets.token_hex(16)
    chosen = _choose(rows, pictures, draw)
    loops, stills, pairs, key = {}, {}, [], {}
    for number, (name, mine) in enumerate(chosen.items()):
        ids = {row.label: _hidden(salt, row.label, name) for row in mine}
        for row in mine:
            loops[ids[row.label]] = _loop(store, row)
            key[ids[row.label]] = {"system": row.label, "picture": name}
        stills[str(number)] = _still(next(case for case in cases if case.name == name))
        pairs += [
            {"picture": str(number), "loops": [ids[a], ids[b]]}
            for a, b in make_pairs(list(ids), draw)
        ]
    study = _hidden(salt, "study")
    data = {"format": ANSWERS_FORMAT, "study": study, "pairs": pairs, "pictures": stills}
    held = {"study": data, "loops": dict(sorted(loops.items()))}  # an order that tells nothing
    html = html_page("Moving pictures", _body(), held, ("player.js", "study.js"))
    with atomic_write(page) as partial:
        partial.write_text(html, encoding="utf-8")
    systems = {
        summary["label"]: {
            "routing": about.get(summary["system"], {}).get("routing"),
            "loop_c": summary["figures"]["loop_c"],
        }
        for summary in summarise(rows)
    }
    content = {"format": KEY_FORMAT, "study": study, "systems": systems, "loops": key}
    return [page, write_json(key_path(page), content)]


def _choose(rows: Sequence[Row], pictures: int, draw: random.Random) -> dict[str, list[Row]]:
    """The pictures of the study, each with its loops."""
    if pictures < 1:
        raise LoopAnimateError(f"a study needs at least 1 picture, got {pictures}")
    found: dict[str, list[Row]] = {}
    for row in rows:
        if row.made:
            found.setdefault(row.picture, []).append(row)
    names = [name for name, mine in found.items() if len(mine) > 1]
    if not names:
        raise LoopAnimateError("a study needs a picture of which at least two systems have a loop")
    return {name: found[name] for name in draw.sample(names, min(pictures, len(names)))}


def _hidden(salt: str, *names: str) -> str:
    """An id that says nothing about what it stands for."""
    return hashlib.sha256("/".join((salt, *names)).encode()).hexdigest()[:12]


def key_path(page: Path) -> Path:
    """Where the key of a study is written."""
    return page.with_name(f"{page.stem}_key.json")


def _still(case: Case) -> dict[str, str]:
    pixels = load_picture(case.picture).over()
    small = shrink_frames(pixels[None], CELL_PX)[0]
    return {"prompt": case.prompt, "still": data_uri(to_webp(small))}


def make_pairs(labels: Sequence[str], draw: random.Random) -> list[tuple[str, str]]:
    """The systems in random pairs, each at least once; with an odd number one is in two pairs."""
    order = list(labels)
    draw.shuffle(order)
    if len(order) % 2:
        order.append(draw.choice(order[:-1]))
    return [(order[index], order[index + 1]) for index in range(0, len(order), 2)]


def _loop(store: Store, row: Row) -> dict[str, Any]:
    """What the page needs to play a loop, pixels included."""
    clip = store.clip(row.clip)
    if clip is None:
        raise LoopAnimateError(f"the frames of {row.file} are missing or damaged; evaluate again")
    layout = layout_of(clip, CELL_PX)
    return sheet_facts(clip, layout, data_uri(to_webp(draw_sheet(clip.frames, layout))))


def _body() -> str:
    first = (
        "You will see pairs of short loops, each made from the picture above them. "
        "Rate each loop by itself; the two sides are in random order. Nothing is sent anywhere: "
        "at the end you save a small file and send it back."
    )
    sides = "".join(
        f'<figure><canvas id="canvas-{side}"></canvas>{_questions(side)}</figure>' for side in "ab"
    )
    return (
        '<p class="kicker">A study of moving pictures</p><h1 id="title">Rate loops</h1>'
        f'<section id="intro"><p>{first}</p><button class="main" id="begin">Begin</button></section>'
        '<section id="screen" hidden><div class="still"><img id="picture" alt="The picture"><p>The text: <b id="prompt"></b></p></div>'
        f'<div class="pair">{sides}</div>'
        '<div class="bar"><button id="previous">Back</button>'
        '<button class="main" id="forward" disabled>Next</button><span id="progress"></span></div></section>'
        '<section id="end" hidden><p>Thank you. Save your answers and send the file back.</p>'
        '<button class="main" id="save">Save my answers</button> <button id="review">Back</button></section>'
    )


def _questions(side: str) -> str:
    groups = []
    for name, (question, words) in QUESTIONS.items():
        options = "".join(
            f'<label><input type="radio" name="{side}-{name}" value="{score}">{score}'
            f"<small>{escape(word)}</small></label>"
            for score, word in zip(SCALE, words, strict=True)
        )
        groups.append(f"<fieldset><legend>{escape(question)}</legend>{options}</fieldset>")
    return "".join(groups)
