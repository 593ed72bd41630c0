"""The cluster a run is made on: the one that is there, or one of this machine that ends with the run."""

import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from clay_publish.errors import ReleaseError
from clay_publish.spec import Running

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when Ray is imported: it would report its use

import ray

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
    """Be connected to a cluster; what this starts it also ends.

    Where `RAY_ADDRESS` names one, or a node of one runs on this machine (`ray start`), that is taken. Otherwise one of
    this machine alone is started, which listens on loopback only.

    Raises:
        ReleaseError: the cluster that RAY_ADDRESS names does not answer.
    """
    if ray.is_initialized():
        yield _means(asked, "the cluster that this process is connected to")
        return
    where = _connect() or _start(asked)
    try:
        yield _means(asked, where)
    finally:
        ray.shutdown()


def _connect() -> str | None:
    address = os.environ.get("RAY_ADDRESS")
    if address == "local":
        return None
    try:
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError) as error:
        if address is None:
            return None
        raise ReleaseError(
            f"RAY_ADDRESS {address}",
            f"does not answer ({error})",
            "a running cluster",
            "`ray start --head` begins one.",
        ) from error
    return f"the cluster at {address or ray.get_runtime_context().gcs_address}"


def _start(asked: Running) -> str:
    cores = os.cpu_count() or 1
    ray.init(
        address="local",
        num_cpus=max(cores, math.ceil((asked.workers or 1) * asked.cpus_per_worker)),
        object_store_memory=_OBJECTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _node_ip_address="127.0.0.1",
    )
    return "this machine"


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
