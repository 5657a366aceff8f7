// Bundles the library, its types and the pages: node build.mjs [--out DIR] [--sourcemap]
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { generateDtsBundle } from 'dts-bundle-generator';
import { build } from 'esbuild';

const root = dirname(fileURLToPath(import.meta.url));
const args = process.argv.slice(2);
const at = args.indexOf('--out');
const out = at < 0 ? join(root, '..', 'web', 'static') : args[at + 1];
const sourcemap = args.includes('--sourcemap') && 'linked';

const shared = {
  absWorkingDir: root,
  bundle: true,
  minify: true,
  sourcemap,
  target: ['es2022', 'chrome111', 'firefox111', 'safari16.4'],
  legalComments: 'none',
  logLevel: 'warning',
  metafile: true,
};
const library = join('src', 'lib', 'index.ts');
const pages = ['home.ts', 'watch.ts', 'studio.ts', 'pages.css']
  .map((name) => join('src', 'pages', name))
  .filter((path) => existsSync(join(root, path)));

mkdirSync(out, { recursive: true });
const results = await Promise.all([
  build({
    ...shared,
    entryPoints: [library],
    format: 'esm',
    external: ['hls.js'],
    outfile: join(out, 'xbyte-hls.js'),
  }),
  build({
    ...shared,
    entryPoints: [library],
    format: 'iife',
    globalName: 'XByte',
    external: ['hls.js'],
    outfile: join(out, 'xbyte-hls.global.js'),
  }),
  ...(pages.length
    ? [build({ ...shared, entryPoints: pages, format: 'esm', outdir: out, outbase: 'src/pages' })]
    : []),
]);

const [types] = generateDtsBundle(
  [{ filePath: join(root, library), libraries: { importedLibraries: ['hls.js'] }, output: { noBanner: true } }],
  { preferredConfigPath: join(root, 'tsconfig.types.json') },
);
writeFileSync(join(out, 'xbyte-hls.d.ts'), types);

for (const { metafile } of results) {
  for (const path of Object.keys(metafile.outputs)) {
    if (path.endsWith('.map')) continue;
    const bytes = readFileSync(join(root, path));
    const packed = gzipSync(bytes, { level: 9 }).length;
    console.log(`${relative(out, join(root, path))} ${bytes.length} bytes, ${packed} gzipped`);
  }
}
