"""`sensors` and `sensor-stats`: the kinds of imagery that the package knows, and the statistics of others."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clay_publish.cli.console import Json, Quiet, Screen, SetKey, SpecFile

if TYPE_CHECKING:
    from clay_publish.producer.imagery.band_statistics import Measured
    from clay_publish.spec.sensors import Sensor


def sensors(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Print the definition of this sensor.")] = None,
    json: Json = False,
) -> None:
    """List the sensors, or print one as a definition that a spec can bring with `imagery.sensor: FILE`."""
    from clay_publish.spec.sensors import SENSORS, sensor

    screen = Screen(quiet=False, as_json=json)
    if key is not None:
        document = sensor(key).model_dump(mode="json", exclude_defaults=True)
        screen.result(_yaml(sensor(key)), document)
        return
    width = max(len(name) for name in SENSORS)
    lines = [
        f"{name:{width}}  {each.gsd:>5g} m  {len(each.bands):>2} bands  {each.title}"
        + (" (statistics computed)" if each.statistics.computed else "")
        for name, each in SENSORS.items()
    ]
    documents = {name: each.model_dump(mode="json", exclude_defaults=True) for name, each in SENSORS.items()}
    screen.result("\n".join(lines), documents)


def sensor_stats(
    spec: SpecFile = Path("release.yaml"),
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The sensor definition to write; default: print it.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Key of the new sensor; default: the spec's, with `-measured`.")
    ] = None,
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="Its title; default: that of the sensor.")] = None,
    images: Annotated[int, typer.Option(metavar="N", min=1, help="Images to read, spread over all.")] = 50,
    windows: Annotated[int, typer.Option(metavar="N", min=1, help="Windows of 512 × 512 pixels of each image.")] = 16,
    overrides: SetKey = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute means and standard deviations from the images of a spec, and write them as a sensor definition.

    Pixels without data and under cloud do not count. The sensor that the spec names gives the bands and all else.
    """
    from clay_publish.errors import SpecError, require_extra
    from clay_publish.spec.load import load_spec
    from clay_publish.spec.sensors import SENSORS

    require_extra("produce", "Reading imagery")
    from clay_publish.producer.imagery.band_statistics import measure
    from clay_publish.producer.sources.selection import sample_of

    screen, asked = Screen(quiet=quiet, as_json=json), load_spec(spec, overrides or ())
    base = asked.instrument
    name = key or f"{base.key.removesuffix('-measured')}-measured"
    if name in SENSORS:
        raise SpecError("--key", f"{name!r} belongs to a sensor of the package", "another key")
    with screen.progress() as report:
        found = measure(sample_of(asked, images), base, windows=windows, report=report)
    made = found.sensor(base, name, title, _source(found))
    text = _yaml(made)
    if out is not None:
        out.write_text(f"{text}\n", encoding="utf-8")
    document = {
        "sensor": made.model_dump(mode="json", exclude_defaults=True),
        "images": found.images,
        "left_out": found.left_out,
        "pixels": found.pixels,
        "cloudy": found.cloudy,
        "not_cloud_checked": found.unchecked,
    }
    screen.result("\n".join(_report(found, text if out is None else f"written to {out}")), document)


def _source(found: "Measured") -> str:
    from clay_publish import __version__

    checked = f"; {found.unchecked:,} images not cloud-checked" if found.unchecked else ""
    return (
        f"{found.pixels:,} valid pixels of {len(found.images):,} images, such as {found.images[0]}{checked};"
        f" computed by clay-publish {__version__} sensor-stats"
        if found.images
        else "no image"
    )


def _report(found: "Measured", last: str) -> list[str]:
    lines = [f"# {len(found.images):,} images, {found.pixels:,} valid pixels, {found.cloudy:,} under cloud left out"]
    if found.unchecked:
        lines.append(f"# warning: {found.unchecked:,} images have no cloud mask: clouds may count as ground")
    lines += [f"# left out: {reason}" for reason in list(found.left_out.values())[:10]]
    if len(found.left_out) > 10:
        lines.append(f"# … and {len(found.left_out) - 10:,} more images left out")
    return [*lines, last]


def _yaml(definition: "Sensor") -> str:
    import yaml

    document = definition.model_dump(mode="json", exclude_defaults=True)
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110).rstrip()
