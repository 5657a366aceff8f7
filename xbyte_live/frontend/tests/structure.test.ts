import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { expect, it } from 'vitest';

const SOURCES = readdirSync('src', { recursive: true, encoding: 'utf-8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => join('src', name));
const MOST_MODULES = 16;

const texts = new Map(SOURCES.map((file) => [file, readFileSync(file, 'utf-8')]));

/** The modules that a module imports, types included. */
function importsOf(file: string): string[] {
  const found = (texts.get(file) ?? '').matchAll(/(?:from|import) ?\(?'(\.[^']+)'/g);
  return [...found].map(([, path = '']) => `${normalize(join(dirname(file), path))}.ts`);
}

/** The first cycle that is found from a module on. */
function cycleFrom(file: string, path: string[], done: Set<string>): string[] | undefined {
  if (path.includes(file)) return [...path.slice(path.indexOf(file)), file];
  if (done.has(file)) return undefined;
  for (const next of importsOf(file)) {
    const cycle = cycleFrom(next, [...path, file], done);
    if (cycle) return cycle;
  }
  done.add(file);
  return undefined;
}

it('imports only modules that exist', () => {
  for (const file of SOURCES) {
    expect(importsOf(file).filter((path) => !texts.has(path)), file).toEqual([]);
  }
});

it('has no cycle of imports', () => {
  const done = new Set<string>();
  for (const file of SOURCES) expect(cycleFrom(file, [], done)).toBeUndefined();
});

it('has one exported class or type of a name', () => {
  const modules = new Map<string, string[]>();
  for (const [file, text] of texts) {
    for (const [, name = ''] of text.matchAll(/^export (?:abstract )?(?:class|interface|type) (\w+)/gm)) {
      modules.set(name, [...(modules.get(name) ?? []), file]);
    }
  }
  expect([...modules].filter(([, files]) => files.length > 1)).toEqual([]);
});

it('has folders that one can look over', () => {
  const counts: Record<string, number> = {};
  for (const file of SOURCES) counts[dirname(file)] = (counts[dirname(file)] ?? 0) + 1;
  expect(Object.entries(counts).filter(([, count]) => count > MOST_MODULES)).toEqual([]);
});
