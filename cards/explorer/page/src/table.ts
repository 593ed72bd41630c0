/** Parquet tables of the release, column by column and page by page. */

import { type FileMetaData, parquetMetadataAsync, parquetScan, type RowGroup } from "hyparquet";
import { decompressGzip, decompressZstd } from "hyparquet-compressors";
import { type PageBuffer, ReleaseError } from "./source";

const compressors = {
  ZSTD: (input: Uint8Array, length: number) => decompressZstd(input, new Uint8Array(length)),
  GZIP: decompressGzip,
};
const FOOTER = 1 << 16;
/** Compressed bytes of columns that are read in one. */
const WARM_LIMIT = 200_000;
/** Bytes of one column of one row group that are read: more is a mistake or an attack. */
const CHUNK_LIMIT = 1 << 28;

export interface Group {
  number: number;
  start: number;
  rows: number;
}

export class Table {
  private constructor(
    readonly path: string,
    private readonly file: PageBuffer,
    readonly metadata: FileMetaData,
  ) {}

  static async open(path: string, file: PageBuffer): Promise<Table> {
    try {
      return new Table(path, file, await parquetMetadataAsync(file, { initialFetchSize: FOOTER }));
    } catch (error) {
      if (error instanceof ReleaseError) throw error;
      throw new ReleaseError(`${path} is not a readable Parquet file.`);
    }
  }

  get groups(): Group[] {
    let start = 0;
    return this.metadata.row_groups.map((group, number) => {
      const made = { number, start, rows: Number(group.num_rows) };
      start += made.rows;
      return made;
    });
  }

  has(column: string): boolean {
    return this.metadata.schema.some((element) => element.name === column);
  }

  private chunks(group: Group, column: string) {
    const found: RowGroup | undefined = this.metadata.row_groups[group.number];
    return (found?.columns ?? []).filter((chunk) => chunk.meta_data?.path_in_schema[0] === column);
  }

  /** Compressed bytes of a column in a row group. */
  size(group: Group, column: string): number {
    return this.chunks(group, column).reduce((sum, c) => sum + Number(c.meta_data?.total_compressed_size ?? 0), 0);
  }

  /** Read columns of a row group in few requests, if that costs little. */
  async warm(group: Group, columns: string[]): Promise<void> {
    const chunks = columns.flatMap((column) => this.chunks(group, column));
    if (columns.reduce((sum, column) => sum + this.size(group, column), 0) > WARM_LIMIT) return;
    const ranges = chunks.flatMap(({ meta_data: data, offset_index_offset: at, offset_index_length: length }) => {
      const start = Number(data?.dictionary_page_offset || data?.data_page_offset || 0);
      const found: [number, number][] = [[start, start + Number(data?.total_compressed_size ?? 0)]];
      if (at !== undefined && length !== undefined) found.push([Number(at), Number(at) + length]);
      return found;
    });
    await this.file.warm?.(ranges);
  }

  /** Whether single pages of a column can be read. */
  paged(group: Group, column: string): boolean {
    return this.chunks(group, column).every((chunk) => chunk.offset_index_offset !== undefined);
  }

  /** Smallest and largest value of a column in a row group; null where the file does not say. */
  range(group: Group, column: string): [number, number] | null {
    const statistics = this.chunks(group, column)[0]?.meta_data?.statistics;
    const low = numeric(statistics?.min_value);
    const high = numeric(statistics?.max_value);
    return low === null || high === null ? null : [low, high];
  }

  /** Values of a column in rows `from` to `to` of a row group, counted from the group's start. */
  async column(group: Group, name: string, from = 0, to = group.rows): Promise<unknown[]> {
    const chunks = this.chunks(group, name);
    if (!chunks.length) throw new ReleaseError(`${this.path} has no column ${name}.`);
    if (chunks.some((chunk) => Number(chunk.meta_data?.total_uncompressed_size ?? 0) > CHUNK_LIMIT)) {
      throw new ReleaseError(`${this.path}: column ${name} is too large to be read here.`);
    }
    try {
      const rowStart = group.start + from;
      const rowEnd = group.start + to;
      const scan = await parquetScan({
        file: this.file,
        metadata: this.metadata,
        columns: [name],
        rowStart,
        rowEnd,
        compressors,
        ...(name === "thumbnail" ? { utf8: false } : {}),
      });
      const values = Array.from((await scan.readColumn({ column: name, rowStart, rowEnd })) as ArrayLike<unknown>);
      if (values.length !== to - from) {
        throw new ReleaseError(`${this.path}: column ${name} has ${values.length} values of ${to - from}.`);
      }
      return values;
    } catch (error) {
      if (error instanceof ReleaseError) throw error;
      throw new ReleaseError(
        `${this.path}: column ${name} cannot be read (${error instanceof Error ? error.message : error}).`,
      );
    }
  }
}

function numeric(value: unknown): number | null {
  if (typeof value === "number") return value;
  if (typeof value === "bigint") return Number(value);
  if (value instanceof Date) return value.getTime();
  return null;
}
