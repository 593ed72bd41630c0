"""Optional dependencies: which extra brings which module."""

from importlib.util import find_spec

from clay_publish.errors import MissingExtraError

MODULES: dict[str, tuple[str, ...]] = {
    "produce": ("cql2", "pystac_client", "rasterio", "torch"),
    "ray": ("ray",),
    "s3": ("boto3",),
    "serve": ("cql2", "stac_fastapi", "uvicorn"),
}


def require_extra(extra: str, what: str) -> None:
    """Check that an extra is installed, before the work that needs it begins.

    Raises:
        MissingExtraError: one of its modules cannot be found; names the extra and how to get it.
    """
    missing = [module for module in MODULES[extra] if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingExtraError(
            what,
            f"needs {' and '.join(missing)}, which {verb} not installed",
            fix=f"pip install 'clay-publish[{extra}]'",
        )
