"""Studies that are killed, stopped and started again: real processes, real signals."""

import csv
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.forked import LONG, tfdistill
from tfdistill import records
from tfdistill.utils import storage

pytestmark = pytest.mark.slow

DAYS = 3 * 86400
GOES_ON = "The same command resumes where this one stopped."
# Signals come while Python does not run its handlers, or while a library swallows what they raise.
DEAF = {
    "native code": """
mutex = ctypes.create_string_buffer(64)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
ctypes.CDLL(None).pthread_mutex_lock(mutex)
""",
    "a library": """
while True:
    try:
        time.sleep(1)
    except KeyboardInterrupt:
        pass
""",
}
NAMES = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP (its terminal was closed)",
}
PROGRAM = """
import ctypes, sys, time
from tfdistill.utils import progress, signals

def work():
    print("begun", flush=True)
    exec(sys.argv[1])

sys.exit(signals.run(work, "The same command goes on."))
"""


@pytest.fixture(scope="module", autouse=True)
def signals_are_heard():
    """A shell starts what is in the background with Ctrl-C ignored, and nohup with SIGHUP ignored;
    processes inherit that, but no handler."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: lambda *_: None}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def start(*command):
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def study(single, folder):
    return "run", single / "study.yaml", "--output", folder


def stopped_at(process, line, number):
    """Send a signal to the process group after a line of output; return status and errors."""
    assert any(line in text for text in process.stdout)
    os.killpg(process.pid, number)
    _, errors = process.communicate()
    return process.returncode, errors


def results(folder):
    """Return what a user reads of a study, without durations."""
    with open(folder / "results.csv", newline="") as file:
        rows = [{**row, "seconds": None} for row in csv.DictReader(file)]
    found = records.read_all(folder)
    return rows, [(run.key, run.weights, run.history, run.best, run.last) for run in found]


def written(folder):
    paths = [*folder.glob("runs/*/*.keras"), *folder.glob("runs/*/record.json")]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths}


def test_a_study_that_is_stopped_again_and_again_ends_as_one_that_is_not(single, tmp_path):
    folder, command = tmp_path / "stopped", study(single, tmp_path / "stopped")
    printed = (single / "printed").read_text()
    tables = printed.partition("Test accuracy  ")[2].partition("Report:")[0]

    stopped_at(tfdistill(*command), "[1/3] teacher: test accuracy", signal.SIGKILL)
    first = written(folder)
    assert first.keys() >= {folder / "runs" / "teacher" / "record.json"}
    process = tfdistill(*command)
    status, errors = stopped_at(process, "[2/3] alone-0: test accuracy", signal.SIGINT)
    assert (status, errors) == (130, f"tfdistill: stopped by Ctrl-C. {GOES_ON}\n")
    teacher = {path: stat for path, stat in written(folder).items() if path in first}
    assert teacher == first
    for path in folder.rglob("*"):  # as if the clock had been set back since
        os.utime(path, (time.time() + DAYS, time.time() + DAYS))
    before = written(folder)
    state = folder / "runs" / "distilled-0" / "state.npz"
    left = state.with_name(storage.temporary_name(state).replace(f".{os.getpid()}.", ".999999999."))
    left.parent.mkdir(exist_ok=True)
    left.write_text("of a killed process")

    process = start("-m", "tfdistill", *command)  # as a user does
    output, errors = process.communicate(timeout=LONG)
    assert process.returncode == 0, errors
    assert tables in output
    assert tables.count("\n") > 5
    assert results(folder) == results(single / "out")
    assert before.items() <= written(folder).items()
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_sigterm_is_heard_while_tensorflow_starts(single, tmp_path):
    process = start("-m", "tfdistill", *study(single, tmp_path / "out"))
    status, errors = stopped_at(process, "Starting TensorFlow", signal.SIGTERM)
    assert (status, errors) == (143, f"tfdistill: stopped by SIGTERM. {GOES_ON}\n")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def signalled():
    """Processes that have been sent a signal, by kind and signal; all wait at the same time."""
    found = {(deaf, number): start("-c", PROGRAM, DEAF[deaf]) for deaf in DEAF for number in NAMES}
    for (_, number), process in found.items():
        assert process.stdout.readline() == "begun\n"
        for _ in range(3):  # an impatient user
            process.send_signal(number)
    return found


@pytest.mark.parametrize("number", NAMES, ids=["Ctrl-C", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("deaf", DEAF)
def test_what_does_not_hear_a_signal_ends_all_the_same(signalled, deaf, number):
    process = signalled[deaf, number]
    output, errors = process.communicate(timeout=LONG)
    assert process.returncode == 128 + number
    assert errors == f"tfdistill: stopped by {NAMES[number]}. The same command goes on.\n"


LATE = """
import os, signal, sys
from tfdistill.utils import signals

class Late:
    def __del__(self):  # when Python takes its modules down
        os.kill(os.getpid(), signal.SIGTERM)

late = Late()
sys.exit(signals.run(lambda: print("done") or int(sys.argv[1])))
"""


@pytest.mark.parametrize("status", [0, 1])
def test_a_signal_after_the_work_changes_no_status(status):
    process = start("-c", LATE, status)
    assert process.communicate(timeout=LONG) == ("done\n", "")
    assert process.returncode == status


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_files_do_not_take_the_place_of_streams_that_are_closed(tmp_path, closed):
    script = (
        "import os, sys\n"
        "from tfdistill.utils import signals\n"
        "def work():\n"
        f"    with open({str(tmp_path / 'file')!r}, 'w') as file:\n"
        "        print('to the terminal', flush=True)\n"
        "        os.write(2, b'from native code')\n"
        "        file.write('content')\n"
        "    return 3\n"
        "sys.exit(signals.run(work))\n"
    )
    (tmp_path / "script.py").write_text(script)
    command = f"{sys.executable} {tmp_path / 'script.py'} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 3, done.stderr
    assert (tmp_path / "file").read_text() == "content"


def test_output_that_nobody_reads_is_no_error_of_python():
    process = start("-m", "tfdistill", "--help")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(LONG) == 128 + signal.SIGPIPE


def test_a_long_command_that_nobody_listens_to_says_how_to_go_on():
    process = start("-c", PROGRAM, "while True: progress.display().say('one more epoch')")
    assert process.stdout.readline() == "begun\n"
    process.stdout.close()
    said = "tfdistill: nobody reads the output any more. The same command goes on.\n"
    assert process.stderr.read() == said
    assert process.wait(LONG) == 128 + signal.SIGPIPE
