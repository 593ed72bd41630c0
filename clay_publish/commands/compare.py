"""`diff`: what changed from one version to the next, and how far that is."""

from typing import Annotated

import typer

from clay_publish.commands.options import Json


def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Directory or address of the older version.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Directory or address of the newer version.")],
    tolerance: Annotated[
        float, typer.Option(min=0, help="How far a vector may move, as a share of its length, and still be the same.")
    ] = 1e-3,
    json: Json = False,
) -> None:
    """Tell what changed between two versions of a release, and which step of the version number it asks for."""
    from clay_publish.cards.compare import compare
    from clay_publish.commands.screen import Screen
    from clay_publish.release import Release
    from clay_publish.versions import Version

    found = compare(Release(old), Release(new), tolerance)
    enough = Version.parse(found.old).smallest_after(found.step)
    lines = [f"{found.old} → {found.new}", *(f"  {line}" for line in found.lines())]
    lines.append(f"A {found.step} step: {found.because}. At least {enough}.")
    screen = Screen(quiet=True, as_json=json)
    screen.result("\n".join(lines), {**found.model_dump(mode="json"), "at_least": str(enough)})
