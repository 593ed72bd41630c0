/** The release: what it is, how complete it is, how to cite it, its other versions. */

import { bytes, code, day, el, facts, link, number, percent, plural } from "./dom";
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
    el("p", { class: "sub" }, `${summary.name} ${summary.version} · ${plural(summary.chips.count, "chip")}`),
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

interface Versions {
  each: Version[];
  latest: string | null;
}

const SEMVER = /^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?$/;

/** Other versions, from the catalog in the product's root, or from the root of a repository on the Hub. */
export async function showVersions(source: ReleaseSource, summary: Summary, page: URL): Promise<void> {
  const root = document.getElementById("versions");
  const standing = document.getElementById("standing");
  if (!root || !standing) return;
  const versions = await (source.hub ? onHub(source, summary) : inCatalog(source, summary)).catch(() => null);
  if (!versions) {
    const text = source.hub
      ? "Not available: the main branch of the repository cannot be read."
      : "Not available: no catalog.json of this release beside this version.";
    root.replaceChildren(el("h3", {}, "Versions"), el("p", { class: "muted" }, text));
    return;
  }
  const list = versions.each.map(({ version, yanked }) => {
    const here = version === summary.version;
    const address = new URL(page.href);
    address.searchParams.set("release", new URL(`../${source.hub ? "v" : ""}${version}/`, source.base).href);
    const label = here ? el("strong", {}, `${version} (this one)`) : el("a", { href: address.href }, version);
    const tags = [version === versions.latest ? "latest" : "", yanked ? `yanked: ${yanked}` : ""].filter(Boolean);
    return el("li", {}, label, tags.length ? ` ${tags.join(", ")}` : "");
  });
  const others = source.hub ? el("p", { class: "note" }, "All versions are tags of the repository.") : "";
  root.replaceChildren(el("h3", {}, "Versions"), el("ul", {}, ...list), others);
  const mine = versions.each.find(({ version }) => version === summary.version);
  if (mine?.yanked) standing.replaceChildren(el("span", { class: "badge error" }, "yanked"), ` ${mine.yanked}`);
  else if (versions.latest && order(versions.latest, summary.version) > 0) {
    standing.replaceChildren(
      el("span", { class: "badge warning" }, "newer version"),
      ` ${versions.latest} is the latest.`,
    );
  }
}

async function inCatalog(source: ReleaseSource, summary: Summary): Promise<Versions | null> {
  const document = await source.json("catalog.json", true);
  if (!document || document.id !== summary.name || !Array.isArray(document.links)) return null;
  const links = document.links.filter(
    (each): each is Record<string, unknown> => typeof each === "object" && each !== null,
  );
  const each = links
    .filter((entry) => entry.rel === "child" && isVersion(entry.version))
    .map((entry) => ({ version: String(entry.version), yanked: text(entry.yanked) }));
  return { each, latest: isVersion(document.latest) ? document.latest : null };
}

/** The root of a repository is its latest version that is not yanked; `yanked.json` there says why others are. */
async function onHub(source: ReleaseSource, summary: Summary): Promise<Versions | null> {
  const [root, reasons] = await Promise.all([source.json("collection.json", true), source.json("yanked.json", true)]);
  if (root?.id !== summary.name || !isVersion(root.version)) return null;
  const named = new Set([root.version, summary.version, ...Object.keys(reasons ?? {}).filter(isVersion)]);
  const each = [...named]
    .sort((one, other) => order(other, one))
    .map((version) => ({ version, yanked: text(reasons?.[version]) }));
  return { each, latest: text(reasons?.[root.version]) === null ? root.version : null };
}

function isVersion(value: unknown): value is string {
  return typeof value === "string" && SEMVER.test(value);
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}

/** Positive where a version comes after another; a pre-release comes before its release. */
function order(one: string, other: string): number {
  const [a = "", b = ""] = [one, other].map((version) => version.split("-")[0]);
  const [before, since] = [one.slice(a.length), other.slice(b.length)];
  if (a === b && !before !== !since) return before ? -1 : 1;
  return one.localeCompare(other, "en", { numeric: true });
}
