"""Progress on stderr: bars on a terminal, about ten lines per stage in a log, JSON lines for machines."""

import json
import sys
import time
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from rich.table import Column

from clay_publish.formats import duration, size
from clay_publish.progress import Progress, Report

_RATED = {"bytes", "chips"}
"""What has a rate worth telling."""


def report_json() -> Report:
    """A report that writes one JSON document per step."""

    def write(step: Progress) -> None:
        print(json.dumps(asdict(step), ensure_ascii=False), file=sys.stderr, flush=True)

    return write


def report_lines() -> Report:
    """A report that writes about ten lines per stage, so that a log stays readable."""
    shown: dict[str, tuple[int, str]] = {}
    speeds = _Speeds()

    def write(step: Progress) -> None:
        speeds.see(step)
        state = (10 * step.done // step.total, "") if step.total else (step.done, step.message)
        parts = [part for part in (speeds.said(step), step.message if step.unit != "rules" else "") if part]
        if shown.get(step.stage) == state or not parts:
            return
        shown[step.stage] = state
        print(f"{step.stage}: {'; '.join(parts)}", file=sys.stderr, flush=True)

    return write


def bars(console: Console) -> Bars:
    """One line per stage, which fits the terminal."""
    return Bars(
        TextColumn("{task.description:<8}"),
        BarColumn(bar_width=10),
        TextColumn("{task.fields[said]}", markup=False, table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[message]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
        ),
        console=console,
        expand=True,
    )


@dataclass
class _Speeds:
    """The rate of each stage since its first report; work done before that does not count."""

    begun: dict[str, tuple[float, int]] = field(default_factory=dict)

    def see(self, step: Progress) -> None:
        self.begun.setdefault(step.stage, (time.monotonic(), step.done))

    def said(self, step: Progress) -> str:
        """`1,200 of 5,000 chips, 34.5 chips/s, 1 min 50 s left`."""
        if not step.done and not step.total:
            return ""
        if step.unit == "bytes":
            text = f"{size(step.done)} of {size(step.total)}" if step.total else size(step.done)
        else:
            text = f"{step.done:,}" + (f" of {step.total:,}" if step.total else "") + f" {step.unit}"
        since, before = self.begun[step.stage]
        seconds, done = time.monotonic() - since, step.done - before
        if step.unit not in _RATED or done <= 0 or seconds <= 0:
            return text
        rate = done / seconds
        text += (
            f", {size(rate)}/s"
            if step.unit == "bytes"
            else f", {rate:,.0f} chips/s"
            if rate >= 100
            else (f", {rate:.3g} chips/s")
        )
        return text + (f", {duration(round((step.total - step.done) / rate))} left" if step.total > step.done else "")


@dataclass
class Drawing:
    """A report that draws bars."""

    bars: Bars
    _tasks: dict[str, TaskID] = field(default_factory=dict)
    _speeds: _Speeds = field(default_factory=_Speeds)

    def __call__(self, step: Progress) -> None:
        """Draw one step."""
        self._speeds.see(step)
        if step.stage not in self._tasks:
            self._tasks[step.stage] = self.bars.add_task(step.stage, message="", said="")
        self.bars.update(
            self._tasks[step.stage],
            completed=step.done,
            total=step.total or None,
            said=self._speeds.said(step),
            message=step.message,
        )
