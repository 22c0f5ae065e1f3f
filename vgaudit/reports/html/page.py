"""Documents and fragments: what stands around the body of every HTML report.

A document carries its whole style, no script, and a content security policy that
allows that style alone, by its hash; so there are no ``style`` attributes anywhere.
A fragment is the same body for a notebook's cell, with the style scoped to it and
following the notebook's theme.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from vgaudit.plain import visible
from vgaudit.reports.charts.budget import CAUSES

PAGE_STYLE = (
    "html{background:#fdfdfc}body{margin:0}"
    "@media screen and (prefers-color-scheme:dark){html{background:#14161a}}"
    "@media print{html{background:#fff}}"
)
DARK = '.vgaudit:is(body[data-jp-theme-light="false"] *, body.vscode-dark *)'
LIGHT = '.vgaudit:is(body[data-jp-theme-light="true"] *, body.vscode-light *)'
_DARK_RULE = "@media screen and (prefers-color-scheme: dark) {"


def document(title: str, body: str) -> str:
    """Returns a whole HTML page that needs nothing but itself."""
    styles = (PAGE_STYLE, style())
    return (
        environment()
        .get_template("page.html")
        .render(
            title=visible(title),
            body=body,
            style=styles[1],
            page_style=styles[0],
            digests=" ".join(f"'sha256-{_digest(text)}'" for text in styles),
        )
    )


def fragment(body: str) -> str:
    """Returns a body for a notebook, which brings its style along."""
    return f'<style>{style()}{_themes()}</style><div class="vgaudit">{body}</div>'


def body(template: str, view: Any) -> str:
    """Returns a template filled with a view."""
    return environment().get_template(template).render(view=view)


@cache
def style() -> str:
    """Returns the style sheet, every rule of it below ``.vgaudit``."""
    return environment().get_template("style.css").render(causes=CAUSES).strip()


@cache
def environment() -> Environment:
    """Returns the templates; what they are given is escaped unless it is a chart."""
    return Environment(
        loader=PackageLoader("vgaudit.reports.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _themes() -> str:
    """Returns the colours by the notebook's theme, which is not the system's."""
    text = style()
    light = text[text.index("{") + 1 : text.index("}")]
    start = text.index("{", text.index(_DARK_RULE) + len(_DARK_RULE)) + 1
    dark = text[start : text.index("}", start)]
    return f"{LIGHT}{{{light}}}{DARK}{{{dark}}}"


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
