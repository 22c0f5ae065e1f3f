"""Hostile text made harmless, format by format.

Names come out of model files. ``vgaudit.plain.visible`` puts them on one line, spells
out what is hidden and shortens them; here, what is markup to one format is escaped
for that format.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from vgaudit.plain import visible

_MARKS = re.compile(r"([\\`*_\[\]~|#])")
_START = re.compile(r"^(\d*)([-+=.)])(?=\s|[-=]|$)")
_ENTITIES = str.maketrans(
    {
        "&": "&amp;",
        "<": "&lt;",
        ">": "&gt;",
        "$": "&#36;",
        # The comment keeps a mention from reaching anybody.
        "@": "&#64;<!-- -->",
    }
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_COMMAND = re.compile(r"(?m)^(\s*)::")


def inert(text: str) -> str:
    """Returns text in which a CI runner finds no command.

    GitHub's runner reads ``::error::`` at the start of a line of output, after any
    blanks, and ``##[error]`` anywhere in it.
    """
    return _COMMAND.sub(r"\1: :", text).replace("##[", "# #[")


def inert_json(text: str) -> str:
    """Returns a JSON document that says the same and holds no command of a runner."""
    return text.replace("##[", "#\\u0023[")


def markdown(text: str, *, length: int = 120) -> str:
    """Returns text that Markdown shows as it is, mentions and links included."""
    escaped = _MARKS.sub(r"\\\1", visible(text, length=length))
    escaped = _START.sub(r"\1\\\2", escaped).translate(_ENTITIES)
    return escaped.replace("://", "&#58;//").replace("www.", "www&#46;")


def github_message(text: str, *, length: int = 1000) -> str:
    """Returns text as the message of a workflow command."""
    return inert(visible(text, length=length)).replace("%", "%25")


def github_property(text: str, *, length: int = 200) -> str:
    """Returns text as the value of a workflow command's property."""
    escaped = github_message(text, length=length)
    return escaped.replace(":", "%3A").replace(",", "%2C")


def cell(text: str) -> str:
    """Returns text that no spreadsheet takes for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def reference(path: str) -> str:
    """Returns a path as a URI reference."""
    return quote(visible(path, length=500), safe="/:._-~")
