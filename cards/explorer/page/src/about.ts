/** The release: what it is, how complete it is, how to cite it, its other versions. */

import { bytes, code, day, el, facts, link, number, percent } from "./dom";
import type { ReleaseSource } from "./source";
import type { Summary } from "./summary";

const DOWNLOADS: [string, string][] = [
  ["README.md", "Dataset card"],
  ["collection.json", "STAC Collection"],
  ["items.parquet", "STAC Items (stac-geoparquet)"],
  ["manifest.json", "Manifest"],
  ["SHA256SUMS", "Checksums"],
  ["LICENSE", "License text"],
];

export function showTitle(root: HTMLElement, summary: Summary): void {
  root.replaceChildren(
    el("p", { class: "name" }, summary.title),
    el("p", { class: "sub" }, `${summary.name} ${summary.version} · ${number(summary.chips.count)} chips`),
    el("p", { class: "sub", id: "standing" }),
  );
}

export function showAbout(root: HTMLElement, summary: Summary, source: ReleaseSource): void {
  const { chips, coverage, model, license } = summary;
  root.replaceChildren(
    el("h2", { id: "about-title" }, "Release"),
    summary.description ? el("p", { class: "note" }, summary.description.slice(0, 600)) : "",
    facts([
      ["Version", summary.version],
      ["License", link(license.href, license.name)],
      ["Model", link(model.href, model.name)],
      ["Vectors", `${number(model.dimensions)} × ${model.dtype}`],
      [
        "Chips",
        `${number(chips.count)}, ${chips.side.toLocaleString("en-US")} m a side, ${chips.size} px, layout ${chips.layout}`,
      ],
      ["Files", `${number(chips.files)}, ${bytes(chips.bytes)}`],
      [
        "Time",
        day(summary.start) === day(summary.end) ? day(summary.start) : `${day(summary.start)} to ${day(summary.end)}`,
      ],
      [
        "Coverage",
        `${percent(coverage.expected ? coverage.embedded / coverage.expected : 0)} of ${number(coverage.expected)} expected`,
      ],
    ]),
    reasons(summary),
    windows(summary),
    el("details", {}, el("summary", {}, "Cite"), code("BibTeX", summary.citation)),
    el(
      "details",
      {},
      el("summary", {}, "Downloads"),
      el("ul", {}, ...DOWNLOADS.map(([path, text]) => el("li", {}, link(source.url(path), text)))),
    ),
    el("div", { id: "versions" }),
  );
}

function reasons(summary: Summary): HTMLElement | string {
  const missing = Object.entries(summary.coverage.missing);
  if (!missing.length) return "";
  const rows = missing.map(([reason, count]) =>
    el("tr", {}, el("td", {}, summary.reasons[reason] ?? reason), el("td", { class: "count" }, number(count))),
  );
  const head = el("tr", {}, el("th", { scope: "col" }, "Reason"), el("th", { scope: "col", class: "count" }, "Chips"));
  return el(
    "details",
    {},
    el("summary", {}, "Missing chips by reason"),
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)),
  );
}

function windows(summary: Summary): HTMLElement | string {
  if (summary.windows.length < 2) return "";
  const rows = summary.windows.map((w) =>
    el(
      "tr",
      {},
      el("td", {}, `${day(w.start)} to ${day(Date.parse(w.end) - 1)}`),
      el("td", { class: "count" }, `${number(w.embedded)} of ${number(w.expected)}`),
    ),
  );
  const head = el(
    "tr",
    {},
    el("th", { scope: "col" }, "Window"),
    el("th", { scope: "col", class: "count" }, "Embedded"),
  );
  const more = summary.more_windows ? el("p", { class: "note" }, `and ${number(summary.more_windows)} more`) : "";
  return el(
    "details",
    {},
    el("summary", {}, "Coverage by window"),
    el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)),
    more,
  );
}

interface Version {
  version: string;
  yanked: string | null;
}

/** Other versions, from the catalog in the product's root. */
export async function showVersions(source: ReleaseSource, summary: Summary, page: URL): Promise<void> {
  const root = document.getElementById("versions");
  const standing = document.getElementById("standing");
  if (!root || !standing) return;
  const versions = await readVersions(source, summary);
  if (!versions) {
    root.replaceChildren(
      el("h3", {}, "Versions"),
      el("p", { class: "muted" }, "Not available: no catalog.json beside this version."),
    );
    return;
  }
  const list = versions.each.map(({ version, yanked }) => {
    const here = version === summary.version;
    const address = new URL(page.href);
    address.searchParams.set("release", new URL(`../${encodeURIComponent(version)}/`, source.base).href);
    const label = here ? el("strong", {}, `${version} (this one)`) : el("a", { href: address.href }, version);
    const tags = [version === versions.latest ? "latest" : "", yanked ? `yanked: ${yanked}` : ""].filter(Boolean);
    return el("li", {}, label, tags.length ? ` ${tags.join(", ")}` : "");
  });
  root.replaceChildren(el("h3", {}, "Versions"), el("ul", {}, ...list));
  const mine = versions.each.find(({ version }) => version === summary.version);
  if (mine?.yanked) standing.replaceChildren(el("span", { class: "badge error" }, "yanked"), ` ${mine.yanked}`);
  else if (versions.latest && versions.latest !== summary.version) {
    standing.replaceChildren(
      el("span", { class: "badge warning" }, "newer version"),
      ` ${versions.latest} is the latest.`,
    );
  }
}

async function readVersions(
  source: ReleaseSource,
  summary: Summary,
): Promise<{ each: Version[]; latest: string | null } | null> {
  const document = await source.json("catalog.json", true).catch(() => null);
  if (!document || document.id !== summary.name || !Array.isArray(document.links)) return null;
  const links = document.links.filter(
    (each): each is Record<string, unknown> => typeof each === "object" && each !== null,
  );
  const each = links
    .filter(
      (entry) => entry.rel === "child" && typeof entry.version === "string" && /^[0-9A-Za-z.+-]+$/.test(entry.version),
    )
    .map((entry) => ({
      version: String(entry.version),
      yanked: typeof entry.yanked === "string" ? entry.yanked : null,
    }));
  return { each, latest: typeof document.latest === "string" ? document.latest : null };
}
