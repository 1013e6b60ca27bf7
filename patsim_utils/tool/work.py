"""How much of the machine a piece of work uses, and how far it is."""

import json
import os
import sys
import time
from pathlib import Path

from tqdm import tqdm

from patsim_utils import storage
from patsim_utils.errors import InputError, clip, counted, named
from patsim_utils.tool import outputs

LINE_SECONDS = 30  # between two lines where no terminal shows a bar
STATUS_SECONDS = 1  # between two versions of a status file
STATUS = {"done", "total", "per_second", "seconds_left", "last_error"}  # what a status file says
MOST_THREADS = 1024  # as --threads


def chosen_threads(threads: int | None, clock: "Clock") -> int:
    """As asked for, else PATSIM_THREADS, else OMP_NUM_THREADS, else as many as cores are idle."""
    if threads:
        return threads
    for variable in ("PATSIM_THREADS", "OMP_NUM_THREADS"):
        text = os.environ.get(variable, "")
        if text.isdecimal() and 0 < int(text[:9]) <= MOST_THREADS and len(text) < 9:
            return int(text)
        if text and variable == "PATSIM_THREADS":
            raise InputError(f"PATSIM_THREADS: {clip(text)} is no whole number from 1 to 1,024")
    return clock.idle_cores()


def use_threads(threads: int | None, clock: "Clock", *, engine: str = "local") -> str:
    """Sets the threads of an engine, here and in processes that are started; returns them in words."""
    count = chosen_threads(threads, clock)
    if engine != "onnx":
        import torch

        torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)
    return f"{counted(count, 'thread')} of {counted(cores(), 'core')}"


def cores() -> int:
    """Cores that this process may use, by its affinity and a container's quota; at least 1."""
    count = len(usable_cores())
    quota = container_quota()
    if quota is not None:
        count = min(count, max(1, round(quota)))
    return count


def usable_cores() -> set[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def container_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that a container grants (control groups of version 2 and 1), None where it grants all."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu" / "cpu.cfs_quota_us").read_text()
            period = (root / "cpu" / "cpu.cfs_period_us").read_text()
        except OSError:
            return None
    if quota.strip() in ("max", "-1"):
        return None
    return int(quota) / int(period)


class Clock:
    """Measures how busy the machine is with the work of others, from its making on.

    While a command imports its packages it uses one core at most, so what the others leave idle is
    seen by then. Where the system does not count (/proc/stat), its load average counts.
    """

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.own = time.process_time()
        self.idle = _idle_seconds()

    def idle_cores(self) -> int:
        """Cores that others leave to this process, at least 1 and at most those that it may use."""
        seconds = time.monotonic() - self.began
        idle = _idle_seconds()
        if idle is None or self.idle is None or seconds < 0.2:
            free = (os.cpu_count() or 1) - _load()
        else:
            own = time.process_time() - self.own
            free = (idle - self.idle + own) / seconds
        return max(1, min(cores(), round(free)))


def _load() -> float:
    """Processes that have wanted a core in the last minute; 0 where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def _idle_seconds() -> float | None:
    """Seconds in which the usable cores have had nothing to do, summed over them."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    usable = {f"cpu{number}" for number in usable_cores()}
    counters = [line.split() for line in lines if line.split(" ")[0] in usable]
    return sum(int(fields[4]) + int(fields[5]) for fields in counters) / ticks  # idle, and waiting for a disk


def check_status(path: Path) -> None:
    """InputError where no status file can be written, or another file would be replaced by it."""
    outputs.check_output(path, overwrite=True, forms=(".json",))
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text("utf-8"))
        is_status = isinstance(content, dict) and content.keys() == STATUS
    except (OSError, ValueError, RecursionError):
        is_status = False
    if not is_status:
        raise InputError(f"--status: {named(path)} is there, and is no status file; name another one")


class Progress:
    """How much of some work is done: a bar on a terminal, a line every 30 s elsewhere.

    Where a status file is asked for, it says so as well.
    The status file is JSON: `done`, `total`, `per_second`, `seconds_left` and `last_error`.
    """

    def __init__(
        self, total: int, *, done: int = 0, unit: str = "pairs", status: Path | None = None, note: str = ""
    ) -> None:
        """`note` is said when the first of the work is done."""
        self.total = total
        self.note = note
        self.done = done
        self.unit = unit
        self.status = status
        self.shown = done  # with what is done of a part that is under way
        self.skipped = done  # by an earlier command
        self.error = ""
        self.began = time.monotonic()
        self.line = self.began
        self.written = 0.0
        self.bar = None
        self._write_status()

    def within(self, done: int, total: int) -> None:
        """So many rows of the part that is under way are done."""
        self._show(self.done + done)

    def finish(self, count: int) -> None:
        """A part of so many is done."""
        self.done += count
        self._show(self.done)

    def reach(self, done: int, total: int) -> None:
        """So many of so many are done in all."""
        self.total = total
        self.done = done
        self._show(done)

    def _show(self, shown: int) -> None:
        now = time.monotonic()
        self.shown = shown
        if self.note:
            print(self.note, file=sys.stderr, flush=True)
            self.note = ""
        if sys.stderr.isatty():
            self._move_bar()
        elif now - self.line >= LINE_SECONDS:
            self.line = now
            print(self._text(), file=sys.stderr, flush=True)
        if now - self.written >= STATUS_SECONDS or shown == self.total:
            self._write_status()

    def fail(self, error: str) -> None:
        """An error that does not end the work."""
        self.error = error
        self._write_status()

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()
        self._write_status()

    def rate(self) -> float:
        """What is done in a second."""
        return (self.shown - self.skipped) / max(time.monotonic() - self.began, 1e-3)

    def seconds_left(self) -> float | None:
        """None where nothing is known yet."""
        rate = self.rate()
        return (self.total - self.shown) / rate if rate else None

    def _move_bar(self) -> None:
        if self.bar is None:
            options = {"unit": f" {self.unit}", "leave": False, "dynamic_ncols": True}
            self.bar = tqdm(total=self.total, initial=self.skipped, **options)
        self.bar.total = self.total
        self.bar.update(self.shown - self.bar.n)

    def _text(self) -> str:
        text = f"{self.shown:,} of {self.total:,} {self.unit}, {self.rate():,.0f} a second"
        left = self.seconds_left()
        return text if left is None else f"{text}, {left:,.0f} s left"

    def _write_status(self) -> None:
        if self.status is None:
            return
        self.written = time.monotonic()
        left = self.seconds_left()
        state = {  # STATUS
            "done": self.shown,
            "total": self.total,
            "per_second": round(self.rate(), 1),
            "seconds_left": left if left is None else round(left, 1),
            "last_error": self.error or None,
        }
        storage.write_text(self.status, json.dumps(state))
