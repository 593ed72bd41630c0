/** `explore/release.json`, checked: a release may come from anybody. */

import { ReleaseError, type ReleaseSource } from "./source";

export interface Period {
  id: string;
  start: number;
  end: number;
}

export interface Layer {
  id: string;
  title: string;
  kind: "color" | "palette";
  periods: string[];
  legend: {
    explained?: number[];
    colors?: Record<string, string>;
    stops?: string[];
    low?: number | string;
    high?: number | string;
  };
}

export interface Summary {
  name: string;
  version: string;
  title: string;
  description: string;
  license: { id: string; name: string; href: string | null };
  model: { name: string; href: string; dimensions: number; dtype: string };
  chips: {
    layout: "scene" | "utm";
    size: number;
    gsd: number;
    side: number;
    count: number;
    files: number;
    bytes: number;
    thumbnails: boolean;
  };
  bbox: [number, number, number, number];
  start: string;
  end: string;
  coverage: { expected: number; embedded: number; missing: Record<string, number> };
  windows: { start: string; end: string; expected: number; embedded: number }[];
  more_windows: number;
  reasons: Record<string, string>;
  periods: Period[];
  tiles: { size: number; maxzoom: number };
  layers: Layer[];
  coverage_files: { path: string; size: number }[];
  /** Whether there are compact codes. */
  codes: boolean;
  /** Whether each Item has a JSON document of its own. */
  items: boolean;
  address: string | null;
  citation: string;
  basemap: { tiles: string; attribution: string } | null;
}

const PERIOD_ID = /^[0-9A-Za-z_-]{1,64}$/;
const LAYER_ID = /^[a-z]{1,32}$/;
const COLOR = /^#[0-9a-fA-F]{6}$/;

type Json = Record<string, unknown>;

/** Read it; each field has its type and each number is one, or the release is refused. */
export async function readSummary(source: ReleaseSource): Promise<Summary> {
  const document = await source.json("explore/release.json");
  if (!document) {
    throw new ReleaseError(
      `${source.base.href} holds no explore/release.json: it is not a release, or was made with outputs.explorer: false.`,
    );
  }
  if (document.explorer !== 1) {
    throw new ReleaseError(
      `The release's explorer has format ${shown(document.explorer)}; this page reads format 1. Open the release's own page.`,
    );
  }
  try {
    return checked(document);
  } catch (error) {
    throw new ReleaseError(
      `explore/release.json is damaged: ${error instanceof Error ? error.message : "unreadable"}.`,
    );
  }
}

function checked(d: Json): Summary {
  const chips = object(d.chips, "chips");
  const license = object(d.license, "license");
  const model = object(d.model, "model");
  const coverage = object(d.coverage, "coverage");
  const tiles = object(d.tiles, "tiles");
  const bbox = list(d.bbox, "bbox").map((side) => number(side, "bbox"));
  const layout = text(chips.layout, "chips.layout");
  if (layout !== "scene" && layout !== "utm") throw new Error("chips.layout is neither scene nor utm");
  if (bbox.length !== 4 || bbox.some((side) => Math.abs(side) > 180)) throw new Error("bbox is not a box of degrees");
  const side = number(chips.side, "chips.side");
  if (!(side > 0)) throw new Error("chips.side is not positive");
  return {
    name: text(d.name, "name"),
    version: text(d.version, "version"),
    title: text(d.title, "title"),
    description: text(d.description, "description"),
    license: { id: text(license.id, "license"), name: text(license.name, "license"), href: maybe(license.href) },
    model: {
      name: text(model.name, "model.name"),
      href: text(model.href, "model.href"),
      dimensions: number(model.dimensions, "model.dimensions"),
      dtype: text(model.dtype, "model.dtype"),
    },
    chips: {
      layout,
      size: number(chips.size, "chips.size"),
      gsd: number(chips.gsd, "chips.gsd"),
      side,
      count: number(chips.count, "chips.count"),
      files: number(chips.files, "chips.files"),
      bytes: number(chips.bytes, "chips.bytes"),
      thumbnails: chips.thumbnails === true,
    },
    bbox: bbox as [number, number, number, number],
    start: text(d.start, "start"),
    end: text(d.end, "end"),
    coverage: {
      expected: number(coverage.expected, "coverage"),
      embedded: number(coverage.embedded, "coverage"),
      missing: record(coverage.missing, number),
    },
    windows: list(d.windows, "windows").map((each) => {
      const w = object(each, "windows");
      return {
        start: text(w.start, "windows"),
        end: text(w.end, "windows"),
        expected: number(w.expected, "windows"),
        embedded: number(w.embedded, "windows"),
      };
    }),
    more_windows: number(d.more_windows, "more_windows"),
    reasons: record(d.reasons, text),
    periods: list(d.periods, "periods").map((each) => {
      const p = object(each, "periods");
      return { id: matching(p.id, PERIOD_ID), start: moment(p.start), end: moment(p.end) };
    }),
    tiles: { size: number(tiles.size, "tiles.size"), maxzoom: number(tiles.maxzoom, "tiles.maxzoom") },
    layers: list(d.layers, "layers").map((each) => layer(object(each, "layers"))),
    coverage_files: list(d.coverage_files, "coverage_files").map((each) => {
      const f = object(each, "coverage_files");
      return { path: text(f.path, "coverage_files"), size: number(f.size, "coverage_files") };
    }),
    codes: d.codes === true,
    items: d.items === true,
    address: maybe(d.address),
    citation: text(d.citation, "citation"),
    basemap: d.basemap ? basemap(object(d.basemap, "basemap")) : null,
  };
}

