"""Ways to break the explorer."""

from breakage import Broken, mutation


def _tiles(broken: Broken) -> str:
    return next(str(p.parent.relative_to(broken.folder)) for p in broken.folder.glob("explore/tiles/*/*.pmtiles"))


@mutation("EXP001", "a summary that counts more chips than there are", base="full")
def a_summary_of_more_chips(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d["chips"].update(count=d["chips"]["count"] + 1))


@mutation("EXP001", "a summary that does not tell of missing chips", base="mapped")
def a_summary_without_gaps(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d["coverage"].update(missing={}))


@mutation("EXP001", "a summary of another license", base="full")
def a_summary_of_another_license(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d["license"].update(id="MIT", name="MIT License"))


@mutation("EXP001", "a summary without the coverage files, in which missing chips are looked up", base="mapped")
def a_summary_without_coverage_files(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d.update(coverage_files=[]))


@mutation("EXP001", "a window of the summary with a chip more than were embedded", base="full")
def a_summary_of_a_fuller_window(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d["windows"][0].update(embedded=d["windows"][0]["embedded"] + 1))


@mutation("EXP001", "a summary that counts a window more than the coverage has", base="full")
def a_summary_of_more_windows(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d.update(more_windows=1))


@mutation("EXP001", "a summary whose box is 1° off", base="full")
def a_summary_of_a_moved_box(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d.update(bbox=[side - 1 for side in d["bbox"]]))


@mutation("EXP001", "files of an explorer that the spec does not ask for", base="small")
def an_explorer_that_is_not_asked_for(broken: Broken) -> None:
    (broken.folder / "explore").mkdir()
    (broken.folder / "explore/release.json").write_text("{}")


@mutation("EXP002", "an index without the only file", base="full")
def an_index_without_a_file(broken: Broken) -> None:
    broken.change("explore/files.parquet", lambda table: table.slice(0, 0))


@mutation("EXP002", "an index whose box is 1° off", base="full")
def an_index_with_a_moved_box(broken: Broken) -> None:
    broken.column("xmin", lambda values: [value - 1 for value in values], "explore/files.parquet")


@mutation("EXP003", "the overview of another layer in the place of one", base="full")
def an_overview_of_another_layer(broken: Broken) -> None:
    tiles = _tiles(broken)
    data = (broken.folder / tiles / "date.pmtiles").read_bytes()
    (broken.folder / tiles / "coverage.pmtiles").write_bytes(data)


@mutation("EXP003", "components drawn with the axes in another order", base="full")
def components_of_other_axes(broken: Broken) -> None:
    broken.json(
        "explore/basis.json", lambda d: d.update(axes=d["axes"][::-1], low=d["low"][::-1], high=d["high"][::-1])
    )


@mutation("EXP003", "an overview cut short", base="full")
def an_overview_cut_short(broken: Broken) -> None:
    file = broken.folder / _tiles(broken) / "components.pmtiles"
    file.write_bytes(file.read_bytes()[:60])


@mutation("EXP003", "an overview that the summary does not name", base="full")
def an_overview_too_many(broken: Broken) -> None:
    tiles = _tiles(broken)
    data = (broken.folder / tiles / "coverage.pmtiles").read_bytes()
    (broken.folder / tiles / "secret.pmtiles").write_bytes(data)


@mutation("EXP001", "a summary that leads to another model", base="full")
def a_summary_of_another_model(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d["model"].update(href="https://example.org/model"))


@mutation("EXP001", "a summary that leads to the text of another license", base="full")
def a_summary_of_another_license_text(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d["license"].update(href="https://example.org/license"))


@mutation("DOC021", "a summary with another citation", base="full")
def a_summary_of_another_citation(broken: Broken) -> None:
    broken.json("explore/release.json", lambda d: d.update(citation="@misc{others}"))


@mutation("DOC021", "another heading on the explorer's page", base="full")
def a_page_of_another_heading(broken: Broken) -> None:
    broken.text("explore/index.html", "Release explorer</h1>", "Other data</h1>")


@mutation("DOC021", "a line more in the explorer's script", base="full")
def a_longer_script(broken: Broken) -> None:
    file = broken.folder / "explore" / "explorer.js"
    file.write_text(f"{file.read_text()}fetch('https://example.org');\n")


@mutation("DOC021", "another map of land in the explorer", base="full")
def other_land(broken: Broken) -> None:
    file = broken.folder / "explore" / "land.bin"
    file.write_bytes(file.read_bytes()[::-1])


@mutation("EXP004", "the explorer's script is missing", base="full")
def an_explorer_without_script(broken: Broken) -> None:
    (broken.folder / "explore" / "explorer.js").unlink()


@mutation("EXP004", "the explorer's page runs a script from elsewhere", base="full")
def a_script_from_elsewhere(broken: Broken) -> None:
    broken.text("explore/index.html", "./explorer.js", "https://example.org/explorer.js")


@mutation("EXP004", "the explorer's page runs a script of its own", base="full")
def a_script_in_the_page(broken: Broken) -> None:
    broken.text("explore/index.html", "</head>", "<script>fetch('//example.org')</script></head>")


@mutation("EXP004", "the explorer's page leads elsewhere", base="full")
def a_page_that_leads_elsewhere(broken: Broken) -> None:
    broken.text("explore/index.html", "https://maplibre.org/", "https://example.org/")


@mutation("EXP004", "the explorer's page without a policy", base="full")
def a_page_without_policy(broken: Broken) -> None:
    broken.text("explore/index.html", "Content-Security-Policy", "refresh")


@mutation("EXP004", "a script that only browsers see, in what else would be a comment", base="full")
def a_script_in_a_comment(broken: Broken) -> None:
    broken.text("explore/index.html", "</head>", "<!--><script src='//example.org/more.js'></script>--></head>")


@mutation("EXP004", "a script that does not belong to the explorer", base="full")
def a_script_too_many(broken: Broken) -> None:
    (broken.folder / "explore" / "more.js").write_text("fetch('https://example.org')")


@mutation("EXP004", "a Space that shows another release", base="full")
def a_space_of_another_release(broken: Broken) -> None:
    page = (broken.folder / "explore" / "index.html").read_text()
    space = broken.folder / "hosts" / "huggingface-space"
    space.mkdir(parents=True)
    (space / "index.html").write_text(page.replace('content=".."', 'content="https://example.org/release"'))
