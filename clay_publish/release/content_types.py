"""Media types of the files of a release, as hosts and servers state them."""

import mimetypes

_TYPES = {
    ".parquet": "application/vnd.apache.parquet",
    ".pmtiles": "application/vnd.pmtiles",
    ".geojson": "application/geo+json",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".cff": "text/yaml; charset=utf-8",
    ".yaml": "text/yaml; charset=utf-8",
    ".bin": "application/octet-stream",
}


def content_type(path: str) -> str:
    """Return the media type of a file by the ending of its name; text for names without a known one."""
    ending = path[path.rfind(".") :] if "." in path else ""
    return _TYPES.get(ending) or mimetypes.guess_type(path)[0] or "text/plain; charset=utf-8"
