/**
 * Compact codes of the vectors: which chips of an area may be alike, where its vectors are too many to be read.
 *
 * A file of codes is an Arrow IPC file of one zone and window; its rows follow the embeddings files in order of their
 * names, so that the codes of an area are a few ranges of it. docs/outputs.md says how they are made.
 */

import type { DataFile } from "./chips";
import { type Box, meet } from "./grid";
import { ReleaseError, type ReleaseSource } from "./source";

const METHOD = "signed Walsh-Hadamard rotation, uniform quantization per vector, bit planes";
const BATCH = 65_536;
const HEAD = 1 << 16;
const HEAD_LIMIT = 1 << 24;
/** Columns after the planes: factor, lon, lat, file, row; 4 bytes each. */
const PLACES = 5;

export interface Candidate {
  file: DataFile;
  /** In the file. */
  row: number;
  /** Of the cosine with the query. */
  estimate: number;
}

export class Codes {
  private readonly heads = new Map<string, Promise<{ first: number; stride: number; metadata: number }>>();

  private constructor(
    private readonly source: ReleaseSource,
    private readonly dimensions: number,
    private readonly bits: number,
    private readonly span: number,
    private readonly signs: number[][],
  ) {}

  /** Read codes/model.json. */
  static async open(source: ReleaseSource, dimensions: number): Promise<Codes> {
    const model = await source.json("codes/model.json");
    const span = 2 ** Math.floor(Math.log2(dimensions));
    const signs = Array.isArray(model?.signs) ? model.signs.map((each) => signsOf(each, dimensions)) : [];
    const { bits } = model ?? {};
    const known = model?.method === METHOD && model.dimensions === dimensions && model.transform_size === span;
    if (!known || (bits !== 4 && bits !== 8) || signs.length !== 2) {
      throw new ReleaseError("codes/model.json describes codes that this page cannot read.");
    }
    return new Codes(source, dimensions, bits, span, signs);
  }

  /** Bytes of a plane: one bit of every dimension. */
  private get width(): number {
    return Math.ceil(this.dimensions / 16) * 2;
  }

  /** Bytes that are read of one chip. */
  get bytesPerChip(): number {
    return this.bits * this.width + 12;
  }

  /**
   * The chips of some files whose centers lie in a box, or all of them: those with the largest estimate of the cosine.
   *
   * @param all the index of the release: says where the codes of a file begin.
   */
  async best(
    wanted: DataFile[],
    all: DataFile[],
    direction: Float64Array,
    box: Box | null,
    most: number,
    report: (share: number) => void,
    signal: AbortSignal,
  ): Promise<{ found: Candidate[]; searched: number }> {
    const query = new Query(this.rotate(direction), this.width, this.bits);
    let found: Candidate[] = [];
    let searched = 0;
    const tasks = spans(wanted, all);
    for (const [number, { path, batch, from, pieces }] of tasks.entries()) {
      signal.throwIfAborted();
      const to = from + pieces.reduce((sum, { count }) => sum + count, 0);
      const { planes, factor, lon, lat } = await this.read(path, batch, from, to, signal);
      let at = 0;
      for (const { file, row, count } of pieces) {
        for (let step = 0; step < count; step += 1, at += 1) {
          const [x, y] = [lon[at] as number, lat[at] as number];
          if (box && !meet({ west: x, east: x, south: y, north: y }, box)) continue;
          searched += 1;
          const estimate = query.cosine(planes, at) * (factor[at] as number);
          if (Number.isFinite(estimate)) found.push({ file, row: row + step, estimate });
        }
      }
      found = found.sort((a, b) => b.estimate - a.estimate).slice(0, most);
      report((number + 1) / tasks.length);
      await new Promise((resolve) => setTimeout(resolve));
    }
    return { found, searched };
  }

  /** A vector in the space of the codes, of length 1: the first 2^k values are mixed, then the last 2^k. */
  private rotate(vector: Float64Array): Float64Array {
    const turned = Float64Array.from(vector);
    const rest = this.dimensions - this.span;
    for (const [step, signs] of this.signs.entries()) {
      for (let at = 0; at < turned.length; at += 1) turned[at] = (turned[at] as number) * (signs[at] as number);
      const start = step === 0 ? 0 : rest;
      hadamard(turned.subarray(start, start + this.span));
      const others = step === 0 ? turned.subarray(this.span) : turned.subarray(0, rest);
      for (let at = 0; at < others.length; at += 1) others[at] = (others[at] as number) * Math.sqrt(this.span);
    }
    const length = Math.hypot(...turned);
    return turned.map((value) => value / length);
  }

