/** What `validate` found: the report beside the version, or one that is dropped onto the page, with places on the map. */

import type { Chips } from "./chips";
import { byId, el, number, plural, say } from "./dom";
import { type Box, outline, parseChipId } from "./grid";
import type { ReleaseSource } from "./source";
import type { Summary } from "./summary";

const SHOWN = 200;
const LIMIT = 50_000_000;

interface Finding {
  code: string;
  severity: string;
  where: string;
  found: string;
  expected: string;
  fix: string;
}

export class Checks {
  constructor(
    private readonly root: HTMLElement,
    private readonly summary: Summary,
    private readonly chips: Chips,
    private readonly draw: (features: GeoJSON.Feature[]) => void,
    private readonly go: (box: Box) => void,
  ) {}

  /** Read the report that `publish` put beside the version. */
  async published(source: ReleaseSource): Promise<void> {
    const document = await source.json(`${this.summary.version}.validation.json`, !source.hub).catch(() => null);
    await this.show(document, "published with this version");
  }

  /** Take reports that are dropped onto the page, or chosen. */
  listen(): void {
    const over = (event: DragEvent) => {
      event.preventDefault();
      document.body.classList.toggle("dropping", event.type === "dragover");
    };
    for (const type of ["dragover", "dragleave", "drop"] as const) document.addEventListener(type, over);
    document.addEventListener("drop", (event) => {
      const file = event.dataTransfer?.files[0];
      if (file) this.take(file);
    });
  }

  private async take(file: File): Promise<void> {
    try {
      if (file.size > LIMIT) throw new Error();
      await this.show(JSON.parse(await file.text()) as Record<string, unknown>, file.name);
      say(`Report ${file.name} shown.`);
    } catch {
      say(`${file.name} is not a report of clay-publish validate --json.`);
    }
  }

  private async show(document: Record<string, unknown> | null, from: string): Promise<void> {
    const choose = el("input", { type: "file", id: "report", class: "hidden", accept: ".json,application/json" });
    choose.addEventListener("change", () => {
      const file = choose.files?.[0];
      if (file) this.take(file);
    });
    const open = el("button", { type: "button", class: "small", click: () => choose.click() }, "Open a report…");
    const label = el("label", { for: "report", class: "hidden" }, "Report of clay-publish validate --json");
    const pick = el("div", { class: "row" }, open, label, choose);
    const title = el("h2", { id: "checks-title" }, "Validation");
    if (!document) {
      const text = "Not available: no report beside this version. Drop one here (clay-publish validate --json).";
      this.root.replaceChildren(title, el("p", { class: "muted" }, text), pick);
      return;
    }
    const findings = read(document);
    const checked = Object.values((document.checked ?? {}) as Record<string, unknown>);
    const passed = checked.filter((state) => state === "passed").length;
    const errors = findings.filter(({ severity }) => severity === "error").length;
    const verdict = errors ? plural(errors, "error") : "no errors";
    const items = findings.slice(0, SHOWN).map((finding) => this.item(finding));
    const places = await this.places(findings);
    this.draw(places);
    this.root.replaceChildren(
      title,
      el(
        "p",
        {},
        el("span", { class: `badge ${errors ? "error" : "like"}` }, verdict),
        ` ${plural(findings.length, "finding")}`,
      ),
      el("p", { class: "note" }, `${number(passed)} of ${number(checked.length)} rules passed (${from}).`),
      places.length ? el("p", { class: "note" }, `${plural(places.length, "place")} marked on the map.`) : "",
      findings.length ? el("ul", { class: "findings", tabindex: "0", "aria-label": "Findings" }, ...items) : "",
      findings.length > SHOWN ? el("p", { class: "note" }, `The first ${SHOWN} are listed.`) : "",
      pick,
    );
  }

  private item(finding: Finding): HTMLElement {
    const { code, severity, where, found, expected, fix } = finding;
    const kind = severity === "error" || severity === "warning" ? severity : "muted";
    const text = ` ${where} ${found}${expected ? ` (expected ${expected})` : ""}. ${fix}`;
    const button = el("button", { type: "button", class: "small", click: () => this.jump(finding) }, "Map");
    return el("li", {}, el("strong", { class: kind }, code), text, onMap(`${where} ${found}`) ? button : "");
  }

  private async jump(finding: Finding): Promise<void> {
    const [feature] = await this.places([finding]);
    if (feature?.geometry.type !== "Polygon") return;
    const ring = feature.geometry.coordinates[0] ?? [];
    const lons = ring.map(([lon]) => lon ?? 0);
    const lats = ring.map((point) => point[1] ?? 0);
    this.go({ west: Math.min(...lons), east: Math.max(...lons), south: Math.min(...lats), north: Math.max(...lats) });
    byId("map").querySelector("canvas")?.focus();
  }

  /** Outlines of the cells and files that findings name. */
  private async places(findings: Finding[]): Promise<GeoJSON.Feature[]> {
    const made = new Map<string, GeoJSON.Feature>();
    const named = findings.flatMap(({ code, where, found }) =>
      paths(`${where} ${found}`).map((path) => ({ path, code })),
    );
    const files = named.length ? await this.chips.index().catch(() => []) : [];
    const boxes = new Map(files.map(({ path, box }) => [path, box]));
    for (const { code, where, found } of findings) {
      for (const cell of cells(`${where} ${found}`)) {
        made.set(JSON.stringify(cell), polygon(outline(cell, this.summary.chips.side), code));
      }
    }
    for (const { path, code } of named) {
      const box = boxes.get(path);
      if (!box) continue;
      const { west, south, east, north } = box;
      const ring = [
        [west, south],
        [east, south],
        [east, north],
        [west, north],
        [west, south],
      ];
      made.set(path, polygon(ring, code));
    }
    return [...made.values()];
  }
}

/** Whether a finding names a cell or a file. */
function onMap(text: string): boolean {
  return cells(text).length > 0 || paths(text).length > 0;
}

function paths(text: string): string[] {
  return text.match(/embeddings\/zone=\d\d\/[^\s:/]+\.parquet/g) ?? [];
}

function polygon(ring: number[][], code: string): GeoJSON.Feature {
  return { type: "Feature", properties: { code }, geometry: { type: "Polygon", coordinates: [ring] } };
}

function cells(text: string) {
  return [...text.matchAll(/utm-[0-9.]+m_32[67]\d\d_-?\d+_\d+_/g)].flatMap(([id]) => parseChipId(id) ?? []);
}

function read(document: Record<string, unknown>): Finding[] {
  if (!Array.isArray(document.findings)) throw new Error("no findings");
  return document.findings.map((each: unknown) => {
    const entry = (typeof each === "object" && each !== null ? each : {}) as Record<string, unknown>;
    const text = (name: string) => (typeof entry[name] === "string" ? entry[name] : "");
    return {
      code: text("code"),
      severity: text("severity"),
      where: text("where"),
      found: text("found"),
      expected: text("expected"),
      fix: text("fix"),
    };
  });
}
