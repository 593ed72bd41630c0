/** The panel's first part: which layer, of which time, how opaque, and what its colors mean. */

import { day, el, number, percent, say } from "./dom";
import type { Layer, Summary } from "./summary";

export interface Chosen {
  layer: string;
  period: string;
  opacity: number;
}

export class Controls {
  private readonly legend = el("div", { class: "legend" });

  constructor(
    root: HTMLElement,
    private readonly summary: Summary,
    readonly chosen: Chosen,
    private readonly changed: () => void,
    basemap: (on: boolean) => void,
  ) {
    root.append(el("h2", { id: "layers-title" }, "Layers"), this.choices(), ...this.periods(), this.opacity());
    if (summary.basemap) root.append(this.basemap(summary.basemap, basemap));
    root.append(this.legend);
    this.describe();
  }

  private get layer(): Layer | undefined {
    return this.summary.layers.find((layer) => layer.id === this.chosen.layer);
  }

  private choices(): HTMLElement {
    const labels = this.summary.layers.map((layer) => {
      const radio = el("input", {
        type: "radio",
        name: "layer",
        value: layer.id,
        checked: layer.id === this.chosen.layer,
      });
      radio.addEventListener("change", () => {
        this.chosen.layer = layer.id;
        this.describe();
        this.changed();
      });
      return el("label", {}, radio, layer.title);
    });
    return el("fieldset", {}, el("legend", { class: "hidden" }, "Layer"), el("div", { class: "choices" }, ...labels));
  }

  private periods(): HTMLElement[] {
    if (this.summary.periods.length < 2) return [];
    const options = this.summary.periods.map((p) =>
      el("option", { value: p.id, selected: p.id === this.chosen.period }, title(p.id, p.start, p.end)),
    );
    const select = el("select", { id: "period" }, ...options);
    select.addEventListener("change", () => {
      this.chosen.period = select.value;
      this.changed();
    });
    return [el("div", { class: "field" }, el("label", { for: "period" }, "Time"), select)];
  }

  private opacity(): HTMLElement {
    const range = el("input", {
      type: "range",
      id: "opacity",
      min: "0",
      max: "1",
      step: "0.05",
      value: String(this.chosen.opacity),
    });
    range.addEventListener("input", () => {
      this.chosen.opacity = Number(range.value);
      this.changed();
    });
    return el("div", { class: "field" }, el("label", { for: "opacity" }, "Opacity"), range);
  }

  private basemap(
    { tiles, attribution }: NonNullable<Summary["basemap"]>,
    switched: (on: boolean) => void,
  ): HTMLElement {
    const { host } = new URL(tiles.replaceAll(/[{}]/g, ""));
    const credit = el("p", { class: "note" });
    const box = el("input", { type: "checkbox", id: "basemap" });
    box.addEventListener("change", () => {
      switched(box.checked);
      credit.textContent = box.checked ? attribution : "";
      say(box.checked ? `Basemap tiles are loaded from ${host}.` : "Basemap switched off.");
    });
    return el("div", { class: "choices" }, el("label", {}, box, `Basemap from ${host}`), credit);
  }

  private describe(): void {
    const layer = this.layer;
    this.legend.replaceChildren();
    if (!layer) return;
    const { explained, colors, stops, low, high } = layer.legend;
    if (explained) this.legend.append(...explained.map(component));
    if (colors) this.legend.append(this.reasons(colors));
    if (stops) this.legend.append(ramp(stops), el("div", { class: "ends" }, end(layer.id, low), end(layer.id, high)));
  }

  private reasons(colors: Record<string, string>): HTMLElement {
    const { expected, embedded, missing } = this.summary.coverage;
    const counts: Record<string, number> = { embedded, ...missing };
    const rows = Object.entries(counts).filter(([, count]) => count > 0);
    return el(
      "ul",
      { class: "swatches" },
      ...rows.map(([reason, count]) => {
        const text = reason === "embedded" ? "embedded" : (this.summary.reasons[reason] ?? reason);
        const share = expected ? percent(count / expected) : "";
        return el(
          "li",
          {},
          swatch(colors[reason] ?? "#ffffff"),
          el("span", {}, text),
          el("span", { class: "count" }, `${number(count)} · ${share}`),
        );
      }),
    );
  }
}

export function title(id: string, start: number, end: number): string {
  if (/^\d{4}$/.test(id)) return id;
  const last = day(end - 1);
  return day(start) === last ? last : `${day(start)} to ${last}`;
}

function end(layer: string, value: number | string | undefined): string {
  if (layer === "cloud") return percent(Number(value ?? 0));
  if (layer === "date") return String(value ?? "").slice(0, 10);
  return typeof value === "number" ? value.toPrecision(3) : "";
}

export function swatch(color: string): SVGElement {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 14 14");
  svg.setAttribute("aria-hidden", "true");
  const box = document.createElementNS(space, "rect");
  for (const [name, value] of Object.entries({ width: "14", height: "14", rx: "3", fill: color, stroke: "#8a97a1" })) {
    box.setAttribute(name, value);
  }
  svg.append(box);
  return svg;
}

function ramp(stops: string[]): HTMLCanvasElement {
  return painted(stops.length, (at) => stops[at] ?? "#000000");
}

function painted(width: number, color: (at: number) => string): HTMLCanvasElement {
  const canvas = el("canvas", { width: String(width), height: "1", "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  for (let at = 0; context && at < width; at += 1) {
    context.fillStyle = color(at);
    context.fillRect(at, 0, 1, 1);
  }
  return canvas;
}

/** What one component does to the color while the others stay in the middle; as the builder draws them, in Oklab. */
function component(share: number, place: number): HTMLElement {
  const canvas = painted(64, (at) => {
    const shares = [0.5, 0.5, 0.5];
    shares[place] = at / 63;
    const [first = 0.5, second = 0.5, third = 0.5] = shares;
    return `oklab(${0.36 + 0.56 * first} ${0.18 * (third - 0.5)} ${0.21 * (second - 0.5)})`;
  });
  const text = `Component ${place + 1}: ${percent(share)} of the variance`;
  return el("div", { class: "ramp" }, canvas, el("div", { class: "ends" }, text));
}
