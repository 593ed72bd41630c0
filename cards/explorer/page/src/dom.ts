/** Elements whose texts are texts: nothing from a release is ever parsed as HTML. */

type Child = Node | string | null | undefined | false;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | boolean | ((event: Event) => void)> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child): child is Node | string => Boolean(child)));
  return made;
}

export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`no element ${id}`);
  return found;
}

/** A link to an address from data: only http and https, opened without a referrer; else plain text. */
export function link(address: string | null | undefined, text: string): Node {
  if (address && /^https?:\/\//i.test(address)) {
    return el("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, text);
  }
  return document.createTextNode(text);
}

/** Rows of a description list. */
export function facts(rows: [string, Child][]): HTMLElement {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, ...shown.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** A block of code with a button that copies it. */
export function code(title: string, text: string): HTMLElement {
  const button = el("button", { type: "button", class: "small", "aria-label": `Copy: ${title}` }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied.");
    } catch {
      say("The browser does not allow copying. Select the text instead.");
    }
  });
  const head = el("div", { class: "code-head" }, el("span", {}, title), button);
  return el("div", { class: "code" }, head, el("pre", { tabindex: "0", "aria-label": title }, text));
}

export const number = (value: number): string => value.toLocaleString("en-US");
export const plural = (count: number, noun: string): string => `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
export const percent = (share: number): string => `${(100 * share).toFixed(share > 0.999 && share < 1 ? 2 : 1)} %`;
export const day = (stamp: string | number): string => new Date(stamp).toISOString().slice(0, 10);

export function bytes(size: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  const step = Math.min(units.length - 1, Math.max(0, Math.floor(Math.log10(Math.max(size, 1)) / 3)));
  return `${(size / 1000 ** step).toLocaleString("en-US", { maximumFractionDigits: step ? 1 : 0 })} ${units[step]}`;
}

const SAID = 5000;
let silence = 0;

/** Tell the reader, also one who listens. */
export function say(text: string): void {
  byId("status").textContent = text;
  clearTimeout(silence);
  silence = window.setTimeout(() => {
    byId("status").textContent = "";
  }, SAID);
}
