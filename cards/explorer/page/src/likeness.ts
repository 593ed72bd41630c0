/** Similar places: the chips that were marked, the search, its results on the map, as a strip and as GeoJSON. */

import type { Chip, Chips } from "./chips";
import { el, number, plural, say } from "./dom";
import type { Box } from "./grid";
import { picture } from "./inspect";
import { feature } from "./map";
import type { Overviews } from "./overview";
import { type Answer, key, SEARCH_LIMIT, Similar } from "./similar";
import { ReleaseError, type ReleaseSource } from "./source";
import type { Place } from "./state";
import type { Period, Summary } from "./summary";

const RESULTS = 24;

export interface Mark {
  chip: Chip;
  id: string;
  kind: "like" | "unlike";
}

export interface Surroundings {
  box: () => Box;
  period: () => Period;
  drawMarks: (features: GeoJSON.Feature[]) => void;
  drawResults: (features: GeoJSON.Feature[]) => void;
  go: (chip: Chip) => void;
  changed: () => void;
}

export class Likeness {
  private marks: Mark[] = [];
  private answer: Answer | null = null;
  private where = "";
  private ids: string[] = [];
  private running: AbortController | null = null;
  private readonly similar: Similar;

  constructor(
    private readonly root: HTMLElement,
    source: ReleaseSource,
    private readonly summary: Summary,
    private readonly chips: Chips,
    private readonly overviews: Overviews,
    private readonly around: Surroundings,
  ) {
    this.similar = new Similar(source, chips, summary);
    this.render();
  }

  places(kind: Mark["kind"]): Place[] {
    return this.marks.filter((mark) => mark.kind === kind).map(({ chip }) => [chip.lon, chip.lat]);
  }

  /** Mark a chip, or change how it is marked. */
  mark(chip: Chip, id: string, kind: Mark["kind"]): void {
    this.marks = [...this.marks.filter((mark) => key(mark.chip) !== key(chip)), { chip, id, kind }];
    this.cleared();
    say(`${id} marked: ${kind === "like" ? "more" : "less"} like this.`);
  }

  private unmark(chip: Chip): void {
    this.marks = this.marks.filter((mark) => key(mark.chip) !== key(chip));
    this.cleared();
  }

  /** Forget results, which belong to other marks or another period. */
  cleared(): void {
    this.running?.abort();
    this.answer = null;
    this.around.drawResults([]);
    this.around.drawMarks(this.marks.map(({ chip, kind }) => feature(chip, { kind })));
    this.around.changed();
    this.render();
  }

  private get whole(): boolean {
    const { count, bytes } = this.summary.chips;
    return (
      bytes <= SEARCH_LIMIT || (this.summary.codes && count * (this.summary.model.dimensions + 16) <= SEARCH_LIMIT)
    );
  }

  private render(): void {
    const none = !this.marks.some(({ kind }) => kind === "like");
    const title = el("h2", { id: "similar-title" }, "Similar places");
    const list = el("ul", { class: "marks" }, ...this.marks.map((mark) => this.item(mark)));
    const search = (box: Box | null) => () => this.search(box);
    const view = el(
      "button",
      { type: "button", id: "search-view", disabled: none, click: () => this.search(this.around.box()) },
      "Search in view",
    );
    const all =
      this.whole &&
      el(
        "button",
        { type: "button", id: "search-all", class: "main", disabled: none, click: search(null) },
        "Search all",
      );
    const intro = "Choose a chip, mark it “More like this”, and search. Chips marked “Less like this” push away.";
    this.root.replaceChildren(
      title,
      this.marks.length ? list : el("p", { class: "muted" }, intro),
      this.marks.length ? el("div", { class: "row" }, all, view) : "",
      ...this.results(),
    );
  }

  private item({ chip, id, kind }: Mark): HTMLElement {
    const text = kind === "like" ? "more" : "less";
    const remove = el(
      "button",
      { type: "button", class: "small", "aria-label": `Remove ${id}`, click: () => this.unmark(chip) },
      "Remove",
    );
    return el(
      "li",
      {},
      el("span", { class: `badge ${kind}` }, text),
      el("span", { class: "id", title: id }, id),
      remove,
    );
  }

  private async search(box: Box | null): Promise<void> {
    this.running?.abort();
    const running = new AbortController();
    this.running = running;
    const bar = el("progress", { max: "1", value: "0", "aria-label": "Search" });
    const stop = el("button", { type: "button", class: "small", click: () => running.abort() }, "Stop");
    this.answer = null;
    this.render();
    this.root.append(bar, stop);
    const of = (wanted: Mark["kind"]) => this.marks.filter(({ kind }) => kind === wanted).map(({ chip }) => chip);
    try {
      const report = (share: number) => bar.setAttribute("value", String(share));
      const [positive, negative] = [of("like"), of("unlike")];
      const answer = await this.similar.rank(
        positive,
        negative,
        box,
        this.around.period(),
        RESULTS,
        report,
        running.signal,
      );
      const ids = await Promise.all(answer.found.map(({ chip }) => this.chips.id(chip)));
      if (running.signal.aborted) return;
      this.answer = answer;
      this.ids = ids;
      this.where = box ? "in view" : "of this period";
      this.around.drawResults(
        answer.found.map(({ chip, similarity }, at) => feature(chip, { id: ids[at], rank: at + 1, similarity })),
      );
      this.render();
      say(`${plural(answer.found.length, "similar chip")} found.`);
    } catch (error) {
      if (!running.signal.aborted) {
        const text = error instanceof ReleaseError ? error.message : `The search failed (${error}).`;
        this.render();
        this.root.append(el("p", { class: "alert" }, text));
        return;
      }
      this.render();
    }
  }

