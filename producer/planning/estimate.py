"""What a run will be, before it runs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import shapely
from pydantic import BaseModel, ConfigDict

from clay_publish.errors import SourceError, SpecError
from clay_publish.formats import size as shown_size
from clay_publish.producer.layouts.base import Areas, Counts, SquareCount
from clay_publish.producer.planning.cost import Alternative, Rates, alternatives, bytes_to_read, stored_bytes
from clay_publish.producer.planning.observations import Observations, Seen, caveats, images_per_chip
from clay_publish.producer.planning.resolutions import Resolution, doubts, notes, resolutions
from clay_publish.producer.sources.item import SourceItem
from clay_publish.producer.sources.selection import Selection
from clay_publish.producer.unit_plan import Inputs
from clay_publish.release import directory as paths
from clay_publish.release.directory import MAX_JSON_ITEMS
from clay_publish.spec.models import Spec

FOLDER_LIMIT = 10_000
"""Files a folder may hold on the Hub."""
REPOSITORY_LIMIT = 100_000
"""Files a repository should stay below there."""


class WindowCount(BaseModel):
    """Chips of one window."""

    model_config = ConfigDict(frozen=True)

    window: str
    expected: int
    with_imagery: int
    no_imagery: int
    excluded: int


class Shares(BaseModel):
    """Where the time of a calibration went, as shares of its wall time; on a CPU, of that time on all its cores."""

    model_config = ConfigDict(frozen=True)

    reading: float
    """What is neither of the others: on a GPU, waiting for pixels, since reading that is done meanwhile costs nothing;
    on a CPU, decoding them too."""
    inference: float
    writing: float


class Comparison(BaseModel):
    """Images against those of the version before."""

    model_config = ConfigDict(frozen=True)

    previous: str
    new: int
    fixed: int
    """Excluded or unusable before, used now."""
    stays: int
    changed: int
    """Used before and now, with other content."""
    gone: int
    same_model: bool
    """Whether vectors of unchanged images are reused; with another model all are computed again."""


class Estimate(BaseModel):
    """The plan as it is printed and kept."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    layout: str
    size: int
    gsd: float
    """Meters; of the `scene` layout the sensor's."""
    encoder: str
    dimensions: int
    dtype: str
    patches: int
    """Of a chip, all layers together; 0: none."""
    images: dict[str, int]
    """`considered`, `used`, `unused`, `excluded`, `unusable`."""
    left_out: dict[str, int]
    """Unused and unusable images by reason."""
    resolutions: list[Resolution]
    """How bands, values, masks and product of the images are read."""
    tiles: int
    """Squares with chips."""
    square_km: int = 100
    """Side of a square."""
    files: int
    """Embeddings files."""
    output_files: dict[str, int]
    """Files of each output that grows with the ground and the windows, at most."""
    chips: dict[str, int]
    """`expected`, `with_imagery`, without by reason; `reused`: those with imagery whose rows are taken from the version
    before; `done`: those that earlier runs into the same directory have computed; `to_make`: the others with imagery,
    which a run computes."""
    windows: list[WindowCount]
    km2: dict[str, float]
    """`area` where the spec gives one; `expected` and `with_imagery` by the ground of the chips."""
    per_scene: int
    """Chips that cutting every image on its own would make."""
    bytes_to_read: int
    bytes_to_store: dict[str, int]
    """By dtype; with patches, where they are asked for."""
    images_per_chip: float = 1.0
    """Acquisitions that are read for a chip, on average."""
    observations: list[Observations] = []
    """Of composites and series, by window and step of time."""
    rates: Rates | None
    hours: float | None
    usd: float | None
    km2_per_usd: float | None
    shares: Shares | None = None
    spent_usd: float
    """By earlier runs into the same directory; it counts toward the budget."""
    budget_usd: float | None
    over_budget: bool
    device: str
    """On which the model runs here."""
    free_bytes: int | None
    """Free space where the release goes; None on an object store."""
    warnings: list[str]
    """What the reader should know before spending money."""
    alternatives: list[Alternative]
    comparison: Comparison | None = None


@dataclass(frozen=True)
class Done:
    """What a run does not compute, of the chips with imagery."""

    reused: int = 0
    """Those whose rows are taken from the version before."""
    computed: int = 0
    """Those that earlier runs into the same directory have computed."""
    seconds: float = 0.0
    """That these runs took for them."""


