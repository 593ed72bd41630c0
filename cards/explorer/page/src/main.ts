/** The page: one release, its map and its panel. */

import { showAbout, showTitle, showVersions } from "./about";
import { Checks } from "./checks";
import { type Chip, Chips, MOST } from "./chips";
import { type Chosen, Controls, title } from "./controls";
import { byId, el, plural, say } from "./dom";
import { type Box, wrapped } from "./grid";
import { showChip, showError, showIntro, showMissing, showMissingByColor, showNothing, showWaiting } from "./inspect";
import { Likeness } from "./likeness";
import { feature, ReleaseMap } from "./map";
import { missingAt } from "./missing";
import { Overviews } from "./overview";
import { ReleaseError, ReleaseSource } from "./source";
import { type Place, readState, type State, writeState } from "./state";
import { type Period, readSummary, type Summary } from "./summary";

const SETTLED = 250;
/** Zooms beyond the finest overview from which chips are drawn one by one: they are some 6 pixels wide there. */
const CLOSER = 2;

class Page {
  private readonly chips: Chips;
  private readonly overviews: Overviews;
  private readonly map: ReleaseMap;
  private readonly controls: Controls;
  private readonly likeness: Likeness;
  private readonly checks: Checks;
  private selected: Place | null = null;
  private inspection = 0;
  private drawing = 0;

  constructor(
    private readonly source: ReleaseSource,
    private readonly summary: Summary,
    private readonly address: URL,
    state: Partial<State>,
  ) {
    document.title = `${summary.title} ${summary.version}`;
    byId("heading").textContent = `${summary.title}, version ${summary.version}`;
    this.chips = new Chips(source, summary);
    this.overviews = new Overviews(source, summary);
    const { lon, lat, zoom } = state;
    const start = lon !== undefined && lat !== undefined && zoom !== undefined ? { lon, lat, zoom } : null;
    const first = chosen(summary, state);
    this.overviews.warm(first.layer, first.period);
    this.map = new ReleaseMap(byId("map"), summary, this.overviews, first, start);
    showTitle(byId("title"), summary);
    const switched = (on: boolean) => this.map.basemap(on ? (summary.basemap?.tiles ?? null) : null);
    this.controls = new Controls(byId("layers"), summary, first, () => this.refresh(), switched);
    this.likeness = new Likeness(byId("similar"), source, summary, this.chips, this.overviews, {
      box: () => this.map.view,
      period: () => this.period,
      drawMarks: (features) => this.map.set("marks", features),
      drawResults: (features) => this.map.set("results", features),
      go: (chip) => this.visit(chip),
      changed: () => this.remember(),
    });
    const draw = (features: GeoJSON.Feature[]) => this.map.set("findings", features);
    this.checks = new Checks(byId("checks"), summary, this.chips, draw, (box) => this.fit(box));
    showIntro(byId("chip"));
    showAbout(byId("about"), summary, source);
  }

  private get period(): Period {
    const { periods } = this.summary;
    const found = periods.find(({ id }) => id === this.controls.chosen.period) ?? periods[0];
    if (!found) throw new ReleaseError("The release has no windows.");
    return found;
  }

