"""Judging in a process of its own, which may not take more than so much memory and processor time for a release."""

import json
import os
import re
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any, Self

from clay_publish.release.findings import ValidationReport

MEMORY = 1 << 30
"""Bytes."""
SECONDS = 60
"""Of processor time, for each release."""
_HANGS = 300
"""Seconds after which a judge that takes no processor time either has hung."""


class Judge:
    """Judges one release after the other, as `clay-publish validate` with all reports does."""

    _process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        return self._process

    def __call__(self, where: str | Path, **options: Any) -> ValidationReport | str:
        """The verdict, or the message of the error that says why there is none."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        hung = Timer(_HANGS, process.kill)
        hung.start()
        try:
            process.stdin.write(json.dumps([str(where), options]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        finally:
            hung.cancel()
        if not answer:
            _, said = process.communicate()
            raise AssertionError(f"ended with {process.returncode}: {said[-4000:]}")
        told = json.loads(answer)
        assert told["peak"] < MEMORY, f"{told['peak']:,} bytes"
        return ValidationReport.model_validate(told["report"]) if "report" in told else str(told["error"])


def _answer(where: str, options: dict[str, Any]) -> dict[str, Any]:
    from clay_publish.errors import ClayPublishError
    from clay_publish.release.directory import Release
    from clay_publish.validate import all_rules, reports, validate

    with suppress(OSError):  # where the kernel does not forget the highest mark, it is that of all releases so far
        Path("/proc/self/clear_refs").write_text("5")
    used = resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + SECONDS, resource.RLIM_INFINITY))
    try:
        report = validate(Release(where), **options)
    except ClayPublishError as error:
        told: dict[str, Any] = {"error": str(error)}
    else:
        for write in (reports.html, reports.junit, reports.sarif):
            write(report, all_rules()).encode()
        told = {"report": report.model_dump(mode="json")}
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return {**told, "peak": int(peak[1]) * 1024}


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(*json.loads(line))) + "\n")
        sys.stdout.flush()
