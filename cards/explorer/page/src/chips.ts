/** Chips, read from the embeddings files by range requests: those in a box, the one at a place, what a row says. */

import { type Box, type Cell, cellAt, degrees, meet, outline, wrapped } from "./grid";
import { ReleaseError, type ReleaseSource } from "./source";
import type { Period, Summary } from "./summary";
import { type Group, Table } from "./table";

export type Ring = [number, number][];

export interface DataFile {
  path: string;
  rows: number;
  size: number;
  start: number;
  end: number;
  box: Box;
}

/** One chip: where it stands in the release, and where it lies on the ground. */
export interface Chip {
  file: DataFile;
  group: Group;
  /** In its row group. */
  row: number;
  lon: number;
  lat: number;
  cell: Cell | null;
  rings: Ring[];
}

export interface Details {
  id: string;
  start: string;
  end: string;
  datetime: string;
  loss: number | null;
  valid: number | null;
  cloud: number | null;
  item: string;
  items: string[];
  thumbnail: Uint8Array | null;
}

/** More chips than this are not drawn one by one. */
export const MOST = 6000;
const CLICK_LIMIT = 1_000_000;
const NAMES = ["id", "datetime", "start_datetime", "end_datetime", "loss", "valid_fraction", "cloud_fraction"];
/** What a click needs of a row group. */
const CLICK = ["epsg", "row", "col", "lon", "lat", ...NAMES, "item_id", "item_ids"];

export class Chips {
  private files: Promise<DataFile[]> | null = null;
  private readonly tables = new Map<string, Promise<Table>>();
  private readonly lists = new Map<string, Promise<Chip[]>>();

  constructor(
    private readonly source: ReleaseSource,
    private readonly summary: Summary,
  ) {}

  private get side(): number {
    return this.summary.chips.side;
  }

  /** The index of files by box. */
  index(): Promise<DataFile[]> {
    this.files ??= this.readIndex().catch((error: unknown) => {
      this.files = null;
      throw error;
    });
    return this.files;
  }

  private async readIndex(): Promise<DataFile[]> {
    const path = "explore/files.parquet";
    const table = await Table.open(path, await this.source.small(path));
    const names = ["path", "rows", "size", "start", "end", "xmin", "ymin", "xmax", "ymax"];
    const made: DataFile[] = [];
    for (const group of table.groups) {
      const columns = await Promise.all(names.map((name) => table.column(group, name)));
      for (let row = 0; row < group.rows; row += 1) {
        const [file, rows, size, start, end, west, south, east, north] = columns.map((column) => column[row]);
        made.push({
          path: String(file),
          rows: Number(rows),
          size: Number(size),
          start: Number(start),
          end: Number(end),
          box: {
            west: Number(west),
            south: Number(south),
            east: Number(east) < Number(west) ? Number(east) + 360 : Number(east),
            north: Number(north),
          },
        });
      }
    }
    return made;
  }

  table(file: { path: string; size: number }): Promise<Table> {
    const known = this.tables.get(file.path);
    if (known) return known;
    const opened = Table.open(file.path, this.source.buffer(file.path, file.size));
    this.tables.set(file.path, opened);
    opened.catch(() => this.tables.delete(file.path));
    return opened;
  }

  /** Files of a period that meet a box; the latest window last. */
  async filesIn(box: Box, period: Period): Promise<DataFile[]> {
    const files = await this.index();
    const found = files.filter((f) => f.start >= period.start && f.start < period.end && meet(f.box, box));
    return found.sort((a, b) => a.start - b.start);
  }

  /** Row groups of a file that may hold chips whose centers lie in a box. */
  async groupsIn(file: DataFile, box: Box): Promise<Group[]> {
    const table = await this.table(file);
    return table.groups.filter((group) => {
      const lat = table.range(group, "lat");
      const lon = table.range(group, "lon");
      return !lat || !lon || meet({ west: lon[0], south: lat[0], east: lon[1], north: lat[1] }, box);
    });
  }

  private padded(box: Box): Box {
    const pad = degrees(this.side, Math.max(Math.abs(box.south), Math.abs(box.north)));
    return {
      west: box.west - pad.lon,
      south: box.south - pad.lat,
      east: box.east + pad.lon,
      north: box.north + pad.lat,
    };
  }