  async start(state: Partial<State>): Promise<void> {
    await this.map.ready();
    this.refresh();
    this.map.map.once("idle", () => {
      document.body.dataset.drawn = "true";
      this.map.outline();
      this.chips.index().catch(() => {}); // read before the first click needs it, which says what is wrong
    });
    let settling = 0;
    this.map.map.on("moveend", () => {
      this.remember();
      clearTimeout(settling);
      settling = window.setTimeout(() => this.drawChips(), SETTLED);
    });
    this.map.map.on("click", (event) => this.show(event.lngLat.lng, event.lngLat.lat));
    byId("center").addEventListener("click", () => this.inspectCenter());
    byId("map").addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.inspectCenter();
    });
    this.checks.listen();
    await Promise.all([
      this.restore(state),
      this.checks.published(this.source),
      showVersions(this.source, this.summary, this.address),
    ]);
    document.body.dataset.ready = "true";
  }

  /** Marks and the chip of a shared link. */
  private async restore(state: Partial<State>): Promise<void> {
    for (const kind of ["like", "unlike"] as const) {
      for (const [lon, lat] of (kind === "like" ? state.positive : state.negative) ?? []) {
        const chip = await this.chips.at(lon, lat, this.period).catch(() => null);
        if (chip) this.likeness.mark(chip, await this.chips.id(chip), kind);
      }
    }
    if (state.chip) await this.inspect(...state.chip);
  }

  private refresh(): void {
    const { layer, period, opacity } = this.controls.chosen;
    this.map.fade(opacity);
    this.map.show(layer, period, this.summary);
    this.remember();
    this.drawChips();
  }

  private remember(): void {
    const { lng, lat } = this.map.map.getCenter();
    const state: State = {
      ...this.controls.chosen,
      lon: wrapped(lng),
      lat,
      zoom: this.map.map.getZoom(),
      chip: this.selected,
      positive: this.likeness?.places("like") ?? [],
      negative: this.likeness?.places("unlike") ?? [],
    };
    history.replaceState(null, "", `${location.pathname}${location.search}${writeState(state)}`);
  }

  /** Draw chips one by one where they are few, each in the color that the overview gives it. */
  private async drawChips(): Promise<void> {
    this.drawing += 1;
    const turn = this.drawing;
    const { layer, period } = this.controls.chosen;
    const hint = byId("hint");
    const { zoom } = this.map.view;
    const alone = layer !== "coverage";
    try {
      const near = zoom > this.summary.tiles.maxzoom + CLOSER;
      const found = near ? await this.chips.inBox(this.map.view, this.period) : null;
      if (turn !== this.drawing) return;
      if (!found) {
        this.map.set("chips", []);
        this.map.singly(false);
        hint.textContent = this.summary.chips.count > MOST || !near ? "Zoom in to see single chips." : "";
        return;
      }
      const colors = await Promise.all(
        found.map((chip) => (alone ? this.overviews.colorOf(layer, period, chip) : null)),
      );
      if (turn !== this.drawing) return;
      this.map.set(
        "chips",
        found.map((chip, at) => feature(chip, colors[at] ? { color: colors[at] } : {})),
      );
      this.map.singly(alone);
      hint.textContent = `${plural(found.length, "chip")} in view · ${title(period, this.period.start, this.period.end)}`;
    } catch (error) {
      if (turn === this.drawing) hint.textContent = message(error);
    }
  }

  private inspectCenter(): void {
    const { lng, lat } = this.map.map.getCenter();
    this.show(lng, lat);
  }

  /** Inspect a place, and scroll the panel to what was found. */
  private async show(lng: number, lat: number): Promise<void> {
    await this.inspect(lng, lat);
    byId("chip").scrollIntoView({ block: "nearest" });
  }

  private async inspect(lng: number, lat: number): Promise<void> {
    const lon = wrapped(lng);
    this.inspection += 1;
    const turn = this.inspection;
    const root = byId("chip");
    this.selected = [lon, lat];
    this.remember();
    this.map.set("selected", []);
    showWaiting(root);
    try {
      const chip = await this.chips.at(lon, lat, this.period);
      if (turn !== this.inspection) return;
      if (chip) await this.showDetails(chip, turn);
      else await this.showAbsence(lon, lat, turn);
    } catch (error) {
      if (turn === this.inspection) showError(root, message(error));
    }
  }

  private async showDetails(chip: Chip, turn: number): Promise<void> {
    const details = await this.chips.details(chip);
    if (turn !== this.inspection) return;
    this.map.set("selected", [feature(chip)]);
    showChip(byId("chip"), this.summary, this.source.base.href, chip, details, {
      like: () => this.likeness.mark(chip, details.id, "like"),
      unlike: () => this.likeness.mark(chip, details.id, "unlike"),
    });
    say(`Chip ${details.id}`);
  }

  private async showAbsence(lon: number, lat: number, turn: number): Promise<void> {
    const root = byId("chip");
    const missing = await missingAt(this.chips, this.summary, lon, lat, this.period);
    if (turn !== this.inspection) return;
    if (missing) {
      showMissing(root, this.summary, missing);
      say(`No chip: ${missing.reason}`);
      return;
    }
    const color = await this.overviews.color("coverage", this.period.id, lon, lat);
    if (turn !== this.inspection) return;
    const colors = this.summary.layers.find(({ id }) => id === "coverage")?.legend.colors ?? {};
    const reason = Object.keys(colors).find((each) => each !== "embedded" && colors[each]?.toLowerCase() === color);
    if (reason && this.summary.chips.layout === "scene") showMissingByColor(root, this.summary, reason);
    else showNothing(root, lon, lat);
    say(reason ? `No chip: ${reason}` : "No chip was expected here.");
  }

  private visit(chip: Chip): void {
    const zoom = Math.max(this.map.map.getZoom(), Math.min(15, this.summary.tiles.maxzoom + 2));
    this.map.flyTo(chip.lon, chip.lat, zoom);
    this.inspect(chip.lon, chip.lat);
  }

  private fit({ west, south, east, north }: Box): void {
    this.map.map.fitBounds(
      [
        [west, south],
        [east, north],
      ],
      { padding: 60, maxZoom: 14, duration: 0 },
    );
  }
}

function chosen(summary: Summary, state: Partial<State>): Chosen {
  const layer = summary.layers.find(({ id }) => id === state.layer) ?? summary.layers[0];
  const last = summary.periods.at(-1);
  const period = summary.periods.find(({ id }) => id === state.period) ?? last;
  if (!layer || !period) throw new ReleaseError("The release has no overviews.");
  return { layer: layer.id, period: period.id, opacity: state.opacity ?? 1 };
}

function message(error: unknown): string {
  return error instanceof ReleaseError
    ? error.message
    : `Something failed: ${error instanceof Error ? error.message : error}`;
}

async function open(): Promise<void> {
  const address = new URL(location.href);
  const given =
    address.searchParams.get("release") ?? document.querySelector<HTMLMetaElement>("meta[name=release]")?.content;
  try {
    if (location.protocol === "file:") {
      throw new ReleaseError(
        "A page opened from a folder may not read files. View the release with: clay-publish explore FOLDER",
      );
    }
    const source = new ReleaseSource(given ?? "..", new URL(".", address).href);
    const summary = await readSummary(source);
    const state = readState(location.hash);
    address.hash = "";
    const page = new Page(source, summary, address, state);
    await page.start(state);
  } catch (error) {
    document
      .querySelector("main")
      ?.replaceWith(
        el(
          "main",
          { class: "failed" },
          el("h1", { class: "hidden" }, "Release explorer"),
          el("p", { class: "fatal", role: "alert" }, message(error)),
        ),
      );
    document.body.dataset.ready = "failed";
  }
}

open();
