/** The map: land, overviews, chips drawn one by one where they are few, marks, results and findings. */

import * as maplibregl from "maplibre-gl";
import type { Chip } from "./chips";
import type { Chosen } from "./controls";
import type { Box } from "./grid";
import type { Overviews } from "./overview";
import type { Summary } from "./summary";

const EMPTY: GeoJSON.FeatureCollection = { type: "FeatureCollection", features: [] };
/** A transparent pixel, for tiles without content. */
const BLANK = Uint8Array.from(
  atob("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABpfZFQAAAAABJRU5ErkJggg=="),
  (character) => character.charCodeAt(0),
);

const THEMES = {
  light: { water: "#dfe7ec", land: "#f7f6f3", coast: "#98a4ad", line: "#1b2733" },
  dark: { water: "#10161b", land: "#1f272e", coast: "#54626e", line: "#f2f5f7" },
};
export const COLORS = {
  positive: "#0a8f5c",
  negative: "#d1432b",
  result: "#ffb000",
  chip: "#d02090",
  finding: "#e8590c",
};

/** The coast is drawn for small scales: closer in it would be wrong by more than it shows, and fades. */
const FAR: maplibregl.ExpressionSpecification = ["interpolate", ["linear"], ["zoom"], 7, 1, 9, 0];

function ground(water: string, land: string): maplibregl.ExpressionSpecification {
  return ["interpolate", ["linear"], ["zoom"], 7, water, 9, land];
}

export type Collection = "chips" | "results" | "marks" | "selected" | "findings";

export interface View extends Box {
  zoom: number;
}

export class ReleaseMap {
  readonly map: maplibregl.Map;
  private readonly dark = matchMedia("(prefers-color-scheme: dark)");
  private overview: { layer: string; period: string };
  private opacity: number;
  private single = false;

