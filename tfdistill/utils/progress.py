"""What a person sees while a study runs: one live display, or plain lines where there is no
terminal."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from tfdistill.utils.text import duration, printable_lines


class _Console(Console):
    """A console that does not end the process in silence where nobody reads its output."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Silent:
    """Shows nothing; the base of the displays, and the default of library calls."""

    def start(self, title: str, costs: dict[str, float]) -> None:
        """Begin a study of runs, by name, with their relative costs."""

    def begin(self, names: Sequence[str]) -> None:
        """Begin a run, or several that are trained together."""

    def resume(self, epoch: int, epochs: int) -> None:
        """Tell that the run is resumed after `epoch` finished epochs."""

    def skip(self, name: str, why: str) -> None:
        """Pass over a run that is finished or cannot be done."""

    def step(self, epoch: int, epochs: int, share: float) -> None:
        """Tell how far an epoch is, `share` in 0..1."""

    def epoch(self, epoch: int, epochs: int, logs: dict[str, float]) -> None:
        """Tell the figures of a finished epoch (0, 1, ...)."""

    def end(self, name: str, outcome: str) -> None:
        """End one run, with one line about it."""

    def say(self, text: str) -> None:
        """Tell something beside the progress."""

    def warn(self, text: str) -> None:
        """Tell what must not be missed: it is logged where nothing is shown."""
        logging.getLogger("tfdistill").warning(text)

    def stop(self) -> None:
        """End the study; also after an error."""


@dataclass
class _Clock:
    """Estimates the time left from the costs done since the start."""

    costs: dict[str, float]
    started: float = field(default_factory=time.monotonic)
    worked: float = 0.0
    passed: float = 0.0

    def skip(self, name: str) -> None:
        """Count a run as done before, not as work since the start."""
        self.passed += self.costs[name]

    def together(self, names: Sequence[str]) -> None:
        """Count the cost of several runs as that of the first."""
        total = sum(self.costs[name] for name in names)
        self.costs |= dict.fromkeys(names, 0.0) | {names[0]: total}

    def resume(self, name: str, share: float) -> None:
        """Count a share of the present run as done before."""
        self.passed += share * self.costs[name]
        self.worked -= share * self.costs[name]

    def done(self, name: str) -> None:
        """Count a run as done."""
        self.worked += self.costs[name]

    def reached(self, name: str, share: float) -> float:
        """Return the cost done so far, with a share of the present run."""
        return self.passed + self.worked + share * self.costs[name]

    def left(self, name: str, share: float) -> str:
        """Return the time left as text, empty before anything is known."""
        worked = self.worked + share * self.costs[name]
        if worked <= 0:
            return ""
        remaining = sum(self.costs.values()) - self.reached(name, share)
        return duration((time.monotonic() - self.started) / worked * remaining)


class Lines(Silent):
    """One line for each finished run and, at most every `every` seconds, for an epoch."""

    def __init__(self, console: Console | None = None, every: float = 10.0):
        self.console = console or _Console(highlight=False, soft_wrap=True)
        self.every = every
        self.places: dict[str, int] = {}
        self.spoken = time.monotonic()

    def start(self, title: str, costs: dict[str, float]) -> None:
        self.clock = _Clock(costs)
        self.places = {name: place for place, name in enumerate(costs, start=1)}
        self.say(title)

    def begin(self, names: Sequence[str]) -> None:
        self.name = names[0]
        for name in names:  # a search may go on longer than was foreseen
            self.clock.costs.setdefault(name, 1.0)
            self.places.setdefault(name, len(self.places) + 1)
        self.title = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
        self.clock.together(names)

    def resume(self, epoch: int, epochs: int) -> None:
        self.clock.resume(self.name, epoch / epochs)
        self.say(f"{self._place(self.name)} {self.title}: resumed after epoch {epoch}")

    def skip(self, name: str, why: str) -> None:
        self.clock.skip(name)
        self.say(f"{self._place(name)} {name}: {why}")

    def epoch(self, epoch: int, epochs: int, logs: dict[str, float]) -> None:
        if time.monotonic() - self.spoken >= self.every:
            left = self.clock.left(self.name, (epoch + 1) / epochs)
            self.say(
                f"{self._place(self.name)} {self.title}: epoch {epoch + 1}/{epochs}, "
                f"{_accuracies(logs)}, about {left} left"
            )

    def end(self, name: str, outcome: str) -> None:
        self.clock.done(name)
        self.say(f"{self._place(name)} {name}: {outcome}")

    def say(self, text: str) -> None:
        self.spoken = time.monotonic()
        self.console.print(printable_lines(text), markup=False)

    def warn(self, text: str) -> None:
        self.say(text)

    def _place(self, name: str) -> str:
        return f"[{self.places[name]}/{len(self.places)}]"


class Live(Lines):
    """A live display: the study's bar and the present run's, with finished runs scrolling above."""

    def __init__(self, console: Console):
        super().__init__(console, every=float("inf"))
        self.display = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[note]}"),
            console=console,
        )

    def start(self, title: str, costs: dict[str, float]) -> None:
        super().start(title, costs)
        self.study = self.display.add_task("study", total=sum(costs.values()), note="")
        self.run = self.display.add_task("", total=1.0, note="", visible=False)
        self.display.start()

    def begin(self, names: Sequence[str]) -> None:
        super().begin(names)
        self.display.reset(self.run, description=self.title, note="preparing", visible=True)
        self._refresh(0.0)

    def step(self, epoch: int, epochs: int, share: float) -> None:
        self._refresh((epoch + share) / epochs)

    def epoch(self, epoch: int, epochs: int, logs: dict[str, float]) -> None:
        note = f"epoch {epoch + 1}/{epochs} {_accuracies(logs)}"
        self.display.update(self.run, note=note)
        self._refresh((epoch + 1) / epochs)

    def stop(self) -> None:
        self.display.stop()

    def _refresh(self, share: float) -> None:
        left = self.clock.left(self.name, share)
        note = f"run {self._place(self.name)[1:-1]}" + (f", {left} left" if left else "")
        done = self.clock.reached(self.name, share)
        self.display.update(self.study, completed=done, note=note)
        self.display.update(self.run, completed=share)


def display(console: Console | None = None) -> Silent:
    """Return the live display on a terminal, else plain lines."""
    console = console or _Console(highlight=False, soft_wrap=True)
    return Live(console) if console.is_terminal else Lines(console)


def _accuracies(logs: dict[str, float]) -> str:
    named = (("accuracy", "accuracy"), ("validation", "val_accuracy"))
    return ", ".join(f"{name} {100 * logs[key]:.1f} %" for name, key in named if key in logs)