def estimate(
    inputs: Inputs,
    *,
    rates: Rates | None,
    shares: Shares | None = None,
    comparison: Comparison | None = None,
    done: Done = Done(),
    seen: Sequence[Seen] = (),
    free_bytes: int | None = None,
) -> tuple[Estimate, Counts]:
    """Count and price a run. No pixel is read.

    Args:
        inputs: what the spec leads to.
        rates: stated in the spec or measured; None where neither.
        shares: where the time went, if measured.
        comparison: with the version before.
        done: what is not computed, since it is there.
        seen: what composites or series are expected to see, or did by their masks.
        free_bytes: free space where the release goes; None where that is not known.

    Raises:
        SourceError: the spec asks for no chip at all.
        SpecError: the release would have more files than the Hub takes, and is to go there.
    """
    spec, encoder, areas, gsd, size = inputs.spec, inputs.encoder, inputs.areas, inputs.gsd, inputs.spec.chips.size
    counts = inputs.layout.count(inputs.selection.considered, areas)
    if not counts.expected:
        raise SourceError(
            "imagery",
            f"holds no whole chip of {size * gsd:g} m",
            "an area within reach of the grid, or images larger than a chip",
            ". ".join([*inputs.layout.beyond(inputs.selection.considered, areas), "Choose a smaller chips.size."]),
        )
    chips, outputs = counts.with_imagery, output_files(spec, counts)
    warnings = [*_warnings(inputs, counts), *caveats(inputs, seen), *_too_many_files(spec, counts, outputs)]
    to_make = chips - done.reused - done.computed
    images = images_per_chip(seen, spec) if seen else 1.0
    ground = (size * gsd / 1000) ** 2
    usd = None if rates is None else rates.usd(to_make)
    spent = done.seconds / 3600 * (spec.cost.usd_per_hour or 0)
    stored = {d: stored_bytes(chips, encoder.dimensions, d, encoder.patches) for d in ("float32", "float16", "int8")}
    room = stored[spec.outputs.dtype] * (chips - done.computed) // max(chips, 1)
    budget = spec.cost.budget_usd
    made = Estimate(
        name=spec.name,
        version=spec.version,
        layout=spec.chips.layout,
        size=size,
        gsd=gsd,
        encoder=spec.model.encoder,
        dimensions=encoder.dimensions,
        dtype=spec.outputs.dtype,
        patches=encoder.patches,
        images=_images(inputs.selection),
        left_out=_left_out(inputs.selection),
        resolutions=resolutions(inputs.used, inputs.sensor),
        square_km=100 * counts.across,
        tiles=len({each.square for each in counts.squares}),
        files=outputs[paths.EMBEDDINGS],
        output_files=outputs,
        chips={**_by_reason(counts), "reused": done.reused, "done": done.computed, "to_make": to_make},
        windows=_windows(counts),
        km2=_km2(areas, counts, ground),
        per_scene=counts.per_scene,
        bytes_to_read=round(
            bytes_to_read(inputs.selection.considered, counts, len(encoder.bands), size * size)
            * images
            * to_make
            / max(chips, 1)
        ),
        images_per_chip=round(images, 3),
        observations=[each.observed for each in seen],
        bytes_to_store=stored,
        rates=rates,
        hours=None if rates is None else rates.hours(to_make),
        usd=usd,
        km2_per_usd=to_make * ground / usd if usd else None,
        shares=shares,
        budget_usd=budget,
        spent_usd=spent,
        over_budget=budget is not None and to_make > 0 and spent + (usd or 0) > budget,
        device=encoder.device,
        free_bytes=free_bytes,
        warnings=[*warnings, *_means(spec, encoder.device, free_bytes, room)],
        alternatives=alternatives(
            chips,
            size,
            gsd,
            rates,
            dimensions=encoder.dimensions,
            dtype=spec.outputs.dtype,
            patches=encoder.patches,
        ),
        comparison=comparison,
    )
    return made, counts


def stated_rates(spec: Spec) -> Rates | None:
    """The rates that the spec states."""
    if spec.cost.chips_per_hour is None:
        return None
    return Rates(chips_per_hour=spec.cost.chips_per_hour, usd_per_hour=spec.cost.usd_per_hour, measured=False)


def output_files(spec: Spec, counts: Counts) -> dict[str, int]:
    """Files of each output, at most; documents and figures are some dozens beside them."""
    made = [each for each in counts.squares if each.with_imagery]
    found = {paths.EMBEDDINGS: len(made)}
    if spec.outputs.patch_format == "parquet":
        found[paths.PATCHES] = len(made)
    if spec.outputs.aggregate:
        found[paths.AGGREGATES] = len(made) * len(spec.outputs.aggregate)
    if spec.outputs.codes:
        found[paths.CODES] = len({(each.square.zone, each.window) for each in made}) + 1
    found[paths.COVERAGE] = len({each.square.zone for each in counts.squares})
    found[paths.JSON_ITEMS] = len(made) if len(made) <= MAX_JSON_ITEMS else 0
    return found


