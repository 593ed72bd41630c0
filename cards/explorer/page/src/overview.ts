/** The overviews: raster tiles from PMTiles, and the color that they give to one place. */

import { PMTiles, type RangeResponse, type Source } from "pmtiles";
import { wrapped } from "./grid";
import type { ReleaseSource } from "./source";
import type { Summary } from "./summary";

const KEPT = 64;

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

  /** The stored bytes of a tile; null where it is empty. */
  async tile(layer: string, period: string, z: number, x: number, y: number, signal?: AbortSignal) {
    if (!this.has(layer, period)) return null;
    const path = `explore/tiles/${period}/${layer}.pmtiles`;
    let archive = this.archives.get(path);
    if (!archive) {
      archive = new PMTiles(new PmtilesSource(this.source, path));
      this.archives.set(path, archive);
    }
    return (await archive.getZxy(z, x, y, signal))?.data ?? null;
  }

  /** The color of a layer at a place, as #rrggbb; null where nothing is drawn. */
  async color(layer: string, period: string, lon: number, lat: number): Promise<string | null> {
    const { maxzoom, size } = this.summary.tiles;
    const scale = 2 ** maxzoom;
    const x = (wrapped(lon) / 360 + 0.5) * scale;
    const y = (0.5 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / (2 * Math.PI)) * scale;
    const image = await this.image(layer, period, maxzoom, Math.floor(x), Math.floor(y));
    if (!image) return null;
    const at = 4 * (Math.floor((y % 1) * size) * image.width + Math.floor((x % 1) * size));
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
