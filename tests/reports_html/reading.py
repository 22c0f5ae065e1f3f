"""Reads an HTML page back: a tree of elements, refused where tags do not match."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = frozenset({"meta", "br", "hr", "img", "link", "input", "wbr"})


@dataclass
class Element:
    """One element with what is in it, in order."""

    tag: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: list[Element | str] = field(default_factory=list)

    def every(self, tag: str = "", kind: str = "") -> Iterator[Element]:
        """Yields the elements below with a tag and a class."""
        for child in self.children:
            if isinstance(child, Element):
                classes = (child.attributes.get("class") or "").split()
                if tag in ("", child.tag) and (not kind or kind in classes):
                    yield child
                yield from child.every(tag, kind)

    def one(self, tag: str = "", kind: str = "") -> Element:
        """Returns the only such element."""
        (found,) = self.every(tag, kind)
        return found

    @property
    def text(self) -> str:
        """All text below, as a reader gets it."""
        parts = (x if isinstance(x, str) else x.text for x in self.children)
        return "".join(parts)

    def rows(self) -> list[list[str]]:
        """The cells of a table, head first."""
        return [
            [cell.text for cell in row.every() if cell.tag in ("td", "th")]
            for row in self.every("tr")
        ]


class Reader(HTMLParser):
    """Builds the tree."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("root")
        self.open = [self.root]
        self.comments: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"{tag}: an attribute twice"
        element = Element(tag, dict(attrs))
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def read(page: str) -> Element:
    """Returns the tree of a page.

    Raises:
        AssertionError: tags do not match, or something is left open.
    """
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == [reader.root]
    assert [] == reader.comments
    return reader.root


def number(text: str) -> float:
    """Returns the figure of a cell."""
    return float(text.replace("−", "-").replace("∞", "inf").replace(",", ""))


def percent(text: str | None) -> float:
    """Returns a coordinate that is a percentage."""
    assert text is not None
    assert text.endswith("%")
    return float(text[:-1])
