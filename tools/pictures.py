"""Draws the diagrams of the documentation: `make pictures` writes docs/images/*.svg.

They are 480 wide, with letters that can be read on a phone, dark on white: the documentation's
style sheet turns them round in its dark theme.
"""

from collections.abc import Iterable
from html import escape
from pathlib import Path
from typing import Final

IMAGES: Final = Path(__file__).parents[1] / "docs" / "images"
WIDTH: Final = 480
BLUE: Final = "#30638e"
GREEN: Final = "#2a9d8f"
RED: Final = "#d1495b"
GREY: Final = "#6b7280"
INK: Final = "#1f2933"
TINTS: Final = {BLUE: "#e3edf6", GREEN: "#def3f0", RED: "#fbe6e9", GREY: "#f1f2f4"}
SIZE: Final = 15


def text(
    x: float,
    y: float,
    words: str,
    *,
    colour: str = INK,
    anchor: str = "middle",
    size: int = SIZE,
    code: bool = False,
) -> str:
    """A line of text; `y` is its middle."""
    family = "ui-monospace, Menlo, Consolas, monospace" if code else "system-ui, sans-serif"
    return (
        f'<text x="{x}" y="{y + size * 0.35:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'font-family="{family}" fill="{colour}">{escape(words)}</text>'
    )


def box(
    x: float, y: float, width: float, height: float, *lines: str, colour: str = BLUE
) -> list[str]:
    """A box with lines of text in it; those in backticks are code."""
    middle = y + height / 2 - (len(lines) - 1) * 10
    drawn = [
        (
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" '
            f'fill="{TINTS[colour]}" stroke="{colour}" stroke-width="1.5"/>'
        )
    ]
    for number, words in enumerate(lines):
        code = words.startswith("`")
        at = middle + number * 20
        drawn.append(text(x + width / 2, at, words.strip("`"), code=code, size=14 if code else 15))
    return drawn


def frame(x: float, y: float, width: float, height: float, title: str) -> list[str]:
    """A dashed frame around what belongs together, with a title in its corner."""
    return [
        (
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="12" fill="none" '
            f'stroke="{GREY}" stroke-dasharray="5 4"/>'
        ),
        text(x + 12, y + 16, title, colour=GREY, anchor="start", size=14),
    ]


def line(
    x1: float,
    y1: float,
    x2: float,
    y2: float,
    *,
    colour: str = INK,
    dashed: bool = False,
    both: bool = False,
    head: bool = True,
) -> str:
    """An arrow."""
    name = colour.removeprefix("#")
    ends = f' marker-end="url(#{name})"' if head else ""
    ends += f' marker-start="url(#{name})"' if both else ""
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}" '
        f'stroke-width="1.8"{dashes}{ends}/>'
    )


def picture(height: int, *parts: str | Iterable[str]) -> str:
    """A whole SVG of these parts."""
    heads = "".join(
        f'<marker id="{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" '
        f'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" '
        f'fill="{colour}"/></marker>'
        for colour in (BLUE, GREEN, RED, GREY, INK)
    )
    drawn = [piece for part in parts for piece in ([part] if isinstance(part, str) else part)]
    body = "\n".join(drawn)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}">\n<defs>{heads}</defs>\n'
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def request() -> str:
    """The way of a request, from a call to the row and back."""
    steps = (
        ("KeyValueStore", "key and value to bytes; expires > now"),
        ("Client", "which server, what may be sent again"),
        ("Channel", "one write, one read, one deadline"),
    )
    parts: list[str] = frame(10, 8, 460, 252, "your process")
    parts += box(120, 32, 240, 34, '`store["ann"]`', colour=GREY)
    for number, (name, does) in enumerate(steps):
        top = 84 + number * 58
        parts.append(line(240, top - 18, 240, top - 1))
        parts += box(40, top, 400, 40)
        parts.append(text(52, top + 20, name, anchor="start", colour=BLUE))
        parts.append(text(428, top + 20, does, anchor="end", size=13))
    parts += [
        line(215, 240, 215, 318, colour=GREEN),
        text(205, 280, "0 = 1 ann 1 0 F > 1 …", anchor="end", code=True, size=13),
        line(265, 318, 265, 240, colour=GREEN),
        text(275, 280, "0 3 hello 0 1", anchor="start", code=True, size=13),
    ]
    parts += frame(10, 294, 460, 216, "mariadbd")
    parts += box(40, 320, 230, 50, "HandlerSocket", "9998 reads, 9999 writes", colour=GREEN)
    parts += box(300, 320, 140, 50, "SQL", "parse, plan, run", colour=GREY)
    parts += [line(150, 370, 150, 418, colour=GREEN), line(370, 370, 370, 418, colour=GREY)]
    parts.append(text(160, 394, "one look into an index", anchor="start", size=13))
    parts += box(
        40, 420, 400, 70, "InnoDB: one table, one row", "`k = ann, v = hello, expires = …`"
    )
    return picture(518, parts)


