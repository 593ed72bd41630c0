/** Where the release lies: the only door to the network. Nothing but the release and its product's root is asked for. */

import type { AsyncBuffer } from "hyparquet";

/** An error whose message is meant for the reader. */
export class ReleaseError extends Error {}

const DOCUMENT_LIMIT = 32_000_000;
const WHOLE_LIMIT = 4_000_000;
/** Ranges with less between them than this are one request. */
const NEAR = 1 << 17;
/** Ranges that are remembered, and the bytes of the largest of them. */
const KEPT = 200;
const KEPT_SIZE = 1 << 19;

/** A file for hyparquet, parts of which can be read before they are asked for. */
export interface PageBuffer extends AsyncBuffer {
  warm?: (ranges: [number, number][]) => Promise<void>;
}

/** Ranges without those that lie near each other, in order. */
function joined(ranges: [number, number][]): [number, number][] {
  const made: [number, number][] = [];
  for (const [start, end] of [...ranges].sort((a, b) => a[0] - b[0])) {
    const last = made.at(-1);
    if (last && start - last[1] < NEAR) last[1] = Math.max(last[1], end);
    else made.push([start, end]);
  }
  return made;
}

export class ReleaseSource {
  /** Address of the release, with a slash at the end. */
  readonly base: URL;
  /** Whether it is a revision of a repository on the Hugging Face Hub, whose other revisions are other versions. */
  readonly hub: boolean;
  private readonly ranges: { path: string; start: number; end: number; data: Promise<ArrayBuffer> }[] = [];

  constructor(address: string, page: string) {
    let base: URL;
    try {
      base = new URL(address, page);
    } catch {
      throw new ReleaseError(`“${address}” is not an address. Use ?release=https://…`);
    }
    if (base.protocol !== "https:" && base.protocol !== "http:") {
      throw new ReleaseError(
        "This page reads releases over http and https. View a local one with: clay-publish explore FOLDER",
      );
    }
    if (base.username || base.password) {
      throw new ReleaseError(
        "The address of the release holds a user name or a password. Use an address without them.",
      );
    }
    base.search = "";
    base.hash = "";
    base.pathname = base.pathname.replace(/\/?$/, "/");
    this.base = base;
    this.hub = /\/resolve\/[^/]+\/$/.test(base.pathname);
  }

  /** Address of a file of the release, or of one beside it in the product's root. */
  url(path: string, beside = false): string {
    const bad = path.split("/").some((part) => part === "" || part === "." || part === "..");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
    if (bad || /[\\\u0000-\u001f\u007f]/.test(path)) throw new ReleaseError(`“${path}” is not a path in a release.`);
    const encoded = path.split("/").map(encodeURIComponent).join("/").replaceAll("%3D", "=");
    return new URL(beside ? `../${this.hub ? "main/" : ""}${encoded}` : encoded, this.base).href;
  }

  private async ask(url: string, headers: Record<string, string>, signal?: AbortSignal): Promise<Response> {
    try {
      return await fetch(url, {
        headers,
        credentials: "omit",
        referrerPolicy: "no-referrer",
        ...(signal ? { signal } : {}),
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      const other = this.base.origin !== location.origin;
      throw new ReleaseError(
        other
          ? `The release at ${this.base.href} cannot be read from this page: its server does not answer, or does not allow other sites to read it (CORS).`
          : `${url} cannot be reached.`,
      );
    }
  }

  /** A JSON object; null where there is none. A bucket that may not be listed answers 403 for a missing file. */
  async json(path: string, beside = false): Promise<Record<string, unknown> | null> {
    const url = this.url(path, beside);
    const answer = await this.ask(url, {});
    if (answer.status === 404 || (answer.status === 403 && !this.hub)) return null;
    if (!answer.ok) throw new ReleaseError(`${url} cannot be read (HTTP ${answer.status}).`);
    if (Number(answer.headers.get("content-length") ?? 0) > DOCUMENT_LIMIT)
      throw new ReleaseError(`${url} is too large.`);
    const text = await answer.text();
    let document: unknown;
    try {
      document = JSON.parse(text);
    } catch {
      throw new ReleaseError(`${url} is not JSON.`);
    }
    if (typeof document !== "object" || document === null || Array.isArray(document)) {
      throw new ReleaseError(`${url} does not hold an object.`);
    }
    return document as Record<string, unknown>;
  }

  /** Bytes `start` to `end` of a file. */
  async range(path: string, start: number, end: number, signal?: AbortSignal): Promise<ArrayBuffer> {
    const url = this.url(path);
    const answer = await this.ask(url, { Range: `bytes=${start}-${end - 1}` }, signal);
    if (answer.status === 404) throw new ReleaseError(`${url} is not there.`);
    if (answer.status === 200) {
      const size = Number(answer.headers.get("content-length") ?? Number.POSITIVE_INFINITY);
      if (size > WHOLE_LIMIT) {
        await answer.body?.cancel();
        throw new ReleaseError(
          `${this.base.href} is on a server without range requests. View a copy with: clay-publish explore FOLDER`,
        );
      }
      const whole = await answer.arrayBuffer();
      return whole.slice(start, end);
    }
    if (answer.status !== 206) throw new ReleaseError(`${url} cannot be read (HTTP ${answer.status}).`);
    const data = await answer.arrayBuffer();
    return data;
  }

  /** Several ranges of a file; those that lie near each other are asked for at once. */
  async rangesOf(path: string, ranges: [number, number][], signal?: AbortSignal): Promise<ArrayBuffer[]> {
    const parts = await Promise.all(
      joined(ranges).map(async ([start, end]) => ({ start, end, data: await this.range(path, start, end, signal) })),
    );
    return ranges.map(([start, end]) => {
      const whole = parts.find((each) => each.start <= start && end <= each.end);
      const data = whole?.data.slice(start - whole.start, end - whole.start);
      if (data?.byteLength !== end - start) throw new ReleaseError(`${this.url(path)} is shorter than it should be.`);
      return data;
    });
  }

  /** A file whose size is known, for hyparquet. */
  buffer(path: string, size: number): PageBuffer {
    return {
      byteLength: size,
      slice: (start, end = size) => this.kept(path, start, Math.min(end, size)),
      warm: async (ranges) => {
        await Promise.all(joined(ranges).map(([start, end]) => this.kept(path, start, Math.min(end, size))));
      },
    };
  }

  /** As `range`; what lies in a small range that was read is not asked for again. */
  private async kept(path: string, start: number, end: number): Promise<ArrayBuffer> {
    if (end - start > KEPT_SIZE) return this.range(path, start, end);
    let found = this.ranges.find((each) => each.path === path && each.start <= start && end <= each.end);
    if (!found) {
      const reading = { path, start, end, data: this.range(path, start, end) };
      this.ranges.push(reading);
      if (this.ranges.length > KEPT) this.ranges.shift();
      reading.data.catch(() => this.ranges.splice(this.ranges.indexOf(reading), 1));
      found = reading;
    }
    return (await found.data).slice(start - found.start, end - found.start);
  }

  /** A small file whose size is not known. */
  async small(path: string): Promise<AsyncBuffer> {
    const url = this.url(path);
    const answer = await this.ask(url, {});
    if (!answer.ok) throw new ReleaseError(`${url} cannot be read (HTTP ${answer.status}).`);
    const data = await answer.arrayBuffer();
    return { byteLength: data.byteLength, slice: (start, end) => data.slice(start, end) };
  }
}
