/** The chips most like some chips and least like others: all vectors of an area compared, or those of the best codes. */

import type { Chip, Chips, DataFile } from "./chips";
import { Codes } from "./codes";
import { type Box, meet } from "./grid";
import { ReleaseError, type ReleaseSource } from "./source";
import type { Period, Summary } from "./summary";
import type { Group } from "./table";

/** Compressed bytes of vectors, or of codes, that one search reads. */
export const SEARCH_LIMIT = 64_000_000;
/** Compressed bytes of vectors that are read where there are codes, which say the same in fewer. */
const EXACT_LIMIT = 8_000_000;
/** Best codes whose vectors are compared. */
const CANDIDATES = 64;
/** No estimate is farther from the cosine: such codes are not those of the vectors. */
const MISFIT = 0.15;
const KEPT_LIMIT = 512_000_000;

export interface Found {
  chip: Chip;
  /** Cosine with the query. */
  similarity: number;
}

export interface Answer {
  found: Found[];
  /** Chips compared, by their vectors or by their codes. */
  searched: number;
  /** Of these, how many vectors were compared where codes were; null where all were. */
  compared: number | null;
}

interface Work {
  file: DataFile;
  group: Group;
}

export class Similar {
  private readonly kept = new Map<string, Float32Array>();
  private bytes = 0;
  private codes: Promise<Codes> | null = null;

  constructor(
    private readonly source: ReleaseSource,
    private readonly chips: Chips,
    private readonly summary: Summary,
  ) {}

  /** The stored vector of one chip, quantization undone. */
  async vector(chip: Chip): Promise<Float32Array> {
    const { row } = chip;
    return this.read(chip.file, chip.group, row, row + 1);
  }

  /** Row groups to be read for a box, and their compressed bytes. */
  private async plan(box: Box, files: DataFile[]): Promise<{ work: Work[]; bytes: number }> {
    const work: Work[] = [];
    let bytes = 0;
    for (const file of files) {
      if (bytes > this.limit) break;
      const table = await this.chips.table(file);
      for (const group of await this.chips.groupsIn(file, box)) {
        work.push({ file, group });
        bytes += table.size(group, "embedding");
      }
    }
    return { work, bytes };
  }

  private get limit(): number {
    return this.summary.codes ? EXACT_LIMIT : SEARCH_LIMIT;
  }

  /**
   * Rank the chips of a period whose centers lie in a box, or all of them.
   *
   * The query is the mean of the positive vectors less the mean of the negative ones, each brought to length 1; chips
   * are ranked by their cosine with it, of equal ones the first in the release first. The marked chips are left out.
   */
  async rank(
    positive: Chip[],
    negative: Chip[],
    box: Box | null,
    period: Period,
    most: number,
    report: (share: number) => void,
    signal: AbortSignal,
  ): Promise<Answer> {
    const area = box ?? { west: -180, south: -90, east: 180, north: 90 };
    const files = await this.chips.filesIn(area, period);
    const { work, bytes } = await this.plan(area, files);
    if (bytes > this.limit && !this.summary.codes) throw new ReleaseError(TOO_MUCH);
    const query = await this.query(positive, negative);
    const marked = new Set([...positive, ...negative].map(key));
    if (bytes > this.limit) return this.rankByCodes(files, query, marked, box, most, report, signal);
    let best: Found[] = [];
    let searched = 0;
    for (const [number, { file, group }] of work.entries()) {
      signal.throwIfAborted();
      const values = await this.group(file, group);
      const list = await this.chips.group(file, group);
      const cosines = cosinesWith(values, query);
      for (const [row, chip] of list.entries()) {
        const similarity = cosines[row] ?? Number.NaN;
        const point = { west: chip.lon, east: chip.lon, south: chip.lat, north: chip.lat };
        if (!Number.isFinite(similarity) || (box && !meet(point, box))) continue;
        searched += 1;
        if (!marked.has(key(chip))) best.push({ chip, similarity });
      }
      best = best.sort((a, b) => b.similarity - a.similarity).slice(0, most);
      report((number + 1) / work.length);
      await new Promise((resolve) => setTimeout(resolve));
    }
    return { found: best, searched, compared: null };
  }

