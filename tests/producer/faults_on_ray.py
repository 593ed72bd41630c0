"""Faults in the processes of a cluster: put on Python's path as `sitecustomize`, they are there before the program is.

Files in the folder $FAULTS say what happens where an image is read: `kill-ID` ends the process, each time; `hold-ID`
keeps it there while the file exists, and `held-ID` names the process.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULE = "clay_publish.producer.layouts.scene_layout"


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the module of the layout be loaded as ever, and then puts the faults in."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - of Python's own
        target: ModuleType | None = None,  # noqa: ARG002 - of Python's own
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            module.read_scene = _faulty(module.read_scene)  # type: ignore[attr-defined]

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _faulty(read: Any) -> Any:
    folder = Path(os.environ["FAULTS"])

    def read_scene(item: Any, *arguments: Any) -> Any:
        if (folder / f"kill-{item.id}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (folder / f"hold-{item.id}").exists():
            (folder / f"held-{item.id}").write_text(str(os.getpid()))
        while (folder / f"hold-{item.id}").exists():
            time.sleep(0.01)
        return read(item, *arguments)

    return read_scene


if __name__ == "sitecustomize":
    import importlib.util

    sys.meta_path.insert(0, _Finder())
