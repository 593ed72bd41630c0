/** What is known of one place: the chip that lies there, or why there is none. */

import type { Chip, Details } from "./chips";
import { code, day, el, facts, link, percent } from "./dom";
import type { Missing } from "./missing";
import type { Summary } from "./summary";

export interface Actions {
  like: () => void;
  unlike: () => void;
}

export function showIntro(root: HTMLElement): void {
  root.replaceChildren(
    heading(),
    el("p", { class: "muted" }, "Click the map, or move it and choose “Inspect the center”, to see the chip there."),
  );
}

export function showWaiting(root: HTMLElement): void {
  root.replaceChildren(heading(), el("p", { class: "muted" }, "Reading…"));
}

export function showError(root: HTMLElement, text: string): void {
  root.replaceChildren(heading(), el("p", { class: "alert" }, text));
}

export function showChip(
  root: HTMLElement,
  summary: Summary,
  base: string,
  chip: Chip,
  details: Details,
  actions: Actions,
): void {
  const items = details.items.length > 1 ? `${details.item} and ${details.items.length - 1} more` : details.item;
  root.replaceChildren(
    heading(),
    details.thumbnail ? picture(details.thumbnail, `Thumbnail of ${details.id}`) : "",
    facts([
      ["Id", details.id],
      ["Time", period(details)],
      ["Center", place(chip.lon, chip.lat)],
      ["Image", items],
      ["Loss", details.loss === null ? null : details.loss.toPrecision(4)],
      ["Valid", details.valid === null ? null : percent(details.valid)],
      ["Cloud", details.cloud === null ? "no cloud mask" : percent(details.cloud)],
      ["Cell", chip.cell ? `EPSG:${chip.cell.epsg}, row ${chip.cell.row}, column ${chip.cell.col}` : null],
      ["Item", summary.items ? item(base, chip.file.path) : null],
      ["File", link(new URL(chip.file.path, base).href, chip.file.path)],
    ]),
    el(
      "div",
      { class: "row" },
      el("button", { type: "button", id: "like", click: actions.like }, "More like this"),
      el("button", { type: "button", id: "unlike", click: actions.unlike }, "Less like this"),
    ),
    snippets(summary, base, chip, details),
  );
}

/** The STAC Item of an embeddings file. */
function item(base: string, path: string): Node {
  const [zone, file] = path.split("/").slice(-2);
  const id = (file ?? "").replace(/\.parquet$/, "");
  return link(new URL(`items/${zone}/${id}.json`, base).href, id);
}

export function showMissing(root: HTMLElement, summary: Summary, missing: Missing): void {
  const why = summary.reasons[missing.reason] ?? missing.reason;
  const listed = missing.reason === "embedded";
  root.replaceChildren(
    heading(),
    el(
      "p",
      { class: "alert" },
      listed ? "The coverage table lists a chip here, but no embeddings file holds it." : `Missing: ${why}.`,
    ),
    facts([
      ["Reason", missing.reason],
      ["Detail", missing.detail],
      ["Window", missing.window],
      ["Cell", `EPSG:${missing.cell.epsg}, row ${missing.cell.row}, column ${missing.cell.col}`],
      ["Id", missing.id],
    ]),
  );
}

/** A missing chip of a layout without cells: the overview's color says why. */
export function showMissingByColor(root: HTMLElement, summary: Summary, reason: string): void {
  root.replaceChildren(
    heading(),
    el("p", { class: "alert" }, `Missing: ${summary.reasons[reason] ?? reason}.`),
    facts([["Reason", reason]]),
  );
}

export function showNothing(root: HTMLElement, lon: number, lat: number): void {
  root.replaceChildren(
    heading(),
    el("p", {}, "No chip was expected here: the place lies outside the area of the release in this period."),
    el("p", { class: "note" }, place(lon, lat)),
  );
}

function heading(): HTMLElement {
  return el("h2", { id: "chip-title" }, "Chip");
}

/** As text that says which number is the latitude. */
function place(lon: number, lat: number): string {
  const [north, east] = [lat < 0 ? "S" : "N", lon < 0 ? "W" : "E"];
  return `${Math.abs(lat).toFixed(5)}° ${north}, ${Math.abs(lon).toFixed(5)}° ${east}`;
}

function period(details: Details): string {
  const [start, end] = [day(details.start || details.datetime), day(details.end || details.datetime)];
  return start === end ? details.datetime.replace(/\.\d+Z$/, "Z").replace("T", " ") : `${start} to ${end}`;
}

/** Bytes as an image element; an address of a blob, so that nothing is loaded from elsewhere. */
export function picture(bytes: Uint8Array, alternative: string): HTMLImageElement {
  const address = URL.createObjectURL(new Blob([bytes as BlobPart]));
  const image = el("img", { class: "thumb", src: address, alt: alternative });
  image.addEventListener("load", () => URL.revokeObjectURL(address));
  image.addEventListener("error", () => image.remove());
  return image;
}

function snippets(summary: Summary, base: string, chip: Chip, details: Details): HTMLElement {
  const file = new URL(chip.file.path, base).href;
  const root = base.replace(/\/$/, "");
  const python = JSON.stringify;
  const pad = (summary.chips.side / 111_000 / 4).toPrecision(3);
  const box = `[${chip.lon.toFixed(6)} - ${pad}, ${chip.lat.toFixed(6)} - ${pad}, ${chip.lon.toFixed(6)} + ${pad}, ${chip.lat.toFixed(6)} + ${pad}]`;
  return el(
    "details",
    {},
    el("summary", {}, "Read this chip"),
    code("DuckDB", `SELECT * FROM read_parquet(${sql(file)})\nWHERE id = ${sql(details.id)};`),
    code(
      "geopandas",
      `import geopandas\n\nchip = geopandas.read_parquet(\n    ${python(file)},\n    filters=[("id", "==", ${python(details.id)})],\n)`,
    ),
    code(
      "clay-publish",
      `from clay_publish import open_release\n\nrelease = open_release(${python(root)})\nchips = release.chips(bbox=${box}).read_all()`,
    ),
  );
}

function sql(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