  /** As `rank`: the best codes are candidates, and their vectors decide. */
  private async rankByCodes(
    files: DataFile[],
    query: Float64Array,
    marked: Set<string>,
    box: Box | null,
    most: number,
    report: (share: number) => void,
    signal: AbortSignal,
  ): Promise<Answer> {
    this.codes ??= Codes.open(this.source, this.summary.model.dimensions);
    const codes = await this.codes;
    if (files.reduce((sum, { rows }) => sum + rows, 0) * codes.bytesPerChip > SEARCH_LIMIT) {
      throw new ReleaseError(TOO_MUCH);
    }
    const all = await this.chips.index();
    const { found, searched } = await codes.best(files, all, query, box, CANDIDATES + marked.size, report, signal);
    const wanted = found.filter(({ file, row }) => !marked.has(`${file.path} ${row}`)).slice(0, CANDIDATES);
    const exact = await Promise.all(
      wanted.map(async ({ file, row, estimate }): Promise<Found> => {
        const chip = await this.chips.row(file, row);
        const similarity = cosinesWith(await this.vector(chip), query)[0] ?? Number.NaN;
        if (!(Math.abs(similarity - estimate) <= MISFIT)) {
          throw new ReleaseError(`${file.path} has another vector in row ${row} than its code was made from.`);
        }
        return { chip, similarity };
      }),
    );
    signal.throwIfAborted();
    return {
      found: exact.sort((a, b) => b.similarity - a.similarity).slice(0, most),
      searched,
      compared: exact.length,
    };
  }

  private async query(positive: Chip[], negative: Chip[]): Promise<Float64Array> {
    const made = new Float64Array(this.summary.model.dimensions);
    for (const [chips, sign] of [
      [positive, 1],
      [negative, -1],
    ] as const) {
      for (const chip of chips) {
        const vector = await this.vector(chip);
        const length = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
        for (let at = 0; at < made.length; at += 1) {
          made[at] = (made[at] ?? 0) + (sign * (vector[at] ?? 0)) / (length * chips.length);
        }
      }
    }
    const length = Math.sqrt(made.reduce((sum, value) => sum + value * value, 0));
    if (!(length > 0)) throw new ReleaseError("The chosen chips cancel each other out. Choose others.");
    return made.map((value) => value / length);
  }

  private async group(file: DataFile, group: Group): Promise<Float32Array> {
    const name = `${file.path} ${group.number}`;
    const known = this.kept.get(name);
    if (known) return known;
    const values = await this.read(file, group, 0, group.rows);
    this.bytes += values.byteLength;
    this.kept.set(name, values);
    for (const [old, data] of this.kept) {
      if (this.bytes <= KEPT_LIMIT) break;
      this.kept.delete(old);
      this.bytes -= data.byteLength;
    }
    return values;
  }

  /** [rows × dimensions], row after row. */
  private async read(file: DataFile, group: Group, from: number, to: number): Promise<Float32Array> {
    const table = await this.chips.table(file);
    const rows = await table.column(group, "embedding", from, to);
    const scales = table.has("scale") ? await table.column(group, "scale", from, to) : null;
    const { dimensions } = this.summary.model;
    const made = new Float32Array(rows.length * dimensions);
    for (const [place, row] of rows.entries()) {
      const values = row as ArrayLike<number>;
      if (values.length !== dimensions)
        throw new ReleaseError(`${file.path} holds vectors of ${values.length} numbers.`);
      const scale = scales ? Number(scales[place]) : 1;
      for (let at = 0; at < dimensions; at += 1) made[place * dimensions + at] = (values[at] ?? Number.NaN) * scale;
    }
    return made;
  }
}

/** Why an area is not searched. */
const TOO_MUCH = `A search reads at most ${SEARCH_LIMIT / 1_000_000} MB, and this area holds more. Zoom in to search a smaller one.`;

/** Identity of a chip in a release. */
export function key(chip: Chip): string {
  return `${chip.file.path} ${chip.group.start + chip.row}`;
}

function cosinesWith(values: Float32Array, query: Float64Array): Float64Array {
  const rows = values.length / query.length;
  const made = new Float64Array(rows);
  for (let row = 0; row < rows; row += 1) {
    let dot = 0;
    let square = 0;
    const start = row * query.length;
    for (let at = 0; at < query.length; at += 1) {
      const value = values[start + at] as number;
      dot += value * (query[at] as number);
      square += value * value;
    }
    made[row] = dot / Math.sqrt(square);
  }
  return made;
}
