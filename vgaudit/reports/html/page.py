"""Documents and fragments: what stands around the body of every HTML report.

A document carries its whole style, no script, and a content security policy that
allows that style alone, by its hash; so there are no ``style`` attributes anywhere.
A fragment is the same body for a notebook's cell, with the style scoped to it and
following the notebook's theme.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from vgaudit.plain import visible
from vgaudit.reports.charts.budget import CAUSES
from vgaudit.reports.escaping import inert

if TYPE_CHECKING:
    from jinja2 import Environment

PAGE_STYLE = (
    "html{background:#fdfdfc}body{margin:0}"
    "@media screen and (prefers-color-scheme:dark){html{background:#14161a}}"
    "@media print{html{background:#fff}}"
)
DARK = '.vgaudit:is(body[data-jp-theme-light="false"] *, body.vscode-dark *)'
LIGHT = '.vgaudit:is(body[data-jp-theme-light="true"] *, body.vscode-light *)'
_DARK_RULE = "@media screen and (prefers-color-scheme: dark) {"


@dataclass(frozen=True, slots=True)
class Page:
    """The body of a report and its title.

    Attributes:
        title: of the document.
        body: trusted markup, filled by this package's templates.
    """

    title: str
    body: str

    def document(self) -> str:
        """Returns a whole HTML page that needs nothing but itself."""
        template = environment().get_template("page.html")
        return template.render(
            title=inert(f"vgaudit: {visible(self.title)}"),
            body=inert(self.body),
            style=style(),
            page_style=PAGE_STYLE,
            digests=" ".join(f"'sha256-{_digest(x)}'" for x in (PAGE_STYLE, style())),
        )

    def fragment(self) -> str:
        """Returns the body for a notebook's cell, which brings its style along."""
        look = f"<style>{style()}{_themes()}</style>"
        return f'{look}<div class="vgaudit">{self.body}</div>'


def filled(template: str, view: object) -> str:
    """Returns a template filled with a view."""
    return environment().get_template(template).render(view=view)


@cache
def style() -> str:
    """Returns the style sheet, every rule of it below ``.vgaudit``."""
    return environment().get_template("style.css").render(causes=CAUSES).strip()


@cache
def environment() -> Environment:
    """Returns the templates; what they are given is escaped unless it is a chart."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

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
