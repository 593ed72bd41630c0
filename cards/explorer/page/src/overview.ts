/** The overviews: raster tiles from PMTiles, and the color that they give to one place. */

import { PMTiles, type RangeResponse, type Source } from "pmtiles";
import type { Chip } from "./chips";
import { wrapped } from "./grid";
import type { ReleaseSource } from "./source";
import type { Summary } from "./summary";
import { zoneOf } from "./utm";

const KEPT = 64;
/** Circumference at the equator, meters. */
const EARTH = 40_075_016.68;

class PmtilesSource implements Source {
  constructor(
    private readonly source: ReleaseSource,
    private readonly path: string,
  ) {}

  getKey(): string {
    return this.path;
  }

  async getBytes(offset: number, length: number, signal?: AbortSignal): Promise<RangeResponse> {
    return { data: await this.source.range(this.path, offset, offset + length, signal) };
  }
}

export class Overviews {
  private readonly archives = new Map<string, PMTiles>();
  private readonly pixels = new Map<string, Promise<ImageData | null>>();

  constructor(
    private readonly source: ReleaseSource,
    private readonly summary: Summary,
  ) {}

  /** Whether a layer was drawn for a period. */
  has(layer: string, period: string): boolean {
    return this.summary.layers.some((each) => each.id === layer && each.periods.includes(period));
  }

  /** Read the directory of an overview before its tiles are asked for. */
  warm(layer: string, period: string): void {
    this.archive(layer, period)
      ?.getHeader()
      .catch(() => {}); // the first tile says what is wrong
  }

  private archive(layer: string, period: string): PMTiles | null {
    if (!this.has(layer, period)) return null;
    const path = `explore/tiles/${period}/${layer}.pmtiles`;
    let archive = this.archives.get(path);
    if (!archive) {
      archive = new PMTiles(new PmtilesSource(this.source, path));
      this.archives.set(path, archive);
    }
    return archive;
  }

  /** The stored bytes of a tile; null where it is empty. */
  async tile(layer: string, period: string, z: number, x: number, y: number, signal?: AbortSignal) {
    return (await this.archive(layer, period)?.getZxy(z, x, y, signal))?.data ?? null;
  }

  /** A tile as MapLibre takes it: its bytes, or the part of a coarser one where the pyramid ends before. */
  async picture(layer: string, period: string, z: number, x: number, y: number, signal: AbortSignal) {
    const [leaf, column, row] = this.leaf(z, x, y);
    if (leaf === z) return this.tile(layer, period, z, x, y, signal);
    const data = await this.tile(layer, period, leaf, column, row, signal);
    if (!data) return null;
    const { size } = this.summary.tiles;
    const parts = 2 ** (z - leaf);
    const part = size / parts;
    const options: ImageBitmapOptions = { resizeWidth: size, resizeHeight: size, resizeQuality: "pixelated" };
    const [left, top] = [(x - column * parts) * part, (y - row * parts) * part];
    return createImageBitmap(new Blob([data], { type: "image/webp" }), left, top, part, part, options);
  }

  /** The tile that shows a tile's ground at the pyramid's end: where no pixel is larger than a chip. */
  private leaf(z: number, x: number, y: number): [number, number, number] {
    const { size } = this.summary.tiles;
    for (let zoom = 0; zoom < z; zoom += 1) {
      const column = Math.floor(x / 2 ** (z - zoom));
      const row = Math.floor(y / 2 ** (z - zoom));
      const [north, south] = [row, row + 1].map((edge) => Math.PI * (1 - (2 * edge) / 2 ** zoom)) as [number, number];
      const nearest = south <= 0 && north >= 0 ? 0 : Math.min(Math.abs(south), Math.abs(north));
      if (EARTH / Math.cosh(nearest) / size / 2 ** zoom <= this.summary.chips.side) return [zoom, column, row];
    }
    return [z, x, y];
  }

  /** The color of a chip; null where it lies past the edge of its zone: the overview shows the other zone's chip there. */
  async colorOf(layer: string, period: string, { cell, lon, lat }: Chip): Promise<string | null> {
    return cell && zoneOf(lon) !== cell.epsg % 100 ? null : this.color(layer, period, lon, lat);
  }

  /** The color of a layer at a place, as #rrggbb; null where nothing is drawn. */
  async color(layer: string, period: string, lon: number, lat: number): Promise<string | null> {
    const { maxzoom, size } = this.summary.tiles;
    const x = wrapped(lon) / 360 + 0.5;
    const y = 0.5 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / (2 * Math.PI);
    const [zoom, column, row] = this.leaf(maxzoom, Math.floor(x * 2 ** maxzoom), Math.floor(y * 2 ** maxzoom));
    const image = await this.image(layer, period, zoom, column, row);
    if (!image) return null;
    const at =
      4 * (Math.floor((y * 2 ** zoom - row) * size) * image.width + Math.floor((x * 2 ** zoom - column) * size));
    const [red, green, blue, alpha] = image.data.subarray(at, at + 4);
    return alpha ? `#${[red, green, blue].map((part) => (part ?? 0).toString(16).padStart(2, "0")).join("")}` : null;
  }

  private image(layer: string, period: string, z: number, x: number, y: number): Promise<ImageData | null> {
    const key = `${layer}/${period}/${z}/${x}/${y}`;
    const known = this.pixels.get(key);
    if (known) return known;
    const reading = this.decode(layer, period, z, x, y);
    this.pixels.set(key, reading);
    reading.catch(() => this.pixels.delete(key));
    if (this.pixels.size > KEPT) this.pixels.delete(this.pixels.keys().next().value as string);
    return reading;
  }

  private async decode(layer: string, period: string, z: number, x: number, y: number): Promise<ImageData | null> {
    const data = await this.tile(layer, period, z, x, y);
    if (!data) return null;
    const { size } = this.summary.tiles;
    const options: ImageBitmapOptions = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const bitmap = await createImageBitmap(new Blob([data], { type: "image/webp" }), options);
    const canvas = new OffscreenCanvas(size, size);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) return null;
    context.drawImage(bitmap, 0, 0, size, size);
    return context.getImageData(0, 0, size, size);
  }
}
