"""Draws how each strategy of a rate limiter admits over time, from runs on a real server.

`make pictures` writes docs/images/limiter.svg.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib import pyplot as plt

import hskv
from hskv.mariadb import PrivateServer

LIMIT: Final = 20
PERIOD_SECONDS: Final = 2.0
RUN_SECONDS: Final = 8.0
PAUSE_SECONDS: Final = 0.01
STRATEGIES: Final = ("fixed-window", "sliding-window", "gcra")
COLOURS: Final = dict(zip(STRATEGIES, ("#d1495b", "#2a9d8f", "#30638e"), strict=True))
PICTURE: Final = Path(__file__).parents[1] / "docs" / "images" / "limiter.svg"

# When a client asks, by seconds since a border of windows.
Pressure = Callable[[float], bool]
PRESSURES: Final[dict[str, Pressure]] = {
    "asked all the time": lambda at: True,
    "asked around every second border": lambda at: 1.6 < at % (2 * PERIOD_SECONDS) < 2.4,
}


def admissions(limiter: hskv.RateLimiter, asks: Pressure) -> list[float]:
    """The seconds, since a border of windows, of each hit that passed."""
    time.sleep(PERIOD_SECONDS - time.time() % PERIOD_SECONDS)
    border, passed = time.time(), []
    while (at := time.time() - border) < RUN_SECONDS:
        if asks(at) and limiter.hit("ann"):
            passed.append(at)
        time.sleep(PAUSE_SECONDS)
    return passed


def draw(axes: Any, title: str, runs: dict[str, list[float]]) -> None:
    """The count of admissions over time, a line for each strategy."""
    for number in range(1, int(RUN_SECONDS / PERIOD_SECONDS)):
        axes.axvline(number * PERIOD_SECONDS, color="#cccccc", linewidth=0.8)
    for name, passed in runs.items():
        times, counts = [0.0, *passed, RUN_SECONDS], [*range(len(passed) + 1), len(passed)]
        axes.step(times, counts, where="post", label=name, color=COLOURS[name], linewidth=1.8)
    rate = [LIMIT + at * LIMIT / PERIOD_SECONDS for at in (0.0, RUN_SECONDS)]
    axes.plot((0, RUN_SECONDS), rate, "--", color="#888888", label="limit + t x limit / per")
    axes.set(title=title, xlabel="seconds", xlim=(0, RUN_SECONDS), ylim=(0, None))


def main() -> None:
    """Run each strategy under each pressure, and draw."""
    # Text as text, and the same file from the same figures.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "hskv"})
    figure, panels = plt.subplots(1, len(PRESSURES), figsize=(10, 4), sharey=True)
    with PrivateServer() as server, hskv.connect(server.url) as store:
        for axes, (title, asks) in zip(panels, PRESSURES.items(), strict=True):
            runs = {}
            for name in STRATEGIES:
                limiter = store.limiter(title, LIMIT, PERIOD_SECONDS, name)
                runs[name] = admissions(limiter, asks)
            draw(axes, title, runs)
    panels[0].set_ylabel(f"hits that passed ({LIMIT} in {PERIOD_SECONDS:g} s)")
    panels[0].legend(loc="upper left")
    figure.tight_layout()
    figure.savefig(PICTURE, metadata={"Date": None})
    print(f"wrote {PICTURE}")


if __name__ == "__main__":
    main()
