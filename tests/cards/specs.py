"""Change the spec of a release that was made already."""

from pathlib import Path

import yaml

from clay_publish.spec.load import dump_spec


def respecify(folder: Path, **keys: object) -> None:
    """Set keys of a release's spec."""
    spec = yaml.safe_load((folder / "release.yaml").read_text())
    (folder / "release.yaml").write_text(dump_spec({**spec, **keys}))
