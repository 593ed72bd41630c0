"""Faults in the processes of a cluster: put on Python's path as `sitecustomize`, they are there before the program is.

Files in the folder $FAULTS say what happens where an image is read: `kill-ID` ends the process, each time; `hold-ID`
keeps it there while the file exists. `kill-scan` names the signal that ends, once, the process that is about to keep
what it saw in its second embeddings file; `hold-scan` keeps it there. Each `leave-scan-N` sends SIGTERM, once, to a
process that is about to keep what it saw. `kill-shard` ends, once, the process that is
about to assemble a shard. `hold-TOKEN` keeps a process in the middle of writing the embeddings file of that name. Each
process that is kept says so in a file of its own, `held-NAME-PID`.
"""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any


class _Finder(importlib.abc.MetaPathFinder):
    """Lets a module be loaded as ever, and then puts the faults in."""

    def __init__(self, module: str, put: Callable[[Any], None]) -> None:
        self._module, self._put = module, put

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - of Python's own
        target: ModuleType | None = None,  # noqa: ARG002 - of Python's own
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def load_and_change(module: ModuleType) -> None:
            load(module)
            self._put(module)

        spec.loader.exec_module = load_and_change  # type: ignore[method-assign]
        return spec


def _hold(folder: Path, name: str) -> None:
    fault = folder / f"hold-{name}"
    if fault.exists():
        (folder / f"held-{name}-{os.getpid()}").touch()
    while fault.exists():
        time.sleep(0.01)


def _fault_in_scenes(module: Any) -> None:
    folder, read = Path(os.environ["FAULTS"]), module.read_scene

    def read_scene(item: Any, *arguments: Any) -> Any:
        if (folder / f"kill-{item.id}").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        _hold(folder, item.id)
        return read(item, *arguments)

    module.read_scene = read_scene


def _fault_in_files(module: Any) -> None:
    folder, publish = Path(os.environ["FAULTS"]), module.publish_file

    def publish_file(release: Any, file: Any, *arguments: Any) -> Any:
        if (folder / f"hold-{file.token}").exists():
            with suppress(LookupError), release.store.writer(f"embeddings/{file.name}") as writer:
                writer.write(b"half")
                writer.flush()
                _hold(folder, file.token)
                raise LookupError  # what is written is thrown away
        return publish(release, file, *arguments)

    module.publish_file = publish_file


def _fault_in_shards(module: Any) -> None:
    fault, assemble = Path(os.environ["FAULTS"]) / "kill-shard", module.ArrayWriter.assemble

    def assemble_or_end(self: Any, ready: Any) -> Any:
        if fault.exists():
            fault.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return assemble(self, ready)

    module.ArrayWriter.assemble = assemble_or_end


def _fault_in_scans(module: Any) -> None:
    folder, write, kept = Path(os.environ["FAULTS"]), module.Store.write, []

    def write_or_end(self: Any, path: str, data: Any) -> None:
        kept.append(path)
        for fault in folder.glob("leave-scan-*"):
            with suppress(FileNotFoundError):
                fault.unlink()
                os.kill(os.getpid(), signal.SIGTERM)
                break
        if len(kept) > 1:
            with suppress(FileNotFoundError):  # of several processes one can
                said = (folder / "kill-scan").rename(folder / "killed-scan")
                os.kill(os.getpid(), int(said.read_text()))
            _hold(folder, "scan")
        write(self, path, data)

    module.Store.write = write_or_end


if __name__ == "sitecustomize":
    import importlib.util

    sys.meta_path.insert(0, _Finder("clay_publish.producer.layouts.scene_layout", _fault_in_scenes))
    sys.meta_path.insert(0, _Finder("clay_publish.producer.execution.run", _fault_in_files))
    sys.meta_path.insert(0, _Finder("clay_publish.producer.outputs.arrays.write", _fault_in_shards))
    sys.meta_path.insert(0, _Finder("clay_publish.validate.shares", _fault_in_scans))
