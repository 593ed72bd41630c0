"""Ways to break what release format 2 promises."""

from breakage import Broken, mutation

# Measurements


@mutation("PRV014", "a run.json that is none")
def measurements_that_are_none(broken: Broken) -> None:
    broken.json("run.json", lambda run: run.update(seconds="long"))


@mutation("PRV014", "seconds in the manifest", settle=False)
def seconds_in_the_manifest(broken: Broken) -> None:
    broken.json("manifest.json", lambda m: m["run"].update(seconds=12.5))


@mutation("PRV014", "energy in the footer of an embeddings file")
def energy_in_a_footer(broken: Broken) -> None:
    broken.footer(broken.data, "emb", lambda emb: emb.update({"emb:energy": {"device_type": "cpu"}}))


@mutation("PRV014", "a checksum of run.json in the Collection")
def a_checksum_of_measurements(broken: Broken) -> None:
    broken.json("collection.json", lambda c: c["assets"]["run"].update({"file:size": 1}))


@mutation("INT010", "a release without run.json", also="DOC STC PRV014")
def no_measurements(broken: Broken) -> None:
    (broken.folder / "run.json").unlink()


# Dates


@mutation("DOC017", "a citation of another day than the spec's")
def a_citation_of_another_day(broken: Broken) -> None:
    broken.yaml("CITATION.cff", lambda cited: cited.update({"date-released": "2001-01-01"}))


@mutation("DOC017", "a DataCite document of another day")
def datacite_of_another_day(broken: Broken) -> None:
    broken.json("datacite.json", lambda d: d["dates"][0].update(date="2001-01-01"))


@mutation("DOC017", "a changelog that names another day")
def a_changelog_of_another_day(broken: Broken) -> None:
    day = str(broken.release.spec().released)
    broken.text("CHANGELOG.md", day, "2001-01-01")


@mutation("DOC017", "a spec without the day of the release")
def a_spec_without_its_day(broken: Broken) -> None:
    broken.yaml("release.yaml", lambda spec: spec.pop("released"))
