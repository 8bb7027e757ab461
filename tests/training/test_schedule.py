"""Which tasks of a study may begin when several are done at the same time."""

from tfdistill.config import DataConfig, DistillationConfig, ModelConfig, RunConfig, TrainingConfig
from tfdistill.training.workers.schedule import Schedule, tasks


def run(name, teachers=(), members=()):
    model = None if members else ModelConfig()
    distillation = DistillationConfig() if teachers else None
    given = {"teachers": teachers, "members": members, "distillation": distillation}
    return RunConfig(name, name, 0, DataConfig(), model, TrainingConfig(), **given)


def ready(schedule):
    return [task.title for task in schedule.ready()]


def end(schedule, title, failed=()):
    [task] = [task for task in schedule.ready() if task.title == title]
    schedule.begin(task)
    schedule.end(task, failed)


T0, T1, ALONE = run("t0"), run("t1"), run("alone")
A, B = run("a", ("t0", "t1")), run("b", ("t0", "t1"))
BOTH = run("both", members=("a", "b"))


def test_what_needs_nothing_is_ready_and_what_is_taught_waits_for_every_teacher():
    schedule = Schedule(tasks([[T0], [T1], [ALONE], [A], [BOTH]], {}))
    assert ready(schedule) == ["t0", "t1", "alone"]
    end(schedule, "t1")
    assert ready(schedule) == ["t0", "alone"]
    end(schedule, "t0")
    assert ready(schedule) == ["alone", "a"]


def test_one_task_stores_the_logits_that_several_read():
    schedule = Schedule(tasks([[T0], [T1], [A], [B], [BOTH]], {"a": "here", "b": "here"}))
    end(schedule, "t0")
    end(schedule, "t1")
    assert ready(schedule) == ["storing the teacher logits of a"]
    end(schedule, "storing the teacher logits of a")
    assert ready(schedule) == ["a", "b"]


def test_logits_in_two_places_are_two_tasks():
    schedule = Schedule(tasks([[T0], [T1], [A], [B]], {"a": "here", "b": "there"}))
    end(schedule, "t0")
    end(schedule, "t1")
    assert ready(schedule) == [f"storing the teacher logits of {name}" for name in "ab"]
    end(schedule, "storing the teacher logits of b")
    assert ready(schedule) == ["storing the teacher logits of a", "b"]


def test_a_run_that_is_begun_is_not_begun_again_and_ends_for_all_that_wait():
    schedule = Schedule(tasks([[T0, T1], [A]], {}))
    [task] = schedule.ready()
    assert task.title == "t0 and 1 more"
    schedule.begin(task)
    assert schedule.ready() == [] and [each.title for each in schedule.waiting] == ["a"]
    schedule.end(task)
    assert ready(schedule) == ["a"]


def test_runs_of_one_group_do_not_wait_for_each_other():
    schedule = Schedule(tasks([[A, BOTH, B]], {}))
    assert ready(schedule) == ["a and 2 more"]  # the teachers are not planned: they are there
    schedule = Schedule(tasks([[T0], [T1], [A, B]], {"a": "here", "b": "here"}))
    end(schedule, "t0")
    end(schedule, "t1")
    end(schedule, "storing the teacher logits of a")
    assert ready(schedule) == ["a and 1 more"]


def test_what_failed_is_known_of_those_that_need_it():
    schedule = Schedule(tasks([[T0], [T1], [A], [BOTH]], {}))
    end(schedule, "t0")
    end(schedule, "t1", failed=["t1"])
    assert ready(schedule) == ["a"]  # it is ready to be left out
    assert schedule.failed_need(A) == "t1" and schedule.failed_need(ALONE) is None
    schedule.fail(["a"])
    assert schedule.failed_need(BOTH) == "a"
