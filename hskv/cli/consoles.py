"""Text for people on a terminal, wide or narrow, dark or light."""

from rich.console import Console
from rich.theme import Theme

# Of the terminal's own palette, which its owner can read: no white, no black, no pale shades.
_THEME = Theme(
    {
        "good": "green",
        "bad": "bold red",
        "warning": "magenta",
        "name": "bold",
        "progress.percentage": "none",
        "progress.remaining": "none",
        "progress.elapsed": "none",
        "bar.back": "bright_black",
        "bar.pulse": "green",
        "bar.complete": "green",
        "bar.finished": "green",
    }
)


def console(*, stderr: bool = False) -> Console:
    """A console that colours only what it is told to colour."""
    return Console(stderr=stderr, theme=_THEME, highlight=False, emoji=False, markup=False)
