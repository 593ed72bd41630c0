/** What the page shows, in the part of its address after the hash: a link shows the same. */

export interface State {
  lon: number;
  lat: number;
  zoom: number;
  layer: string;
  period: string;
  opacity: number;
  /** Chips as longitude, latitude. */
  chip: Place | null;
  positive: Place[];
  negative: Place[];
}

export type Place = [number, number];

export function readState(hash: string): Partial<State> {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const made: Partial<State> = {};
  const [zoom, lat, lon] = (given.get("map") ?? "").split("/").map(Number);
  if (zoom !== undefined && lat !== undefined && lon !== undefined && [zoom, lat, lon].every(Number.isFinite)) {
    Object.assign(made, { zoom: clamp(zoom, 0, 22), lat: clamp(lat, -85, 85), lon: clamp(lon, -540, 540) });
  }
  const layer = given.get("layer");
  if (layer) made.layer = layer;
  const period = given.get("period");
  if (period) made.period = period;
  const opacity = Number.parseFloat(given.get("opacity") ?? "");
  if (Number.isFinite(opacity)) made.opacity = clamp(opacity, 0, 1);
  const chip = places(given.get("chip"))[0];
  if (chip) made.chip = chip;
  made.positive = places(given.get("like"));
  made.negative = places(given.get("unlike"));
  return made;
}

export function writeState(state: State): string {
  const made = new URLSearchParams();
  made.set("map", `${state.zoom.toFixed(2)}/${state.lat.toFixed(5)}/${state.lon.toFixed(5)}`);
  made.set("layer", state.layer);
  made.set("period", state.period);
  if (state.opacity !== 1) made.set("opacity", state.opacity.toFixed(2));
  if (state.chip) made.set("chip", text([state.chip]));
  if (state.positive.length) made.set("like", text(state.positive));
  if (state.negative.length) made.set("unlike", text(state.negative));
  return `#${made.toString().replaceAll("%2F", "/").replaceAll("%2C", ",")}`;
}

function text(all: Place[]): string {
  return all.map(([lon, lat]) => `${lon.toFixed(6)},${lat.toFixed(6)}`).join("_");
}

function places(given: string | null): Place[] {
  const found = (given ?? "").split("_").map((pair) => pair.split(",").map(Number.parseFloat));
  return found
    .filter(([lon, lat]) => Math.abs(lon ?? Number.NaN) <= 180 && Math.abs(lat ?? Number.NaN) <= 90)
    .map(([lon, lat]) => [lon ?? 0, lat ?? 0] as Place)
    .slice(0, 20);
}

function clamp(value: number, low: number, high: number): number {
  return Math.min(high, Math.max(low, value));
}