  /** About how many chips of a period lie in a box, from the index alone. */
  async estimate(box: Box, period: Period): Promise<number> {
    const files = await this.filesIn(this.padded(box), period);
    return files.reduce((sum, { box: b, rows }) => {
      const tall = Math.min(b.north, box.north) - Math.max(b.south, box.south);
      const high = Math.max(b.north - b.south, 1e-9);
      const wide = Math.max(b.east - b.west, 1e-9);
      const across = [-360, 0, 360].map((t) => Math.min(b.east + t, box.east) - Math.max(b.west + t, box.west));
      return sum + rows * Math.min(1, Math.max(0, tall) / high) * Math.min(1, Math.max(0, ...across) / wide);
    }, 0);
  }

  /** Chips of a period whose centers lie in a box, or about there; null where they are too many. */
  async inBox(box: Box, period: Period): Promise<Chip[] | null> {
    if ((await this.estimate(box, period)) > MOST) return null;
    const wide = this.padded(box);
    const found: Chip[] = [];
    for (const file of await this.filesIn(wide, period)) {
      for (const group of await this.groupsIn(file, wide)) {
        const all = await this.group(file, group);
        found.push(...all.filter((c) => meet({ west: c.lon, east: c.lon, south: c.lat, north: c.lat }, wide)));
        if (found.length > 2 * MOST) return null;
      }
    }
    return found;
  }

  /** The chip in a row of a file. */
  async row(file: DataFile, row: number): Promise<Chip> {
    const table = await this.table(file);
    const group = table.groups.find(({ start, rows }) => row >= start && row < start + rows);
    const chip = group && (await this.group(file, group))[row - group.start];
    if (!chip) throw new ReleaseError(`${file.path} has no row ${row}.`);
    return chip;
  }

  /** All chips of a row group. */
  group(file: DataFile, group: Group): Promise<Chip[]> {
    const key = `${file.path} ${group.number}`;
    const known = this.lists.get(key);
    if (known) return known;
    const reading = this.readGroup(file, group);
    this.lists.set(key, reading);
    reading.catch(() => this.lists.delete(key));
    if (this.lists.size > 256) this.lists.delete(this.lists.keys().next().value as string);
    return reading;
  }

  private async readGroup(file: DataFile, group: Group): Promise<Chip[]> {
    const table = await this.table(file);
    if (this.summary.chips.layout === "utm") {
      const names = ["epsg", "row", "col", "lon", "lat"];
      const [epsg, row, col, lon, lat] = await Promise.all(names.map((name) => table.column(group, name)));
      return Array.from({ length: group.rows }, (_, place) => {
        const cell = { epsg: Number(epsg?.[place]), row: Number(row?.[place]), col: Number(col?.[place]) };
        const middle = { lon: Number(lon?.[place]), lat: Number(lat?.[place]) };
        return { file, group, row: place, ...middle, cell, rings: [outline(cell, this.side)] };
      });
    }
    const [geometry, lon, lat] = await Promise.all(["geometry", "lon", "lat"].map((name) => table.column(group, name)));
    return Array.from({ length: group.rows }, (_, place) => ({
      file,
      group,
      row: place,
      lon: Number(lon?.[place]),
      lat: Number(lat?.[place]),
      cell: null,
      rings: ringsOf(geometry?.[place]),
    }));
  }

  /** The chip of a period at a place, the latest window first; null where there is none. */
  async at(lon: number, lat: number, period: Period): Promise<Chip | null> {
    const point = { west: lon, east: lon, south: lat, north: lat };
    const near = this.padded(point);
    const files = await this.filesIn(near, period);
    for (const file of files.reverse()) {
      for (const group of await this.groupsIn(file, near)) {
        const found =
          this.summary.chips.layout === "utm"
            ? await this.cellIn(file, group, lon, lat)
            : await this.footprintIn(file, group, lon, lat);
        if (found) return found;
      }
    }
    return null;
  }

