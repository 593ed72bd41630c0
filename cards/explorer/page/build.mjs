// Build the page into ../assets, or into the folder named as the argument. The same sources give the same bytes.
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "..", "assets");
const modules = join(here, "node_modules");
mkdirSync(out, { recursive: true });

// Of the compressors only those that are used: importing the others would load WebAssembly, which the page forbids.
const usedCompressors = {
  name: "used-compressors",
  setup(plugin) {
    plugin.onResolve({ filter: /./ }, async ({ path, importer, resolveDir, kind, pluginData }) => {
      const theirs = path === "hyparquet-compressors" || importer.includes("hyparquet-compressors");
      if (pluginData === "asked" || !theirs) return undefined;
      return {
        ...(await plugin.resolve(path, { importer, resolveDir, kind, pluginData: "asked" })),
        sideEffects: false,
      };
    });
  },
};

const maplibreBeside = {
  name: "maplibre-beside",
  setup(plugin) {
    plugin.onResolve({ filter: /^maplibre-gl$/ }, () => ({ path: "./maplibre.js", external: true }));
  },
};

await build({
  entryPoints: [join(here, "src", "main.ts")],
  outfile: join(out, "explorer.js"),
  absWorkingDir: here,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  charset: "utf8",
  legalComments: "none",
  plugins: [maplibreBeside, usedCompressors],
});

const withoutMap = (text) => text.replace(/\n\/\/# sourceMappingURL=.*\s*$/, "\n");
const vendored = { "maplibre-gl.mjs": "maplibre.js", "maplibre-gl-worker.mjs": "maplibre-worker.js" };
for (const [source, target] of Object.entries(vendored)) {
  writeFileSync(join(out, target), withoutMap(readFileSync(join(modules, "maplibre-gl", "dist", source), "utf8")));
}
copyFileSync(join(modules, "maplibre-gl", "dist", "maplibre-gl.css"), join(out, "maplibre.css"));
for (const name of ["index.html", "explorer.css"]) {
  copyFileSync(join(here, "src", name), join(out, name));
}

const packages = ["maplibre-gl", "pmtiles", "fflate", "hyparquet", "hyparquet-compressors", "fzstd"];
const licenses = packages.map((name) => {
  const about = JSON.parse(readFileSync(join(modules, name, "package.json"), "utf8"));
  const places = [
    join(modules, name, "LICENSE"),
    join(modules, name, "LICENSE.txt"),
    join(here, "licenses", `${name}.txt`),
  ];
  const place = places.find(existsSync);
  if (!place) throw new Error(`${name}: no license text found`);
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(place, "utf8").trim()}\n`;
});
const land = "Land outlines: Natural Earth 1:10m land, simplified. Public domain.\n";
writeFileSync(join(out, "LICENSES.txt"), `${[land, ...licenses].join(`\n${"-".repeat(80)}\n\n`)}`);
