"""A Ray cluster, for the stages that can run on one: the one that `RAY_ADDRESS` names, or one of this machine."""

import io
import logging
import math
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from typing import Any

import ray

from clay_publish.errors import ReleaseError
from clay_publish.spec.models import Running

_OBJECTS = 100_000_000
"""Bytes for what passes between processes: units and receipts, which are small. Imagery and vectors never do."""


@dataclass(frozen=True)
class Means:
    """What the workers of a run are given."""

    workers: int
    cpus: float
    gpus: float
    where: str
    """The cluster, as a person would name it."""


@contextmanager
def cluster(asked: Running) -> Iterator[Means]:
    """Be connected to the cluster that `RAY_ADDRESS` names; without one, to one of this machine and process.

    Raises:
        ReleaseError: the cluster does not answer.
    """
    if ray.is_initialized():
        yield _means(asked, "the cluster that this process is connected to")
        return
    address = os.environ.get("RAY_ADDRESS", "local")
    if address == "local":
        _start(asked)
    else:
        _connect(address)
    try:
        yield _means(asked, "this machine" if address == "local" else f"the cluster at {address}")
    finally:
        if address != "local":  # Ray cannot start a second one with its token: the one of this machine serves all
            ray.shutdown()


def _connect(address: str) -> None:
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError) as error:
        raise ReleaseError(
            f"RAY_ADDRESS {address}",
            f"does not answer ({error})",
            "a running cluster",
            "`ray start --head` begins one. Where it asks for a token, RAY_AUTH_MODE=token has to be set here as well.",
        ) from error


def _start(asked: Running) -> None:
    _init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil((asked.workers or 1) * asked.cpus_per_worker)),
        object_store_memory=_OBJECTS,
        include_dashboard=False,
    )


def _init(**settings: Any) -> None:
    """Initialize Ray from the root folder.

    Ray puts the current folder first on its workers' `sys.path`, where a folder named like an installed package hides
    it. A checkout of this project has one: `clay_publish/`, without the stages. Ray also takes SIGTERM for itself.
    """
    ended_by = signal.getsignal(signal.SIGTERM)
    with chdir(os.sep):
        ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **settings)
    if current_thread() is main_thread():
        signal.signal(signal.SIGTERM, ended_by)


def _means(asked: Running, where: str) -> Means:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    gpus = asked.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if any(node.get("GPU", 0) for node in nodes) else 0.0
    room = sum(_room(node, asked.cpus_per_worker, gpus) for node in nodes)
    return Means(asked.workers or max(1, room), asked.cpus_per_worker, gpus, where)


def _room(node: Mapping[str, float], cpus: float, gpus: float) -> int:
    by_cpu = math.floor(node.get("CPU", 0) / cpus + 1e-6)
    return by_cpu if not gpus else min(by_cpu, math.floor(node.get("GPU", 0) / gpus + 1e-6))


class RayMessages(io.TextIOBase):
    """Passes what Ray prints on to standard error, but for its count of retries, which is not that of units."""

    _dropped = False

    def write(self, text: str, /) -> int:
        """Pass a text on, and return its length."""
        if "retries remaining" in text:
            self._dropped = True
        elif self._dropped and text == "\n":  # `print` writes the end of a line by itself
            self._dropped = False
        else:
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush standard error."""
        sys.stderr.flush()