  constructor(
    container: HTMLElement,
    summary: Summary,
    overviews: Overviews,
    first: Chosen,
    start: { lon: number; lat: number; zoom: number } | null,
  ) {
    this.overview = { layer: first.layer, period: first.period };
    this.opacity = first.opacity;
    maplibregl.setWorkerUrl(new URL("./maplibre-worker.js", import.meta.url).href);
    maplibregl.addProtocol("overview", async (request, abort) => {
      const [layer, period, z, x, y] = request.url.replace("overview://", "").split("/");
      const at = [z, x, y].map(Number) as [number, number, number];
      const data = await overviews.picture(layer ?? "", period ?? "", ...at, abort.signal);
      return { data: data ?? BLANK.slice().buffer };
    });
    const [west, south, east, north] = summary.bbox;
    const bounds: [[number, number], [number, number]] = [
      [west, Math.max(south, -84.5)],
      [east < west ? east + 360 : east, Math.min(north, 84.5)],
    ];
    this.map = new maplibregl.Map({
      container,
      style: {
        version: 8,
        sources: { ...this.sources(), overview: this.raster(summary) },
        layers: this.layers().flatMap((layer) => (layer.id === "chips-fill" ? [this.rasterLayer, layer] : [layer])),
      },
      ...(start
        ? { center: [start.lon, start.lat], zoom: start.zoom }
        : { bounds, fitBoundsOptions: { padding: 30, maxZoom: 13 } }),
      maxZoom: 18,
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      renderWorldCopies: true,
      fadeDuration: 0,
      refreshExpiredTiles: false,
      locale: { "Map.Title": "Map of the release. Arrow keys pan, plus and minus zoom, Enter inspects the center." },
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
    this.map.addControl(new maplibregl.ScaleControl({ unit: "metric" }), "bottom-left");
    this.dark.addEventListener("change", () => this.paint());
    this.map.on("idle", () => {
      container.dataset.idle = "true";
    });
    this.map.on("movestart", () => this.busy());
  }

  /** Forget that everything was drawn: something is about to change. */
  private busy(): void {
    delete this.map.getContainer().dataset.idle;
    this.map.triggerRepaint();
  }

  /** Resolve once layers can be changed. */
  ready(): Promise<void> {
    return new Promise<void>((resolve) => {
      if (this.map.isStyleLoaded()) resolve();
      else this.map.once("style.load", () => resolve());
    });
  }

  /** Draw the outlines of land: once the release is drawn, since they take as long as the release. */
  async outline(): Promise<void> {
    try {
      (this.map.getSource("land") as maplibregl.GeoJSONSource).setData(await land());
    } catch {
      console.warn("The outlines of land cannot be drawn.");
    }
  }

  private raster(summary: Summary): maplibregl.RasterSourceSpecification {
    const { layer, period } = this.overview;
    return {
      type: "raster",
      tiles: [`overview://${layer}/${period}/{z}/{x}/{y}`],
      tileSize: summary.tiles.size,
      maxzoom: summary.tiles.maxzoom,
    };
  }

  private get rasterLayer(): maplibregl.RasterLayerSpecification {
    return {
      id: "overview",
      type: "raster",
      source: "overview",
      paint: { "raster-resampling": "nearest", "raster-fade-duration": 0, "raster-opacity": this.opacity },
    };
  }

  private get theme() {
    return THEMES[this.dark.matches ? "dark" : "light"];
  }

  private sources(): Record<string, maplibregl.SourceSpecification> {
    const geojson = (): maplibregl.GeoJSONSourceSpecification => ({
      type: "geojson",
      data: EMPTY,
      tolerance: 0,
      buffer: 16,
    });
    return {
      land: { type: "geojson", data: EMPTY, tolerance: 0.3 },
      chips: geojson(),
      results: geojson(),
      marks: geojson(),
      selected: geojson(),
      findings: geojson(),
    };
  }

  private layers(): maplibregl.LayerSpecification[] {
    const { water, land, coast, line } = this.theme;
    const outline = (id: Collection, color: string, width: number): maplibregl.LayerSpecification => ({
      id: `${id}-line`,
      type: "line",
      source: id,
      paint: { "line-color": color, "line-width": width },
    });
    return [
      { id: "water", type: "background", paint: { "background-color": ground(water, land) } },
      {
        id: "land",
        type: "fill",
        source: "land",
        paint: { "fill-color": land, "fill-antialias": false, "fill-opacity": FAR },
      },
      {
        id: "chips-fill",
        type: "fill",
        source: "chips",
        paint: {
          "fill-color": ["get", "color"],
          "fill-opacity": ["case", ["has", "color"], 1, 0],
          "fill-antialias": false,
        },
      },
      {
        id: "coast",
        type: "line",
        source: "land",
        paint: { "line-color": coast, "line-width": 0.7, "line-opacity": FAR },
      },
      {
        id: "chips-line",
        type: "line",
        source: "chips",
        paint: { "line-color": line, "line-width": 0.6, "line-opacity": 0.45 },
      },
      {
        id: "results-fill",
        type: "fill",
        source: "results",
        paint: { "fill-color": COLORS.result, "fill-opacity": 0.35 },
      },
      outline("results", COLORS.result, 2.5),
      {
        id: "results-point",
        type: "circle",
        source: "results",
        maxzoom: 9,
        paint: {
          "circle-color": COLORS.result,
          "circle-radius": 5,
          "circle-stroke-color": "#1b2733",
          "circle-stroke-width": 1.5,
        },
      },
      {
        id: "marks-line",
        type: "line",
        source: "marks",
        paint: {
          "line-color": ["case", ["==", ["get", "kind"], "like"], COLORS.positive, COLORS.negative],
          "line-width": 3.5,
        },
      },
      {
        id: "findings-fill",
        type: "fill",
        source: "findings",
        paint: { "fill-color": COLORS.finding, "fill-opacity": 0.2 },
      },
      {
        id: "findings-line",
        type: "line",
        source: "findings",
        paint: { "line-color": COLORS.finding, "line-width": 2, "line-dasharray": [2, 1] },
      },
      outline("selected", COLORS.chip, 3.5),
    ];
  }

  private paint(): void {
    const { water, land, coast, line } = this.theme;
    this.map.setPaintProperty("water", "background-color", ground(water, land));
    this.map.setPaintProperty("land", "fill-color", land);
    this.map.setPaintProperty("coast", "line-color", coast);
    this.map.setPaintProperty("chips-line", "line-color", line);
  }

  /** Show the overview of a layer and period. */
  show(layer: string, period: string, summary: Summary): void {
    if (this.overview.layer === layer && this.overview.period === period) return;
    this.overview = { layer, period };
    if (this.map.getLayer("overview")) this.map.removeLayer("overview");
    if (this.map.getSource("overview")) this.map.removeSource("overview");
    this.map.addSource("overview", this.raster(summary));
    this.map.addLayer(this.rasterLayer, "chips-fill");
    this.draw();
  }

  /** Raster tiles of another server below the data, or none. */
  basemap(address: string | null): void {
    if (this.map.getLayer("basemap")) this.map.removeLayer("basemap");
    if (this.map.getSource("basemap")) this.map.removeSource("basemap");
    if (!address) return;
    this.map.addSource("basemap", { type: "raster", tiles: [address], tileSize: 256, maxzoom: 19 });
    this.map.addLayer(
      { id: "basemap", type: "raster", source: "basemap" },
      this.map.getLayer("overview") ? "overview" : "chips-fill",
    );
  }

  fade(opacity: number): void {
    this.opacity = opacity;
    this.draw();
  }

  /** Whether chips are drawn one by one, with their colors, in the place of the overview. */
  singly(single: boolean): void {
    this.single = single;
    if (single)
      this.map.once("idle", () => this.draw()); // the overview stays until the chips are there
    else this.draw();
  }

  private draw(): void {
    this.busy();
    if (this.map.getLayer("overview"))
      this.map.setPaintProperty("overview", "raster-opacity", this.single ? 0 : this.opacity);
    this.map.setPaintProperty("chips-fill", "fill-opacity", ["case", ["has", "color"], this.opacity, 0]);
  }

  set(collection: Collection, features: GeoJSON.Feature[]): void {
    this.busy();
    (this.map.getSource(collection) as maplibregl.GeoJSONSource).setData({ type: "FeatureCollection", features });
  }

  get view(): View {
    const bounds = this.map.getBounds();
    const [west, south, east, north] = [bounds.getWest(), bounds.getSouth(), bounds.getEast(), bounds.getNorth()];
    return { west, south, east: Math.max(west, east), north, zoom: this.map.getZoom() };
  }

  flyTo(lon: number, lat: number, zoom: number): void {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const near = this.map.getCenter().lng;
    const turn = Math.round((near - lon) / 360) * 360;
    this.map.easeTo({ center: [lon + turn, lat], zoom, duration: still ? 0 : 600 });
  }
}

/** Outlines of land, a feature each. They come as gzipped GeoJSON: few hosts compress what they send. */
async function land(): Promise<GeoJSON.FeatureCollection> {
  const answer = await fetch(new URL("./land.bin", import.meta.url));
  if (!answer.ok || !answer.body) throw new Error(`HTTP ${answer.status}`);
  const text = await new Response(answer.body.pipeThrough(new DecompressionStream("gzip"))).text();
  const { geometry } = JSON.parse(text) as { geometry: GeoJSON.MultiPolygon };
  const features = geometry.coordinates.map(
    (coordinates): GeoJSON.Feature => ({ type: "Feature", properties: {}, geometry: { type: "Polygon", coordinates } }),
  );
  return { type: "FeatureCollection", features };
}

/** A chip as a GeoJSON feature. */
export function feature(chip: Chip, properties: Record<string, unknown> = {}): GeoJSON.Feature {
  return {
    type: "Feature",
    properties,
    geometry: { type: "MultiPolygon", coordinates: chip.rings.map((ring) => [ring]) },
  };
}