  private results(): HTMLElement[] {
    if (!this.answer) return [];
    const { found, searched, compared } = this.answer;
    const note =
      compared === null
        ? `${plural(searched, "chip")} ${this.where} compared, exactly, by vector.`
        : `${plural(searched, "chip")} ${this.where} ranked by their compact codes; the vectors of the best ${number(compared)} compared exactly.`;
    const strip = el("div", { class: "strip", id: "results", role: "group", "aria-label": "Results" });
    for (const [at, { chip, similarity }] of found.entries()) {
      const face = el("canvas", { width: "1", height: "1", "aria-hidden": "true" });
      const label = `Result ${at + 1}: ${this.ids[at]}, similarity ${similarity.toFixed(3)}`;
      const button = el(
        "button",
        { type: "button", title: this.ids[at] ?? "", "aria-label": label, click: () => this.around.go(chip) },
        face,
        similarity.toFixed(3),
      );
      button.dataset.id = this.ids[at] ?? "";
      button.dataset.similarity = String(similarity);
      strip.append(button);
      this.decorate(chip, face);
    }
    const save = el("button", { type: "button", id: "save", click: () => this.save() }, "Save as GeoJSON");
    if (!found.length) return [el("p", { class: "note" }, note, " No other chip was found.")];
    return [el("p", { class: "note" }, note), strip, el("div", { class: "row" }, save)];
  }

  /** A result's thumbnail, or the color that the overview gives it. */
  private async decorate(chip: Chip, face: HTMLCanvasElement): Promise<void> {
    const bytes = await this.chips.thumbnail(chip).catch(() => null);
    if (bytes) {
      const image = picture(bytes, "");
      image.className = "";
      face.replaceWith(image);
      return;
    }
    const color = await this.overviews.colorOf("components", this.around.period().id, chip).catch(() => null);
    const context = face.getContext("2d");
    if (!context) return;
    context.fillStyle = color ?? "#8a97a1";
    context.fillRect(0, 0, 1, 1);
  }

  private save(): void {
    if (!this.answer) return;
    const of = (wanted: Mark["kind"]) => this.marks.filter(({ kind }) => kind === wanted).map(({ id }) => id);
    const collection = {
      type: "FeatureCollection",
      release: `${this.summary.name} ${this.summary.version}`,
      like: of("like"),
      unlike: of("unlike"),
      searched: this.answer.searched,
      candidates: this.answer.compared,
      features: this.answer.found.map(({ chip, similarity }, at) => ({
        ...feature(chip, { id: this.ids[at], rank: at + 1, similarity }),
        geometry: geometry(chip),
      })),
    };
    const address = URL.createObjectURL(new Blob([JSON.stringify(collection)], { type: "application/geo+json" }));
    el("a", { href: address, download: `${this.summary.name}-${this.summary.version}-similar.geojson` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    say("Results saved.");
  }
}

/** RFC 7946 geometry: longitudes between ±180, cut at the antimeridian. */
function geometry(chip: Chip): GeoJSON.MultiPolygon {
  const parts = chip.rings.flatMap((ring) => {
    const over = ring.some(([lon]) => Math.abs(lon) > 180);
    return over ? [clip(ring, -180, 180, 0), clip(ring, 180, 540, -360), clip(ring, -540, -180, 360)] : [ring];
  });
  return { type: "MultiPolygon", coordinates: parts.filter((ring) => ring.length > 3).map((ring) => [ring]) };
}

/** The part of a ring between two meridians, moved by `shift` degrees. */
function clip(ring: [number, number][], low: number, high: number, shift: number): [number, number][] {
  const cut = (points: [number, number][], edge: number, inside: (lon: number) => boolean) =>
    points.flatMap(([x1, y1], at) => {
      const [x0, y0] = points[(at + points.length - 1) % points.length] ?? [x1, y1];
      const cross: [number, number][] =
        inside(x0) !== inside(x1) ? [[edge, y0 + ((y1 - y0) * (edge - x0)) / (x1 - x0)]] : [];
      return inside(x1) ? [...cross, [x1, y1] as [number, number]] : cross;
    });
  const open = ring.slice(0, -1);
  const west = cut(open, low, (lon) => lon >= low);
  const made = cut(west, high, (lon) => lon <= high).map(([lon, lat]) => [lon + shift, lat] as [number, number]);
  return made.length ? [...made, made[0] as [number, number]] : [];
}
