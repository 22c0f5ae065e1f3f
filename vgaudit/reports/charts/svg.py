"""Elements of SVG and HTML as text, escaped by construction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

Attributes = Mapping[str, str | float]


def element(name: str, attributes: Attributes, *children: str) -> str:
    """Returns an element; attribute values are escaped, children are markup."""
    given = "".join(
        f' {key}="{escape(_value(value))}"' for key, value in attributes.items()
    )
    inner = "".join(children)
    return f"<{name}{given}>{inner}</{name}>"


def text(value: str) -> str:
    """Returns the markup of a text."""
    return escape(value, quote=False)


def short(value: float) -> str:
    """Returns a coordinate with at most two decimals and no needless zeros."""
    rounded = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if rounded in ("-0", "") else rounded


def percent(value: float) -> str:
    """Returns a horizontal coordinate: a percentage of the width."""
    return f"{short(value)}%"


def box(x: float, y: float, size: tuple[float, float], *, kind: str, tip: str) -> str:
    """Returns a rectangle.

    Args:
        x: left edge, a percentage.
        y: upper edge, pixels.
        size: width as a percentage, height in pixels.
        kind: its CSS class.
        tip: what the pointer shows over it; nothing where empty.
    """
    attributes: Attributes = {
        "class": kind,
        "x": percent(x),
        "y": short(y),
        "width": percent(max(size[0], 0.0)),
        "height": short(max(size[1], 0.0)),
    }
    return element("rect", attributes, *([element("title", {}, text(tip))] * bool(tip)))


def line(start: tuple[float, float], end: tuple[float, float], *, kind: str) -> str:
    """Returns a straight line between two places (percent, pixels)."""
    attributes: Attributes = {
        "class": kind,
        "x1": percent(start[0]),
        "y1": short(start[1]),
        "x2": percent(end[0]),
        "y2": short(end[1]),
    }
    return element("line", attributes)


def label(
    words: str, x: float, y: float, *, kind: str = "", anchor: str = "start"
) -> str:
    """Returns a line of text that starts, ends or is centred at a place."""
    attributes: dict[str, str | float] = {"x": percent(x), "y": short(y)}
    if anchor != "start":
        attributes["text-anchor"] = anchor
    if kind:
        attributes["class"] = kind
    return element("text", attributes, text(words))


def outside(words: str, x: float, y: float, *, kind: str = "") -> str:
    """Returns a text that ends at ``x`` pixels: negative is left of the plot."""
    attributes: Attributes = {
        "x": short(x),
        "y": short(y),
        "text-anchor": "end",
        "class": kind or "t",
    }
    return element("text", attributes, text(words))


def stretched(height: float, *children: str) -> str:
    """Returns shapes drawn in a 1000-wide box that is stretched to the plot's width."""
    attributes: Attributes = {
        "viewBox": f"0 0 1000 {short(height)}",
        "preserveAspectRatio": "none",
        "width": "100%",
        "height": short(height),
    }
    return element("svg", attributes, *children)


def path(
    points: Sequence[tuple[float, float]], *, kind: str, closed: bool = False
) -> str:
    """Returns a path through places (percent, pixels), for ``stretched``."""
    places = "L".join(f"{short(10 * x)} {short(y)}" for x, y in points)
    end = "Z" if closed else ""
    return element("path", {"class": kind, "d": f"M{places}{end}"}) if places else ""


def dots(points: Iterable[tuple[float, float]], *, kind: str) -> str:
    """Returns a dot at each place: strokes without length, with round ends."""
    places = "".join(f"M{short(10 * x)} {short(y)}h0" for x, y in points)
    return element("path", {"class": kind, "d": places}) if places else ""


def plot(height: float, title: str, description: str, *children: str) -> str:
    """Returns a fluid picture that screen readers read as its title and description."""
    attributes: Attributes = {
        "class": "plot",
        "role": "img",
        "width": "100%",
        "height": short(height),
        "xmlns": "http://www.w3.org/2000/svg",
    }
    head = element("title", {}, text(title)) + element("desc", {}, text(description))
    return element("svg", attributes, head, *children)


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else short(value)
