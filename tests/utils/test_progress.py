"""What a person sees: lines without a terminal, a display with one, and an honest time left."""

import io
import re

from rich.console import Console

from tfdistill.utils import progress


def lines_of(show):
    text = io.StringIO()
    lines = progress.Lines(Console(file=text, width=80, soft_wrap=True), every=0.0)
    show(lines)
    return text.getvalue().splitlines()


def test_lines_tell_run_epoch_accuracy_and_time_left():
    def show(lines):
        lines.start("2 runs in here", {"a": 10.0, "b": 10.0})
        lines.begin(["a"])
        lines.epoch(0, 10, {"accuracy": 0.25, "val_accuracy": 0.5})
        lines.end("a", "test accuracy 50.00 % (best)")
        lines.skip("b", "finished before")

    title, epoch, end, skipped = lines_of(show)
    assert title == "2 runs in here"
    assert re.fullmatch(
        r"\[1/2\] a: epoch 1/10, accuracy 25.0 %, validation 50.0 %, about \d+ s left", epoch
    )
    assert end == "[1/2] a: test accuracy 50.00 % (best)"
    assert skipped == "[2/2] b: finished before"


def test_what_was_done_before_does_not_count_as_fast():
    clock = progress._Clock({"a": 10.0, "b": 10.0}, started=0.0)
    clock.skip("a")
    clock.shares["b"] = 0.0
    assert clock.left == ""
    clock.resume("b", 0.5)
    assert clock.reached == 15.0
    clock.started = progress.time.monotonic() - 100  # 100 s for the 2 of 10 epochs done since
    clock.shares["b"] = 0.7
    assert clock.left == "2 min 30 s"


def test_a_slow_beginning_does_not_stand_for_what_is_to_come(monkeypatch):
    """Of 100 runs the first takes 60 s, the others 10 s each."""
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    clock = progress._Clock({str(run): 1.0 for run in range(100)}, started=0.0)
    for run in range(14):
        clock.shares[str(run)] = 0.0
        for step in range(10):
            now += 6.0 if run == 0 else 1.0
            clock.shares[str(run)] = (step + 1) / 10
            left = clock.left
        clock.done(str(run))
        if run == 0:
            assert left == "1 h 39 min"  # all that is known
    assert left == "14 min 20 s"  # 86 runs of 10 s; the mean of all would say 19 min 27 s


def test_on_a_terminal_the_display_shows_bars_and_keeps_finished_runs():
    text = io.StringIO()
    console = Console(file=text, width=80, force_terminal=True, highlight=False)
    live = progress.display(console)
    assert isinstance(live, progress.Live)
    live.start("1 run", {"a": 4.0})
    live.begin(["a"])
    live.step(0, 4, 0.5)
    live.epoch(0, 4, {"accuracy": 0.25, "val_accuracy": 0.5})
    live.end("a", "test accuracy 50.00 % (best)")
    live.stop()
    shown = text.getvalue()
    assert "run 1/1" in shown and "epoch 1/4" in shown and "[1/1] a: test accuracy 50.00 %" in shown


def test_lines_tell_of_the_runs_of_several_workers():
    def show(lines):
        lines.start("3 runs in here", {"a": 10.0, "b": 10.0, "c": 10.0})
        one, two = lines.part(), lines.part()
        one.begin(["a"])
        two.begin(["b"])
        two.epoch(0, 2, {"accuracy": 0.5})
        one.leave()  # its worker was lost
        two.end("b", "done")
        two.begin(["a"])
        two.resume(1, 2)
        two.end("a", "done")
        # 10 of b, and of a the half that was not done before; c is to come.
        assert (lines.clock.worked, lines.clock.passed, lines.clock.reached) == (15.0, 5.0, 20.0)
        assert lines.clock.shares == {}

    _, epoch, *rest = lines_of(show)
    assert epoch.startswith("[2/3] b: epoch 1/2, accuracy 50.0 %, about ")
    assert rest == ["[2/3] b: done", "[1/3] a: resumed after epoch 1", "[1/3] a: done"]


def test_workers_share_the_time_between_two_lines():
    text = io.StringIO()
    lines = progress.Lines(Console(file=text, width=80), every=1000.0)
    lines.start("2 runs", {"a": 1.0, "b": 1.0})
    lines.spoken = progress.time.monotonic() - 2000
    for name in "ab":
        part = lines.part()
        part.begin([name])
        part.epoch(0, 2, {})
    assert text.getvalue().count("epoch 1/2") == 1


def test_the_display_has_a_bar_for_each_run_of_several_workers():
    text = io.StringIO()
    live = progress.Live(Console(file=text, width=80, force_terminal=True, highlight=False))
    live.start("3 runs", {"a": 1.0, "b": 1.0, "c": 1.0})
    one, two = live.part(), live.part()
    one.begin(["a"])
    two.begin(["c"])
    two.step(0, 2, 0.5)
    shown = [task for task in live.display.tasks if task.visible]
    assert [task.description for task in shown] == ["study", "a", "c"]
    assert shown[0].fields["note"].startswith("runs 1, 3/3")
    assert [task.completed for task in shown] == [0.25, 0.0, 0.25]
    two.end("c", "done")
    assert [task.description for task in live.display.tasks if task.visible] == ["study", "a"]
    one.step(0, 2, 0.0)
    assert live.display.tasks[0].fields["note"].startswith("run 1/3")
    live.stop()


def test_without_a_terminal_there_are_plain_lines():
    assert type(progress.display(Console(file=io.StringIO()))) is progress.Lines
