"""A release as the rules see it: everything is read when a rule first asks, and once."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml

from clay_publish import release as paths
from clay_publish.errors import ReleaseError, StoreError
from clay_publish.fingerprint import Fingerprint
from clay_publish.manifest import Manifest, read_manifest
from clay_publish.progress import Report
from clay_publish.release import EMBEDDINGS, SPEC, DataFile, Release
from clay_publish.spec import Spec
from clay_publish.store import is_url
from clay_publish.validate.bitmaps import Summary
from clay_publish.validate.cells import Grid, scene_grid, stretch, utm_grid
from clay_publish.validate.chips import Chips
from clay_publish.validate.expected import layers
from clay_publish.validate.rules import Rule
from clay_publish.validate.scan import Scan, digest, scan
from clay_publish.validate.sources import Sources, read_sources


class View:
    """Reads of one release, each done once. Attributes raise `ReleaseError` where the release does not have them."""

    def __init__(self, release: Release, rules: Sequence[Rule], sample: int, report: Report) -> None:
        self.release = release
        self.sample = sample
        """Rows that the costly checks look at, at most."""
        self.report = report
        self._row_rules = [r for r in rules if r.rows is not None]

    @cached_property
    def files(self) -> list[str]:
        """Every file of the release, but the ones of the run."""
        return [p for p in self.release.store.files() if not p.startswith(f"{paths.RUN}/")]

    @cached_property
    def embeddings(self) -> list[str]:
        """The embeddings files that can be opened at all."""
        return [p for p in self.data_paths if p not in self.unreadable]

    @cached_property
    def data_paths(self) -> list[str]:
        """Every file below `embeddings/` that calls itself Parquet."""
        return [p for p in self.files if p.startswith(f"{paths.EMBEDDINGS}/") and p.endswith(".parquet")]

    @cached_property
    def parquet_paths(self) -> list[str]:
        """Every file that calls itself Parquet."""
        return [p for p in self.files if p.endswith(".parquet")]

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """Parquet files that cannot be opened, and why."""
        return {path: error for path in self.parquet_paths if (error := self._opens(path)) is not None}

    def _opens(self, path: str) -> str | None:
        try:
            self.metadata[path] = self.release.parquet(path).metadata
        except ReleaseError as error:
            return error.found
        return None

    @cached_property
    def metadata(self) -> dict[str, pq.FileMetaData]:
        """Footers of the Parquet files that could be opened."""
        return {}

    def footer_of(self, path: str) -> pq.FileMetaData:
        """The footer of a Parquet file.

        Raises:
            ReleaseError: missing or unreadable.
        """
        if path in self.unreadable:
            raise ReleaseError(path, self.unreadable[path])
        if path not in self.metadata:
            raise ReleaseError(path, "does not exist")
        return self.metadata[path]

    def schema_of(self, path: str) -> pa.Schema:
        """The Arrow schema of a Parquet file, without its footer keys."""
        return self.footer_of(path).schema.to_arrow_schema().remove_metadata()

    @cached_property
    def footers(self) -> dict[str, dict[str, Any]]:
        """The footer keys of each embeddings file; those that are no JSON object are left out."""
        return {path: self._footer(path) for path in self.embeddings}

    def _footer(self, path: str) -> dict[str, Any]:
        try:
            return {k: v for k, v in self.release.footer(path).items() if isinstance(v, dict)}
        except ReleaseError:  # SCH004 says so
            return {}

    @cached_property
    def spec(self) -> Spec:
        """`release.yaml`."""
        return self.release.spec()

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """What decided the vectors, from the first embeddings file that says so."""
        for path, footer in self.footers.items():
            decided = footer.get("emb", {}).get("embrel:decided_by")
            if decided is not None:
                try:
                    return Fingerprint.model_validate(decided)
                except ValueError as error:
                    raise ReleaseError(path, "has no complete fingerprint in its footer") from error
        raise ReleaseError(paths.EMBEDDINGS, "holds no file whose footer says what decided the vectors")

    @cached_property
    def manifest(self) -> Manifest:
        """`manifest.json`."""
        return read_manifest(self.release)

    @cached_property
    def collection(self) -> dict[str, Any]:
        """`collection.json`."""
        return self.release.json(paths.COLLECTION)

    @cached_property
    def sources(self) -> Sources:
        """`sources.parquet`."""
        return read_sources(self.table(paths.SOURCES))

    @cached_property
    def source_ids(self) -> pa.Array:
        """Ids of the source items; a chip's item is told by its place in here."""
        return pa.array(list(self.sources.by_id), pa.string())

    def item_places(self, chips: Chips) -> npt.NDArray[np.int32]:
        """Place of each chip's item among the sources; −1 where it is not there."""

        def find() -> npt.NDArray[np.int32]:
            found = pc.index_in(pc.cast(chips.column("item_id"), pa.string()), value_set=self.source_ids)
            return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int32)

        places: npt.NDArray[np.int32] = chips.once("item places", find)
        return places

    @cached_property
    def outlines(self) -> list[Any]:
        """Footprint of each source item, by its place; None where it is not told."""
        return [self.sources.geometry(source) for source in self.sources.by_id.values()]

    @cached_property
    def scene_grids(self) -> list[Grid | ReleaseError]:
        """Chip grid of each source item, by its place."""
        made: list[Grid | ReleaseError] = []
        for source in self.sources.by_id.values():
            try:
                made.append(scene_grid(source, self.fingerprint.size))
            except ReleaseError as error:
                made.append(error)
        return made

    def grids(self, chips: Chips) -> Iterator[tuple[Grid, npt.NDArray[np.int64]]]:
        """The grids in which a batch's chips are numbered, and the rows of each.

        Raises:
            ReleaseError: what the grid is made of is not told.
        """
        if self.fingerprint.layout == "utm":
            codes = chips.integers("epsg")
            for code in np.unique(codes).tolist():
                yield utm_grid(code, self.fingerprint), np.flatnonzero(codes == code)
            return
        places = self.item_places(chips)
        for place in np.unique(places[places >= 0]).tolist():
            grid = self.scene_grids[place]
            if isinstance(grid, ReleaseError):
                raise grid
            yield grid, np.flatnonzero(places == place)

    @cached_property
    def layers(self) -> list[Summary]:
        """Expected, present and described cells."""
        return list(layers(self))

    @cached_property
    def usual_side(self) -> float:
        """Metres a chip's side is said to have on the ground."""
        for footer in self.footers.values():
            gsd = footer.get("emb", {}).get("gsd")
            if isinstance(gsd, int | float):
                return self.fingerprint.size * float(gsd)
        raise ReleaseError(EMBEDDINGS, "holds no file whose footer states the gsd")

    def stated_side(self, chips: Chips, size: float, gsd: float) -> npt.NDArray[np.float64]:
        """Metres a side of each chip should have; one gsd is stated for images whose pixels shrink with latitude."""
        side = np.full(len(chips), size * gsd)
        if self.fingerprint.layout == "utm":
            return side
        places = self.item_places(chips)
        for place in np.unique(places[places >= 0]).tolist():
            grid = self.scene_grids[place]
            kind = "none" if isinstance(grid, ReleaseError) else stretch(grid.crs)
            if kind != "none":
                rows = places == place
                ratio = np.cos(np.radians(chips.floats("lat")[rows])) / np.cos(np.radians(self.middle_latitude))
                side[rows] *= ratio if kind == "mercator" else np.sqrt(ratio)
        return side

    @cached_property
    def middle_latitude(self) -> float:
        """Of the used images' footprints, in degrees."""
        shapes = [self.sources.geometry(source) for source in self.sources.used]
        return float(np.median([shape.centroid.y for shape in shapes if shape is not None] or [0.0]))

    @cached_property
    def step(self) -> int:
        """Costly checks look at every so-manieth row of a file."""
        return max(1, -(-self.rows_told // max(self.sample, 1)))

    def sampled(self, chips: Chips) -> npt.NDArray[np.int64]:
        """Rows of a batch that costly checks look at."""
        return np.arange(-chips.start % self.step, len(chips), self.step)

    @cached_property
    def rows_told(self) -> int:
        """Chips in the release, as the footers of the files say."""
        return sum(self.footer_of(path).num_rows for path in self.embeddings)

    @cached_property
    def items(self) -> pa.Table:
        """`items.parquet`."""
        return self.table(paths.ITEMS)

    def table(self, path: str) -> pa.Table:
        """A whole small table, page checksums compared.

        Raises:
            ReleaseError: missing, unreadable, or damaged.
        """
        self.footer_of(path)
        try:
            return self.release.parquet(path, verify=True).read()
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, f"cannot be read ({error})") from error

    @cached_property
    def coverage_paths(self) -> list[str]:
        """The coverage files that can be opened.

        Raises:
            ReleaseError: there are none.
        """
        found = [p for p in self.metadata_paths if p.startswith(f"{paths.COVERAGE}/")]
        if not found:
            raise ReleaseError(paths.COVERAGE, "holds no coverage table")
        return found

    @cached_property
    def metadata_paths(self) -> list[str]:
        """The Parquet files that can be opened."""
        return [p for p in self.parquet_paths if p not in self.unreadable]

    @cached_property
    def data_files(self) -> dict[str, DataFile]:
        """Square and window of each embeddings file whose name gives them."""
        named = {}
        for path in self.embeddings:
            try:
                named[path] = DataFile.parse(path)
            except ReleaseError:  # SCH013 says so
                continue
        return named

    @cached_property
    def card(self) -> str:
        """The text of `README.md`."""
        return self.text(paths.CARD)

    @cached_property
    def front_matter(self) -> dict[str, Any]:
        """The YAML at the top of the card.

        Raises:
            ReleaseError: there is none, or it is no mapping.
        """
        lines = self.card.splitlines()
        if not lines or lines[0].strip() != "---" or "---" not in [line.strip() for line in lines[1:]]:
            raise ReleaseError(paths.CARD, "has no front matter between two lines `---`")
        end = [line.strip() for line in lines[1:]].index("---") + 1
        try:
            matter = yaml.safe_load("\n".join(lines[1:end]))
        except (yaml.YAMLError, RecursionError) as error:
            raise ReleaseError(paths.CARD, f"has front matter that is no YAML ({error})") from error
        if not isinstance(matter, dict):
            raise ReleaseError(paths.CARD, "has front matter that is no mapping")
        return matter

    @cached_property
    def citation(self) -> dict[str, Any]:
        """`CITATION.cff`."""
        return self.release.yaml(paths.CITATION)

    def text(self, path: str) -> str:
        """A text document.

        Raises:
            ReleaseError: missing or not UTF-8.
        """
        try:
            return self.release.store.read(path, paths.MAX_DOCUMENT).decode("utf-8")
        except StoreError as error:
            raise ReleaseError(path, error.found) from error
        except UnicodeDecodeError as error:
            raise ReleaseError(path, f"is not UTF-8 (byte {error.start})") from error

    @cached_property
    def digests(self) -> dict[str, str]:
        """SHA-256 of every file; the embeddings are hashed in the pass that reads them."""
        rest = [p for p in self.files if p not in self.embeddings]
        return self.scan.digests | {path: digest(self.release.store, path) for path in rest}

    def check_pages(self, path: str) -> None:
        """Read a whole Parquet file and throw it away.

        Raises:
            ReleaseError: a page does not match its checksum or cannot be decoded.
        """
        try:
            for _ in self.release.parquet(path, verify=True).iter_batches():
                pass
        except (pa.ArrowException, OSError) as error:
            raise ReleaseError(path, " ".join(str(error).split())) from error

    def value(self, column: str, row: int) -> Any:
        """One value of an embeddings file, by its row in the release."""
        path, place = self.scan.facts.place(row)
        file = self.release.parquet(path)
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if place < count:
                return file.read_row_group(group, columns=[column]).column(0)[place].as_py()
            place -= count
        raise ReleaseError(path, f"has no row {place}")

    def vectors_of(self, ids: set[str]) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
        """File, id and dequantized vector of the chips that have these ids; other rows' vectors are not decoded."""
        wanted = pa.array(sorted(ids), pa.string())
        for path in self.embeddings:
            file = self.release.parquet(path)
            columns = [name for name in ("embedding", "scale") if name in file.schema_arrow.names]
            for group in range(file.num_row_groups):
                mask = pc.is_in(file.read_row_group(group, columns=["id"]).column(0), value_set=wanted)
                if not pc.any(mask).as_py():
                    continue
                rows = file.read_row_group(group, columns=["id", *columns]).filter(mask).combine_chunks()
                for batch in rows.to_batches():
                    chips = Chips(path, 0, batch)
                    for row in range(len(chips)):
                        yield path, chips.value("id", row), chips.values(np.array([row]))[0].astype(np.float64)

    def some_vectors(self, most: int) -> Iterator[tuple[str, str, npt.NDArray[np.float64]]]:
        """File, id and vector of some chips, spread over the files."""
        share = max(1, most // max(len(self.embeddings), 1))
        for path in self.embeddings[:most]:
            for batch in self.release.parquet(path).iter_batches(share):
                chips = Chips(path, 0, batch)
                for row in range(len(chips)):
                    yield path, chips.value("id", row), chips.values(np.array([row]))[0].astype(np.float64)
                break

    @cached_property
    def previous(self) -> "View | None":
        """The version before, where the spec names one.

        Raises:
            ReleaseError: it is named and not to be found from here.
        """
        named = self.spec.previous
        if named is None:
            return None
        if not is_url(named):
            if not self.release.store.local:
                raise ReleaseError(SPEC, f"names the previous version {named!r} without its address")
            named = str(Path(self.release.store.where).parent / Path(named).name)
        view = View(Release(named), [], self.sample, self.report)
        if not view.data_paths:
            raise ReleaseError(named, "holds no embeddings of the previous version")
        return view

    @cached_property
    def scan(self) -> Scan:
        """The one pass over all embeddings files."""
        return scan(self, self._row_rules)