  /** Rows of a record batch: the planes, the highest bit first, and the columns that are needed. */
  private async read(path: string, batch: number, from: number, to: number, signal: AbortSignal) {
    const { first, stride, metadata } = await this.head(path);
    const start = first + batch * stride;
    const buffers = this.buffers(path, await this.source.range(path, start, start + metadata, signal), to);
    const ranges = Array.from({ length: this.bits + 3 }, (_, column): [number, number] => {
      const width = column < this.bits ? this.width : 4;
      const at = start + metadata + (buffers[column] as number);
      return [at + from * width, at + to * width];
    });
    const data = await this.source.rangesOf(path, ranges, signal);
    const [factor, lon, lat] = data.slice(this.bits).map((bytes) => new Float32Array(bytes));
    if (!factor || !lon || !lat) throw damaged(path);
    return { planes: data.slice(0, this.bits).map((bytes) => new Uint8Array(bytes)), factor, lon, lat };
  }

  /** Where the record batches of a file lie: all but the last have the same length. */
  private head(path: string) {
    const known = this.heads.get(path);
    if (known) return known;
    const reading = this.readHead(path);
    this.heads.set(path, reading);
    reading.catch(() => this.heads.delete(path));
    return reading;
  }

  private async readHead(path: string) {
    let data = new DataView(await this.source.range(path, 0, HEAD));
    if (data.byteLength < 16 || data.getUint32(0) !== 0x4152524f || data.getUint32(8, true) !== 0xffffffff) {
      throw damaged(path);
    }
    const first = 16 + data.getUint32(12, true);
    if (first > HEAD_LIMIT) throw damaged(path);
    if (first + 8 > data.byteLength) data = new DataView(await this.source.range(path, 0, first + HEAD));
    if (data.byteLength < first + 8 || data.getUint32(first, true) !== 0xffffffff) throw damaged(path);
    const metadata = 8 + data.getUint32(first + 4, true);
    if (metadata > HEAD || data.byteLength < first + metadata) throw damaged(path);
    const body = message(data, first, path)(3);
    const length = body ? Number(data.getBigInt64(body, true)) : 0;
    return { first, metadata, stride: metadata + length };
  }

  /** Offsets of the columns in the body of a record batch, checked against its number of rows. */
  private buffers(path: string, metadata: ArrayBuffer, rows: number): number[] {
    const data = new DataView(metadata);
    const outer = message(data, 0, path);
    const [kind, header] = [outer(1), outer(2)];
    if (!kind || data.getUint8(kind) !== 3 || !header) throw damaged(path);
    const field = table(data, header + data.getUint32(header, true));
    const [length, list] = [field(0), field(2)];
    if (!length || !list || field(3)) throw damaged(path);
    const count = Number(data.getBigInt64(length, true));
    const base = list + data.getUint32(list, true);
    if (count < rows || data.getUint32(base, true) !== 2 * (this.bits + PLACES)) throw damaged(path);
    return Array.from({ length: this.bits + PLACES }, (_, column) => {
      const at = base + 4 + 16 * (2 * column + 1); // each column has a bitmap of nulls, which is empty, before its data
      const size = count * (column < this.bits ? this.width : 4);
      if (Number(data.getBigInt64(at + 8, true)) !== size) throw damaged(path);
      return Number(data.getBigInt64(at, true));
    });
  }
}

/** A direction to be compared with codes, by the sums of all patterns of eight of its values. */
class Query {
  private readonly sums: Float32Array;
  private readonly middle: number;

  constructor(
    direction: Float64Array,
    private readonly width: number,
    bits: number,
  ) {
    this.sums = new Float32Array(256 * width);
    for (let byte = 0; byte < width; byte += 1) {
      for (let pattern = 1; pattern < 256; pattern += 1) {
        const low = Math.log2(pattern & -pattern);
        const rest = this.sums[256 * byte + (pattern & (pattern - 1))] as number;
        this.sums[256 * byte + pattern] = rest + (direction[8 * byte + 7 - low] ?? 0);
      }
    }
    this.middle = ((2 ** bits - 1) / 2) * direction.reduce((sum, value) => sum + value, 0);
  }

