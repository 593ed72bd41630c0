/** The `utm` grid: which cell holds a place, and the outline of a cell. */

import { fromUtm, mod, toUtm, zoneOf } from "./utm";

export interface Cell {
  epsg: number;
  row: number;
  col: number;
}

/** The cell that owns a place, in the plain zone of its longitude; null outside 80°S to 84°N. */
export function cellAt(lon: number, lat: number, side: number): Cell | null {
  if (lat < -80 || lat > 84) return null;
  const zone = zoneOf(lon);
  const { easting, northing } = toUtm(zone, lon, lat);
  const row = Math.floor(northing / side);
  return { epsg: (row >= 0 ? 32600 : 32700) + zone, row, col: Math.floor(easting / side) };
}

/** Closed outline of a cell, counterclockwise; longitudes may lie beyond ±180. */
export function outline(cell: Cell, side: number): [number, number][] {
  const zone = cell.epsg % 100;
  const corners = [
    [0, 0],
    [1, 0],
    [1, 1],
    [0, 1],
    [0, 0],
  ] as const;
  return corners.map(([x, y]) => fromUtm(zone, (cell.col + x) * side, (cell.row + y) * side));
}

/** The cell of a chip id such as utm-1280m_32618_3283_331_2016-01-12_2016-01-13; null for any other text. */
export function parseChipId(id: string): Cell | null {
  const match = /^utm-[0-9.e+-]+m_(32[67]\d\d)_(-?\d+)_(\d+)_/.exec(id);
  return match ? { epsg: Number(match[1]), row: Number(match[2]), col: Number(match[3]) } : null;
}

/** Longitude between -180 and 180. */
export function wrapped(lon: number): number {
  return mod(lon + 180, 360) - 180;
}

export interface Box {
  west: number;
  south: number;
  /** At least west; beyond 180 across the antimeridian. */
  east: number;
  north: number;
}

/** Whether two boxes share ground, on a round Earth. */
export function meet(a: Box, b: Box): boolean {
  if (a.south > b.north || a.north < b.south) return false;
  return [-720, -360, 0, 360, 720].some((turn) => a.west + turn <= b.east && a.east + turn >= b.west);
}

/** Degrees of latitude and longitude that a number of meters spans at most. */
export function degrees(meters: number, lat: number): { lat: number; lon: number } {
  const tall = meters / 110_000;
  return { lat: tall, lon: tall / Math.max(0.03, Math.cos((Math.min(89, Math.abs(lat)) * Math.PI) / 180)) };
}