def batching() -> str:
    """Three requests one by one, and in one write."""
    parts: list[str] = []
    for left, title in ((10, "one by one"), (250, "in one write")):
        parts += frame(left, 8, 220, 344, title)
        for x, who in ((left + 45, "you"), (left + 175, "server")):
            parts.append(text(x, 48, who))
            parts.append(line(x, 60, x, 300, colour=GREY, head=False))
    for number in range(3):
        top = 76 + number * 76
        parts += [
            line(55, top, 183, top + 26, colour=BLUE),
            line(185, top + 30, 57, top + 56, colour=GREEN),
            text(120, top - 2, f"get {'abc'[number]}", code=True, size=13),
        ]
    parts += [line(295, 76 + step * 9, 423, 102 + step * 9, colour=BLUE) for step in range(3)]
    parts += [line(425, 130 + step * 9, 297, 156 + step * 9, colour=GREEN) for step in range(3)]
    parts.append(text(360, 72, "a, b, c", code=True, size=13))
    for number, name in enumerate(("get_many", "set_many", "pipeline()")):
        parts.append(text(360, 214 + number * 22, name, code=True, size=13))
    parts.append(text(120, 324, "three waits"))
    parts.append(text(360, 324, "one wait, one commit"))
    return picture(360, parts)


def expiry() -> str:
    """The life of a row with a ttl."""
    parts: list[str] = [text(20, 20, "set(k, v, ttl=60)", anchor="start", code=True, size=14)]
    spans = ((20, 200, GREEN, "it is there"), (200, 340, RED, "dead"), (340, 460, GREY, "gone"))
    for begin, end, colour, words in spans:
        parts += box(begin, 44, end - begin, 44, words, colour=colour)
    for x, words in ((20, "0 s"), (200, "60 s"), (340, "120 s")):
        anchor = "start" if x == 20 else "middle"
        parts += [line(x, 90, x, 104, colour=GREY, head=False), text(x, 116, words, anchor=anchor)]
    notes = (
        (GREEN, "every request says expires > now:", "it ends on time, without a sweeper"),
        (RED, "no operation sees it; it takes room", "for a minute, for clocks that are behind"),
        (GREY, "about every hundredth write frees", "up to 20 rows, by the index on expires"),
    )
    for number, (colour, *lines) in enumerate(notes):
        parts += box(20, 146 + number * 68, 440, 56, *lines, colour=colour)
    return picture(350, parts)


def replicated() -> str:
    """Writes by SQL to the primary, reads by HandlerSocket from all."""
    parts = box(130, 16, 220, 50, "your processes", "writes=sql")
    parts += [
        line(205, 66, 205, 158, colour=RED),
        text(195, 112, "writes, by SQL", anchor="end", colour=RED, size=14),
        text(195, 132, "counters, leases", anchor="end", colour=RED, size=13),
    ]
    parts += box(110, 160, 210, 70, "primary", "SQL, HandlerSocket", colour=RED)
    parts += [
        line(160, 230, 125, 318, dashed=True),
        line(270, 230, 330, 318, dashed=True),
        text(215, 262, "binary log,", size=13),
        text(215, 280, "semi-sync", size=13),
    ]
    parts += box(20, 320, 190, 60, "replica", "HandlerSocket", colour=GREEN)
    parts += box(270, 320, 190, 60, "replica", "HandlerSocket", colour=GREEN)
    parts += [
        line(420, 318, 330, 68, colour=GREEN),
        line(60, 318, 60, 100, colour=GREEN, head=False),
        line(60, 100, 148, 68, colour=GREEN),
        line(290, 158, 270, 68, colour=GREEN),
        text(470, 90, "reads, by", anchor="end", colour=GREEN, size=14),
        text(470, 110, "HandlerSocket", anchor="end", colour=GREEN, size=14),
    ]
    return picture(392, parts)


def main() -> None:
    """Draw them all."""
    for draw in (request, batching, expiry, replicated):
        (IMAGES / f"{draw.__name__}.svg").write_text(draw())


if __name__ == "__main__":
    main()
