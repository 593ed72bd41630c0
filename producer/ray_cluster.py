"""The cluster a run is made on: the one that is there, or one of this machine that ends with the run."""

import logging
import math
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from clay_publish.errors import ReleaseError
from clay_publish.spec import Running

# Read when Ray is imported: it would report its use; and what is started here lets nobody in who has not its token,
# which otherwise would be written into the home directory.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if os.environ.get("RAY_ADDRESS", "local") == "local":
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

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
    """Be connected to the cluster that `RAY_ADDRESS` names; without one, to one of this machine that ends with the run.

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
        ray.shutdown()


def _connect(address: str) -> None:
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError) as error:
        raise ReleaseError(
            f"RAY_ADDRESS {address}",
            f"does not answer ({error})",
            "a running cluster",
            "`ray start --head` begins one. Where it asks for a token, RAY_AUTH_MODE=token has to be set here as well.",
        ) from error


def _start(asked: Running) -> None:
    ray.init(
        address="local",
        num_cpus=max(os.cpu_count() or 1, math.ceil((asked.workers or 1) * asked.cpus_per_worker)),
        object_store_memory=_OBJECTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )


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