function basemap(d: Json) {
  const tiles = text(d.tiles, "basemap.tiles");
  if (!/^https:\/\/[^\s{}]+\/\{z\}\/\{x\}\/\{y\}[^\s{}]*$/.test(tiles))
    throw new Error("basemap.tiles is not https://…/{z}/{x}/{y}");
  return { tiles, attribution: text(d.attribution, "basemap.attribution") };
}

function layer(d: Json): Layer {
  const legend = object(d.legend, "legend");
  const kind = d.kind === "palette" ? "palette" : "color";
  return {
    id: matching(d.id, LAYER_ID),
    title: text(d.title, "layers.title"),
    kind,
    periods: list(d.periods, "layers.periods").map((id) => matching(id, PERIOD_ID)),
    legend: {
      ...(legend.explained ? { explained: list(legend.explained, "legend").map((n) => number(n, "legend")) } : {}),
      ...(legend.colors ? { colors: record(legend.colors, (c) => matching(c, COLOR)) } : {}),
      ...(legend.stops ? { stops: list(legend.stops, "legend").map((c) => matching(c, COLOR)) } : {}),
      ...(typeof legend.low === "number" || typeof legend.low === "string" ? { low: legend.low } : {}),
      ...(typeof legend.high === "number" || typeof legend.high === "string" ? { high: legend.high } : {}),
    },
  };
}

function object(value: unknown, name: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${name} is not an object`);
  return value as Json;
}

function list(value: unknown, name: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${name} is not a list`);
  return value;
}

function text(value: unknown, name = "a text"): string {
  if (typeof value !== "string") throw new Error(`${name} is not a text`);
  return value;
}

function number(value: unknown, name = "a number"): number {
  if (typeof value !== "number" || !Number.isFinite(value)) throw new Error(`${name} is not a number`);
  return value;
}

function maybe(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

function matching(value: unknown, pattern: RegExp): string {
  if (typeof value !== "string" || !pattern.test(value))
    throw new Error(`${shown(value)} is not what ${pattern} allows`);
  return value;
}

function moment(value: unknown): number {
  const time = Date.parse(text(value));
  if (Number.isNaN(time)) throw new Error(`${shown(value)} is not a time`);
  return time;
}

function record<T>(value: unknown, read: (value: unknown) => T): Record<string, T> {
  const made: Record<string, T> = Object.create(null);
  for (const [key, each] of Object.entries(object(value, "a table"))) made[key] = read(each);
  return made;
}

function shown(value: unknown): string {
  return String(JSON.stringify(value)).slice(0, 60);
}
