"""`sensors`: the kinds of imagery that the package knows."""

from typing import Annotated

import typer

from clay_publish.cli.console import Json, Screen


def sensors(
    key: Annotated[str | None, typer.Argument(metavar="KEY", help="Print the definition of this sensor.")] = None,
    json: Json = False,
) -> None:
    """List the sensors, or print one as a definition that a spec can bring with `imagery.sensor: FILE`."""
    import yaml

    from clay_publish.spec.sensors import SENSORS, sensor

    screen = Screen(quiet=False, as_json=json)
    if key is not None:
        document = sensor(key).model_dump(mode="json", exclude_defaults=True)
        screen.result(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=110).rstrip(), document)
        return
    width = max(len(name) for name in SENSORS)
    lines = [
        f"{name:{width}}  {each.gsd:>5g} m  {len(each.bands):>2} bands  {each.title}"
        + (" (statistics computed)" if each.statistics.computed else "")
        for name, each in SENSORS.items()
    ]
    documents = {name: each.model_dump(mode="json", exclude_defaults=True) for name, each in SENSORS.items()}
    screen.result("\n".join(lines), documents)
