"""What a person sees while a study runs: one live display, or plain lines where there is no
terminal."""

import copy
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

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

    def part(self) -> "Silent":
        """Return what shows the runs of one worker, of several that work at the same time."""
        return self

    def leave(self) -> None:
        """End the present run of a part: another goes on with it."""

    def stop(self) -> None:
        """End the study; also after an error."""


# Seconds that an estimate looks back at least.
_WINDOW = 60.0


@dataclass
class _Clock:
    """Estimates the time left from the costs done of late.

    `shares` has, of each run that is being done, how much of it is done. Small runs, and what comes
    before the first, take more time than their costs say: what long ago went slowly must not stand
    for what is to come, so that the last minute counts, or the last quarter of the time.
    """

    costs: dict[str, float]
    started: float = field(default_factory=time.monotonic)
    worked: float = 0.0
    passed: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    marks: list[tuple[float, float]] = field(default_factory=list)  # times, and the costs done then

    def skip(self, name: str) -> None:
        """Count a run as done before, not as work since the start."""
        self.passed += self.costs[name]

    def together(self, names: Sequence[str]) -> None:
        """Count the cost of several runs as that of the first."""
        total = sum(self.costs[name] for name in names)
        self.costs |= dict.fromkeys(names, 0.0) | {names[0]: total}

    def resume(self, name: str, share: float) -> None:
        """Count a share of a present run as done before."""
        self.shares[name] = share
        self.passed += share * self.costs[name]
        self.worked -= share * self.costs[name]

    def done(self, name: str) -> None:
        """Count a run as done."""
        self.shares.pop(name, None)
        self.worked += self.costs[name]

    @property
    def reached(self) -> float:
        """The cost done so far, with the shares of the present runs."""
        return self.passed + self._worked

    @property
    def left(self) -> str:
        """The time left as text, empty before anything is known."""
        now, worked = time.monotonic(), self._worked
        if worked <= 0:
            return ""
        oldest = now - max(_WINDOW, (now - self.started) / 4)
        self.marks = self.marks or [(self.started, 0.0)]
        while len(self.marks) > 1 and self.marks[1][0] <= oldest:
            del self.marks[0]
        since, before = self.marks[0]
        if now > self.marks[-1][0] + 1:
            self.marks.append((now, worked))
        if worked <= before:
            return ""
        remaining = sum(self.costs.values()) - self.reached
        return duration((now - since) / (worked - before) * remaining)

    @property
    def _worked(self) -> float:
        return self.worked + sum(part * self.costs[name] for name, part in self.shares.items())


class Lines(Silent):
    """One line for each finished run and, at most every `every` seconds, for an epoch."""

    def __init__(self, console: Console | None = None, every: float = 10.0):
        self.console = console or _Console(highlight=False, soft_wrap=True)
        self.every = every
        self.places: dict[str, int] = {}
        self.whole = self
        self.spoken = time.monotonic()
        self.name = ""

    def start(self, title: str, costs: dict[str, float]) -> None:
        self.clock = _Clock(costs)
        self.places = {name: place for place, name in enumerate(costs, start=1)}
        self.say(title)

    def part(self) -> "Lines":
        return copy.copy(self)  # with the same clock and places, and a present run of its own

    def begin(self, names: Sequence[str]) -> None:
        self.clock.shares.pop(self.name, None)
        self.name = names[0]
        for name in names:  # a search may go on longer than was foreseen
            self.clock.costs.setdefault(name, 1.0)
            self.places.setdefault(name, len(self.places) + 1)
        self.title = f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]
        self.clock.together(names)
        self.clock.shares[self.name] = 0.0

    def leave(self) -> None:
        self.clock.shares.pop(self.name, None)

    def resume(self, epoch: int, epochs: int) -> None:
        self.clock.resume(self.name, epoch / epochs)
        self.say(f"{self._place(self.name)} {self.title}: resumed after epoch {epoch}")

    def skip(self, name: str, why: str) -> None:
        self.clock.skip(name)
        self.say(f"{self._place(name)} {name}: {why}")

    def epoch(self, epoch: int, epochs: int, logs: dict[str, float]) -> None:
        self.clock.shares[self.name] = (epoch + 1) / epochs
        if time.monotonic() - self.whole.spoken >= self.every:
            left = self.clock.left
            self.say(
                f"{self._place(self.name)} {self.title}: epoch {epoch + 1}/{epochs}, "
                f"{_accuracies(logs)}" + (f", about {left} left" if left else "")
            )

    def end(self, name: str, outcome: str) -> None:
        self.clock.done(name)
        self.say(f"{self._place(name)} {name}: {outcome}")

    def say(self, text: str) -> None:
        self.whole.spoken = time.monotonic()
        self.console.print(printable_lines(text), markup=False)

    def warn(self, text: str) -> None:
        self.say(text)

    def _place(self, name: str) -> str:
        return f"[{self.places[name]}/{len(self.places)}]"


class Live(Lines):
    """A live display: the study's bar and those of the present runs, with finished runs scrolling
    above."""

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
        self.run = self._bar()
        self.display.start()

    def part(self) -> "Live":
        part = copy.copy(self)
        part.run = self._bar()
        return part

    def begin(self, names: Sequence[str]) -> None:
        super().begin(names)
        self.display.reset(self.run, description=self.title, note="preparing", visible=True)
        self._refresh(0.0)

    def leave(self) -> None:
        super().leave()
        self.display.update(self.run, visible=False)

    def end(self, name: str, outcome: str) -> None:
        super().end(name, outcome)
        if self is not self.whole:  # its worker may have nothing more to do
            self.display.update(self.run, visible=False)

    def step(self, epoch: int, epochs: int, share: float) -> None:
        self._refresh((epoch + share) / epochs)

    def epoch(self, epoch: int, epochs: int, logs: dict[str, float]) -> None:
        note = f"epoch {epoch + 1}/{epochs} {_accuracies(logs)}"
        self.display.update(self.run, note=note)
        self._refresh((epoch + 1) / epochs)

    def stop(self) -> None:
        self.display.stop()

    def _bar(self) -> TaskID:
        return self.display.add_task("", total=1.0, note="", visible=False)

    def _refresh(self, share: float) -> None:
        self.clock.shares[self.name] = share
        places = sorted(self.places[name] for name in self.clock.shares)
        runs = f"run{'s' if places[1:] else ''} {', '.join(map(str, places))}/{len(self.places)}"
        left = self.clock.left
        note = f"{runs}, {left} left" if left else runs
        self.display.update(self.study, completed=self.clock.reached, note=note)
        self.display.update(self.run, completed=share)


def display(console: Console | None = None) -> Silent:
    """Return the live display on a terminal, else plain lines."""
    console = console or _Console(highlight=False, soft_wrap=True)
    return Live(console) if console.is_terminal else Lines(console)


def _accuracies(logs: dict[str, float]) -> str:
    named = (("accuracy", "accuracy"), ("validation", "val_accuracy"))
    return ", ".join(f"{name} {100 * logs[key]:.1f} %" for name, key in named if key in logs)
