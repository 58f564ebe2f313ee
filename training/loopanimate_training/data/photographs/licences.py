"""Who made a file of a Debian package, and under which licence: the machine-readable copyright file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import PurePosixPath


@dataclass(frozen=True)
class Licence:
    """One `Files` paragraph: licence, copyright holders and the patterns of the files it covers."""

    name: str
    author: str | None
    patterns: tuple[str, ...]

    def covers(self, path: str) -> bool:
        """Whether an installed path matches a pattern of the source tree.

        Folders differ between the two and pictures are converted on the way: a pattern matches when
        it fits the end of the path, file extensions aside.
        """
        stem = str(PurePosixPath(path).with_suffix(""))
        names = (re.sub(r"\.\w+$", "", pattern) for pattern in self.patterns)
        return any(fnmatch(stem, name) or fnmatch(stem, f"*/{name}") for name in names)

    def names(self, path: str) -> bool:
        """Whether a pattern without wildcards has the same file name, in whatever folder."""
        return PurePosixPath(path).name in {PurePosixPath(p).name for p in self.patterns}


def read_debian_copyright(text: str) -> list[Licence]:
    """The `Files` paragraphs of a copyright file in their order; a later one wins over an earlier one.

    See https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
    """
    licences = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(
            re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        )
        if "Files" not in fields or "License" not in fields:
            continue
        author = " ".join(fields.get("Copyright", "").split())
        licences.append(
            Licence(
                name=fields["License"].splitlines()[0].strip(),
                author=author or None,
                patterns=tuple(fields["Files"].replace(",", " ").split()),
            )
        )
    return licences


def licence_of(path: str, licences: list[Licence]) -> Licence | None:
    """The paragraph for a path: the last one that covers it, or has its file name, or is for all files."""
    rest = [licence for licence in licences if licence.patterns == ("*",)]
    named = [licence for licence in licences if licence not in rest]
    for paragraphs, matches in ((named, Licence.covers), (named, Licence.names)):
        for licence in reversed(paragraphs):
            if matches(licence, path):
                return licence
    return rest[-1] if rest else None