  private async cellIn(file: DataFile, group: Group, lon: number, lat: number): Promise<Chip | null> {
    const cell = cellAt(lon, lat, this.side);
    if (!cell) return null;
    const table = await this.table(file);
    const rows = table.range(group, "row");
    const cols = table.range(group, "col");
    if ((rows && (cell.row < rows[0] || cell.row > rows[1])) || (cols && (cell.col < cols[0] || cell.col > cols[1]))) {
      return null;
    }
    await table.warm(group, CLICK);
    const [epsg, row, col] = await Promise.all(["epsg", "row", "col"].map((name) => table.column(group, name)));
    const place = Array.from({ length: group.rows }, (_, at) => at).find(
      (at) => row?.[at] === cell.row && col?.[at] === cell.col && epsg?.[at] === cell.epsg,
    );
    if (place === undefined) return null;
    const middle = await Promise.all(["lon", "lat"].map((name) => table.column(group, name, place, place + 1)));
    const [x, y] = middle.map((values) => Number(values[0]));
    return { file, group, row: place, lon: x ?? lon, lat: y ?? lat, cell, rings: [outline(cell, this.side)] };
  }

  private async footprintIn(file: DataFile, group: Group, lon: number, lat: number): Promise<Chip | null> {
    const table = await this.table(file);
    await table.warm(group, CLICK);
    const [lons, lats] = await Promise.all(["lon", "lat"].map((name) => table.column(group, name)));
    const pad = degrees(this.side * 0.75, lat);
    for (let place = group.rows - 1; place >= 0; place -= 1) {
      const x = Number(lons?.[place]);
      const y = Number(lats?.[place]);
      if (Math.abs(y - lat) > pad.lat || Math.abs(wrapped(x - lon)) > pad.lon) continue;
      const [geometry] = await table.column(group, "geometry", place, place + 1);
      const rings = ringsOf(geometry);
      if (rings.some((ring) => holds(ring, lon, lat))) {
        return { file, group, row: place, lon: x, lat: y, cell: null, rings };
      }
    }
    return null;
  }

  /** What the row of a chip says. */
  async details(chip: Chip): Promise<Details> {
    const table = await this.table(chip.file);
    const { group, row } = chip;
    const one = async (name: string) => (table.has(name) ? (await table.column(group, name, row, row + 1))[0] : null);
    const [id, datetime, start, end, loss, valid, cloud, item, items] = await Promise.all(
      [...NAMES, "item_id", "item_ids"].map(one),
    );
    return {
      id: String(id),
      datetime: time(datetime),
      start: time(start),
      end: time(end),
      loss: fraction(loss),
      valid: fraction(valid),
      cloud: fraction(cloud),
      item: String(item ?? ""),
      items: Array.isArray(items) ? items.map(String) : [],
      thumbnail: await this.thumbnail(chip),
    };
  }

  /** The picture of a chip; null where it has none, or one that costs more than a click may. */
  async thumbnail(chip: Chip): Promise<Uint8Array | null> {
    const table = await this.table(chip.file);
    if (!table.has("thumbnail")) return null;
    if (!table.paged(chip.group, "thumbnail") && table.size(chip.group, "thumbnail") > CLICK_LIMIT) return null;
    const [value] = await table.column(chip.group, "thumbnail", chip.row, chip.row + 1);
    const bytes = (value as { bytes?: unknown } | null)?.bytes;
    return bytes instanceof Uint8Array && bytes.length ? bytes : null;
  }

  /** The id alone. */
  async id(chip: Chip): Promise<string> {
    const table = await this.table(chip.file);
    return String((await table.column(chip.group, "id", chip.row, chip.row + 1))[0]);
  }
}

/** Outer rings of a GeoJSON polygon or multipolygon. */
function ringsOf(geometry: unknown): Ring[] {
  const shape = geometry as GeoJSON.Geometry | null;
  const parts =
    shape?.type === "Polygon" ? [shape.coordinates] : shape?.type === "MultiPolygon" ? shape.coordinates : null;
  if (!parts) throw new ReleaseError("A chip's footprint is not a polygon.");
  return parts.flatMap((part) =>
    part[0] ? [part[0].map(([x, y]) => [Number(x), Number(y)] as [number, number])] : [],
  );
}

function holds(ring: Ring, lon: number, lat: number): boolean {
  let inside = false;
  const at = lon;
  for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
    const [x0, y0] = ring[i] ?? [0, 0];
    const [x1, y1] = ring[j] ?? [0, 0];
    if (y0 > lat !== y1 > lat && at < x0 + ((x1 - x0) * (lat - y0)) / (y1 - y0)) inside = !inside;
  }
  return inside;
}

function time(value: unknown): string {
  return value instanceof Date && !Number.isNaN(value.getTime()) ? value.toISOString() : "";
}

function fraction(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