def _too_many_files(spec: Spec, counts: Counts, outputs: dict[str, int]) -> list[str]:
    """What a host of so many files says.

    Raises:
        SpecError: the host is the Hub, which refuses them.
    """
    folders = Counter(each.square.zone for each in counts.squares if each.with_imagery)
    zone, most = folders.most_common(1)[0] if folders else (0, 0)
    said, files = [], sum(outputs.values())
    if most > FOLDER_LIMIT:
        said.append(f"zone {zone} would hold {most:,} files; hosts take {FOLDER_LIMIT:,} a folder")
    if files > REPOSITORY_LIMIT:
        said.append(f"the release would hold {files:,} files; hosts take {REPOSITORY_LIMIT:,}")
    if said and spec.publish.hugging_face:
        fix = "Set outputs.square_km to 200 or 400, or make a release of each year or region."
        raise SpecError("publish.hugging_face", "; ".join(said), "a release that the Hub takes", fix)
    return said


def _images(selection: Selection) -> dict[str, int]:
    by_status = Counter(each.status for each in selection.considered)
    total = len(selection.considered) + len(selection.broken)
    return {
        "considered": total,
        **{status: by_status[status] for status in ("used", "unused", "excluded")},
        "unusable": len(selection.broken),
    }


def _left_out(selection: Selection) -> dict[str, int]:
    """Reasons without what they say of a single image."""
    reasons = Counter(
        each.reason.partition(" (")[0] for each in selection.considered if each.reason and each.status != "used"
    )
    reasons.update(each.reason.partition(": ")[2].partition(" (expected")[0] for each in selection.broken)
    return dict(reasons.most_common())


def _by_reason(counts: Counts) -> dict[str, int]:
    no_imagery = counts.expected - counts.with_imagery - counts.excluded
    return {
        "expected": counts.expected,
        "with_imagery": counts.with_imagery,
        "no_imagery": no_imagery,
        "excluded": counts.excluded,
    }


def _windows(counts: Counts) -> list[WindowCount]:
    found: dict[str, list[SquareCount]] = {}
    for each in counts.squares:
        found.setdefault(str(each.window), []).append(each)
    return [
        WindowCount(
            window=window,
            expected=sum(each.expected for each in rows),
            with_imagery=sum(each.with_imagery for each in rows),
            no_imagery=sum(each.no_imagery for each in rows),
            excluded=sum(each.excluded for each in rows),
        )
        for window, rows in found.items()
    ]


def _km2(areas: Areas, counts: Counts, ground: float) -> dict[str, float]:
    stated = [area.km2 for area in areas if area is not None]
    return {
        **({"area": round(sum(stated), 3)} if stated else {}),
        "expected": round(counts.expected * ground, 3),
        "with_imagery": round(counts.with_imagery * ground, 3),
    }


def _means(spec: Spec, device: str, free: int | None, needed: int) -> list[str]:
    """Whether this machine has the room, and whether its GPU is used."""
    said = []
    if free is not None and free < needed:
        said.append(f"{shown_size(free)} of disk space are free, and the release takes about {shown_size(needed)}")
    if spec.run.engine == "local" and device == "cpu" and Path("/dev/nvidia0").exists():
        said.append("this machine has an NVIDIA GPU that torch cannot use: the model runs on the CPU")
    return said


def _fills(inputs: Inputs, number: int, item: SourceItem) -> bool:
    """Whether an image of another block gives chips of a block's windows: cells take images of any that reach them."""
    area = inputs.areas[number]
    if inputs.spec.chips.layout != "utm":
        return False
    return area is None or item.geometry is None or bool(shapely.intersects(area.geometry, item.geometry))


def _empty_windows(inputs: Inputs) -> Iterator[str]:
    for number, block in enumerate(inputs.spec.imagery):
        moments = [item.acquired for item in inputs.used if item.block == number or _fills(inputs, number, item)]
        empty = [str(each) for each in block.parsed_windows() if not any(moment in each for moment in moments)]
        if empty:
            more = f" and {len(empty) - 3:,} more" if len(empty) > 3 else ""
            missing = block.area and inputs.spec.chips.layout == "utm"
            no_area = "" if block.area else "without imagery.area, "
            outcome = "their chips are missing" if missing else f"{no_area}no chips of them are expected"
            yield f"no image lies in the windows {', '.join(empty[:3])}{more}: {outcome}"


def _warnings(inputs: Inputs, counts: Counts) -> list[str]:
    said = inputs.layout.beyond(inputs.selection.considered, inputs.areas)
    said += notes(inputs.spec, inputs.sensor, inputs.used, inputs.layout.gsd)
    said += doubts(inputs.used, inputs.spec, inputs.sensor)
    unknown = [item.id for item in inputs.used if item.license is None]
    if unknown:
        said.append(f"terms of use of {len(unknown)} images are unknown ({unknown[0]}, …); `publish` will refuse them")
    said += _empty_windows(inputs)
    if not counts.with_imagery:
        said.append("no chip has imagery")
    said += [f"{each.id}: {each.reason}" for each in inputs.selection.broken[:3]]
    return said
