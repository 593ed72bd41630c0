"""The text of a release's license."""

from importlib.resources import files

_NAMES = {
    "Apache-2.0": "Apache License 2.0",
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International",
    "CC-BY-NC-4.0": "Creative Commons Attribution-NonCommercial 4.0 International",
    "CC-BY-NC-SA-4.0": "Creative Commons Attribution-NonCommercial-ShareAlike 4.0 International",
    "CC-BY-SA-4.0": "Creative Commons Attribution-ShareAlike 4.0 International",
    "CC0-1.0": "Creative Commons Zero v1.0 Universal",
    "ODC-By-1.0": "Open Data Commons Attribution License v1.0",
    "ODbL-1.0": "Open Data Commons Open Database License v1.0",
    "PDDL-1.0": "Open Data Commons Public Domain Dedication & License 1.0",
}
"""SPDX identifier → name, of every license whose text lies in `licenses/`, as SPDX records it."""

_ON_THE_HUB = {
    "Apache-2.0": "apache-2.0",
    "CC-BY-4.0": "cc-by-4.0",
    "CC-BY-NC-4.0": "cc-by-nc-4.0",
    "CC-BY-NC-SA-4.0": "cc-by-nc-sa-4.0",
    "CC-BY-SA-4.0": "cc-by-sa-4.0",
    "CC0-1.0": "cc0-1.0",
    "ODC-By-1.0": "odc-by",
    "ODbL-1.0": "odbl",
    "PDDL-1.0": "pddl",
}


def name(spdx: str) -> str:
    """The license's full name, or its identifier where the name is not known here."""
    return _NAMES.get(spdx, spdx)


def address(spdx: str) -> str | None:
    """Where the license is recorded; None for a license that SPDX does not list."""
    return None if spdx.startswith("LicenseRef-") else f"https://spdx.org/licenses/{spdx}.html"


def on_the_hub(spdx: str) -> str | None:
    """What the Hub calls it; None where it has no name for it."""
    return _ON_THE_HUB.get(spdx)


def text(spdx: str) -> str:
    """The full text; for a license that is not shipped here, where it can be read."""
    if spdx in _NAMES:
        return files("clay_publish.cards").joinpath("licenses", f"{spdx}.txt").read_text(encoding="utf-8")
    where = address(spdx)
    place = f"Its text: {where}\n" if where else "Ask the creators of the data for its text.\n"
    return f"This dataset is licensed under {spdx}.\n\n{place}"