  /** The inner product with the code of one row. */
  cosine(planes: Uint8Array[], row: number): number {
    let total = 0;
    for (const plane of planes) {
      let here = 0;
      for (let byte = 0, at = row * this.width; byte < this.width; byte += 1, at += 1) {
        here += this.sums[256 * byte + (plane[at] as number)] as number;
      }
      total = 2 * total + here;
    }
    return total - this.middle;
  }
}

interface Piece {
  file: DataFile;
  /** In the file. */
  row: number;
  count: number;
}

interface Span {
  path: string;
  batch: number;
  /** Row of the batch at which the first piece begins; the others follow without a gap. */
  from: number;
  pieces: Piece[];
}

/** The rows of codes that belong to some embeddings files. */
function spans(wanted: DataFile[], all: DataFile[]): Span[] {
  const asked = new Set(wanted);
  const byPath = new Map<string, DataFile[]>();
  for (const file of all) {
    const path = codePath(file);
    byPath.set(path, [...(byPath.get(path) ?? []), file]);
  }
  const made: Span[] = [];
  for (const [path, files] of byPath) {
    if (!files.some((file) => asked.has(file))) continue;
    let start = 0;
    for (const file of files.sort((a, b) => (a.path < b.path ? -1 : 1))) {
      for (let row = 0; asked.has(file) && row < file.rows; ) {
        const [batch, from] = [Math.floor((start + row) / BATCH), (start + row) % BATCH];
        const count = Math.min(file.rows - row, BATCH - from);
        const last = made.at(-1);
        const end = last ? last.from + last.pieces.reduce((sum, piece) => sum + piece.count, 0) : -1;
        if (last?.path === path && last.batch === batch && end === from) last.pieces.push({ file, row, count });
        else made.push({ path, batch, from, pieces: [{ file, row, count }] });
        row += count;
      }
      start += file.rows;
    }
  }
  return made;
}

/** Where the codes of an embeddings file lie: embeddings/zone=18/18_04_41_START_END.parquet has codes/zone=18/START_END.arrow. */
function codePath(file: DataFile): string {
  const found = /^embeddings\/(zone=\d\d)\/[^/_]+_[^/_]+_[^/_]+_([^/]+)\.parquet$/.exec(file.path);
  if (!found) throw new ReleaseError(`${file.path} is not a path of an embeddings file.`);
  return `codes/${found[1]}/${found[2]}.arrow`;
}

function hadamard(values: Float64Array): void {
  for (let half = 1; half < values.length; half *= 2) {
    for (let start = 0; start < values.length; start += 2 * half) {
      for (let at = start; at < start + half; at += 1) {
        const [first, second] = [values[at] as number, values[at + half] as number];
        values[at] = first + second;
        values[at + half] = first - second;
      }
    }
  }
}

/** ±1 from a hexadecimal text: a bit that is set is −1, the highest first. */
function signsOf(text: unknown, dimensions: number): number[] {
  if (typeof text !== "string" || text.length !== 2 * Math.ceil(dimensions / 8)) return [];
  return Array.from({ length: dimensions }, (_, at) =>
    (Number.parseInt(text.slice(2 * (at >> 3), 2 * (at >> 3) + 2), 16) >> (7 - (at & 7))) & 1 ? -1 : 1,
  );
}

/** Fields of an Arrow message, which begins with a marker and its length. */
function message(data: DataView, start: number, path: string): (field: number) => number {
  if (data.byteLength < start + 12 || data.getUint32(start, true) !== 0xffffffff) throw damaged(path);
  return table(data, start + 8 + data.getUint32(start + 8, true));
}

/** Where each field of a FlatBuffers table lies; 0 where it is absent. */
function table(data: DataView, at: number): (field: number) => number {
  const known = at - data.getInt32(at, true);
  return (field) => {
    const slot = 4 + 2 * field;
    const offset = slot < data.getUint16(known, true) ? data.getUint16(known + slot, true) : 0;
    return offset ? at + offset : 0;
  };
}

function damaged(path: string): ReleaseError {
  return new ReleaseError(`${path} is not a readable file of codes.`);
}
