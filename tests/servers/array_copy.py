"""Arrays for a release that has none."""

from pathlib import Path

import yaml

from clay_publish.producer.encoders import load_encoder
from clay_publish.producer.outputs.arrays.write import write_arrays
from clay_publish.release.directory import Release


def add_arrays(where: Path, dtype: str = "int8") -> Release:
    """Write the arrays of a release of the sample, whose image's day is the only time step."""
    document = yaml.safe_load((where / "release.yaml").read_text())
    document["imagery"][0]["windows"] = ["2016-01-12/2016-01-13"]
    document["outputs"]["arrays"] = {"dtype": dtype}
    (where / "release.yaml").write_text(yaml.safe_dump(document))
    release = Release(str(where))
    spec = release.spec()
    write_arrays(release, spec, release.fingerprint(), load_encoder(spec, spec.instrument), [])
    return release


def arrays_below(where: Path) -> dict[str, bytes]:
    """The files of the arrays of a release."""
    folder = where / "arrays"
    return {path.relative_to(where).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
