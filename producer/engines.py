"""Which engines there are."""

from functools import partial

from clay_publish.extras import require_extra
from clay_publish.producer.engine import Engine
from clay_publish.producer.local_engine import in_threads
from clay_publish.spec import Running


def engine_of(means: Running) -> Engine:
    """The engine that a spec asks for.

    Raises:
        MissingExtraError: it is not installed.
    """
    if means.engine == "local":
        return in_threads
    require_extra("ray", "The engine `ray`")
    from clay_publish.producer.ray_engine import on_ray  # noqa: PLC0415 - Ray is imported by those who use it

    return partial(on_ray, means=means)
