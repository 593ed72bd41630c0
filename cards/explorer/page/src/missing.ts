/** Why a chip is missing, from `coverage/`. */

import type { Chips } from "./chips";
import { type Cell, cellAt } from "./grid";
import type { Period, Summary } from "./summary";

export interface Missing {
  /** `embedded` where the table lists the chip as one that is there. */
  reason: string;
  detail: string | null;
  id: string;
  window: string;
  cell: Cell;
}

/** Compressed bytes that a search may read. */
const LIMIT = 20_000_000;

/** The row of `coverage/` of the cell at a place; null where no chip was expected, or the layout has no cells. */
export async function missingAt(
  chips: Chips,
  summary: Summary,
  lon: number,
  lat: number,
  period: Period,
): Promise<Missing | null> {
  const cell = summary.chips.layout === "utm" ? cellAt(lon, lat, summary.chips.side) : null;
  if (!cell) return null;
  const zone = `zone=${String(cell.epsg % 100).padStart(2, "0")}`;
  let spent = 0;
  for (const file of summary.coverage_files.filter((f) => f.path.startsWith(`coverage/${zone}`))) {
    const table = await chips.table(file);
    for (const group of table.groups) {
      const spans = (["row", "col", "epsg"] as const).map((name) => [cell[name], table.range(group, name)] as const);
      if (spans.some(([value, range]) => range && (value < range[0] || value > range[1]))) continue;
      spent += table.size(group, "row") + table.size(group, "col");
      if (spent > LIMIT) return null;
      const [rows, cols] = await Promise.all(["row", "col"].map((name) => table.column(group, name)));
      for (let at = 0; at < group.rows; at += 1) {
        if (rows?.[at] !== cell.row || cols?.[at] !== cell.col) continue;
        const names = ["epsg", "window_start", "window_end", "status", "reason", "detail", "id"];
        const read = await Promise.all(names.map((name) => table.column(group, name, at, at + 1)));
        const [epsg, start, end, status, reason, detail, id] = read.map((values) => values[0]);
        if (epsg !== cell.epsg || !(start instanceof Date) || !(end instanceof Date)) continue;
        if (start.getTime() < period.start || start.getTime() >= period.end) continue;
        return {
          reason: status === "embedded" ? "embedded" : String(reason ?? "failed"),
          detail: typeof detail === "string" ? detail : null,
          id: String(id),
          window: `${start.toISOString().slice(0, 10)} to ${end.toISOString().slice(0, 10)}`,
          cell,
        };
      }
    }
  }
  return null;
}
