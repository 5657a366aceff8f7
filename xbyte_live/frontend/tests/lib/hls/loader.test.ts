import type { FragmentLoaderContext, LoaderConfiguration, LoaderStats } from 'hls.js';
import { describe, expect, it } from 'vitest';
import { capLevels, type LevelSource } from '../../../src/lib/hls/levels';
import { xbyteLoader, type LoaderOptions } from '../../../src/lib/hls/loader';
import { aheadOf } from '../../../src/lib/hls/tags';
import type { Payer } from '../../../src/lib/payer/payer';
import { setUp, until } from '../../support/payers';

interface Ended {
  how: 'success' | 'error' | 'timeout' | 'abort';
  data?: ArrayBuffer;
  code?: number;
  stats: LoaderStats;
}

function load(
  payer: Payer,
  url: string,
  {
    value = '',
    highWaterMark = 0,
    maxLoadTimeMs = 20_000,
    progress = false,
    options,
  }: {
    value?: string;
    highWaterMark?: number;
    maxLoadTimeMs?: number;
    progress?: boolean;
    options?: LoaderOptions;
  } = {},
) {
  const loader = new (xbyteLoader(payer, options))({} as never);
  const chunks: ArrayBuffer[] = [];
  const tagList = value ? [['INF', '2'], ['EXT-X-XBYTE-SEGMENT', value]] : [];
  const context = { url, frag: { tagList } } as unknown as FragmentLoaderContext;
  const ended = new Promise<Ended>((resolve) => {
    loader.load(
      context,
      { loadPolicy: { maxLoadTimeMs }, highWaterMark } as LoaderConfiguration,
      {
        onSuccess: ({ data }, stats) =>
          resolve({ how: 'success', data: data as ArrayBuffer, stats }),
        onError: ({ code }, _, __, stats) => resolve({ how: 'error', code, stats }),
        onTimeout: (stats) => resolve({ how: 'timeout', stats }),
        onAbort: (stats) => resolve({ how: 'abort', stats }),
        ...(progress && {
          onProgress: (_: unknown, __: unknown, data: string | ArrayBuffer) => {
            chunks.push(data as ArrayBuffer);
          },
        }),
      },
    );
  });
  return { loader, ended, chunks };
}

describe('the loader', () => {
  it('pays ahead by the tag of the fragment', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 3000);
    const { data, stats } = await load(payer, url, { value: 'BYTES=3000,AMOUNT=3000' }).ended;
    expect(data?.byteLength).toBe(3000);
    expect(shop.seen.map((request) => request.payment)).toEqual([false, true]);
    expect(shop.seen[0]?.path).toBe('/hls/a/pricing.json');
    expect(stats).toMatchObject({ loaded: 3000, total: 3000, aborted: false });
    const { start, first, end } = stats.loading;
    expect(start > 0 && start <= first && first <= end).toBe(true);
  });

  it('does not count the time it waits for money as loading', async () => {
    const { shop, payer } = setUp({ budget: { total: 0n } });
    const url = shop.add('/hls/a/source/0.ts', 3000);
    const { loader, ended } = load(payer, url, { value: 'BYTES=3000,AMOUNT=3000' });
    await until(() => payer.waiting === 'total');
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(performance.now() - loader.stats.loading.start).toBeLessThan(30);
    const raised = performance.now();
    payer.budget = { total: 10_000n };
    const { stats } = await ended;
    expect(stats.loading.start).toBeGreaterThanOrEqual(raised);
  });

  it('does not count it either where the price came with a 402', async () => {
    const { shop, payer } = setUp({ budget: { total: 0n } });
    const { loader, ended } = load(payer, shop.add('/hls/a/source/0.ts', 3000));
    await until(() => payer.waiting === 'total');
    expect(shop.seen).toHaveLength(1);
    const later = performance.now() + 5;
    await until(() => performance.now() > later);
    expect(loader.stats.loading.start).toBeGreaterThanOrEqual(later);
    payer.budget = { total: 10_000n };
    expect(await ended).toMatchObject({ how: 'success' });
  });

  it('aborts without losing what was paid', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 3000);
    const value = 'BYTES=3000,AMOUNT=3000';
    const first = load(payer, url, { value });
    shop.arrived = () => first.loader.abort();
    expect(await first.ended).toMatchObject({ how: 'abort', stats: { aborted: true } });
    shop.arrived = () => undefined;
    expect((await load(payer, url, { value }).ended).data?.byteLength).toBe(3000);
    expect(shop.charged).toBe(3000n);
    expect(payer.spent).toBe(3000n);
  });

  it('tells hls.js by its status what may come of trying again', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 3000);
    shop.faults.push('drop', 'drop', 'drop', 'drop');
    const value = 'BYTES=3000,AMOUNT=3000';
    expect(await load(payer, url, { value }).ended).toMatchObject({ how: 'error', code: 503 });
    const dear = await load(payer, url.replace('/0', '/9'), { value }).ended;
    expect(dear).toMatchObject({ how: 'error', code: 404 });
    shop.price *= 2n;
    const cheap = await load(payer, shop.add('/hls/a/source/1.ts', 10), {
      value: 'BYTES=10,AMOUNT=10',
    }).ended;
    expect(cheap).toMatchObject({ how: 'error', code: 402 });
  });

  it('asks for no more than its own price', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 3000);
    const value = 'BYTES=3000,AMOUNT=3000';
    const dear = load(payer, url, { value, options: { maxPerMb: 1_000_000n } });
    expect(await dear.ended).toMatchObject({ how: 'error', code: 402 });
    const fair = load(payer, url, { value, options: { maxPerMb: 1_048_576n } });
    expect(await fair.ended).toMatchObject({ how: 'success' });
    expect(shop.charged).toBe(3000n);
  });

  it('hands bytes on as they come, each once', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 3000);
    shop.faults.push('break');
    const { ended, chunks } = load(payer, url, {
      value: 'BYTES=3000,AMOUNT=3000',
      progress: true,
    });
    expect((await ended).data?.byteLength).toBe(0);
    expect(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0)).toBe(3000);
    expect(chunks.length).toBeGreaterThan(1);
  });

  it('is used for ranges, whose price is their own', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 3000);
    const loader = new (xbyteLoader(payer))({} as never);
    const range = { rangeStart: 0, rangeEnd: 100 };
    const data = await new Promise((resolve, reject) => {
      loader.load(
        { url, frag: { tagList: [] }, ...range } as unknown as FragmentLoaderContext,
        { loadPolicy: { maxLoadTimeMs: 1000 } } as LoaderConfiguration,
        {
          onSuccess: (answer) => resolve(answer.data),
          onError: (error) => reject(new Error(error.text)),
          onTimeout: reject,
        },
      );
    });
    expect((data as ArrayBuffer).byteLength).toBe(100);
  });
});

it('reads offers, and no nonsense', () => {
  expect(aheadOf([['EXT-X-XBYTE-SEGMENT', 'BYTES=5,AMOUNT=7']])).toEqual({ bytes: 5, amount: 7n });
  for (const value of ['', 'BYTES=5', 'AMOUNT=5', 'BYTES=-5,AMOUNT=7', 'BYTES=5,AMOUNT=0x7']) {
    expect(aheadOf([['EXT-X-XBYTE-SEGMENT', value]])).toBeUndefined();
  }
});

it('caps levels by what a minute of them costs', () => {
  const { payer } = setUp({ budget: { total: 10n ** 9n, perMinute: 20_000n } });
  const listeners = new Set<() => void>();
  const hls: LevelSource = {
    levels: [{ bitrate: 1_000_000 }, { bitrate: 2_000_000 }, { bitrate: 5_000_000 }],
    autoLevelCapping: -1,
    on: (_, listener) => listeners.add(listener),
    off: (_, listener) => listeners.delete(listener),
  };
  const stop = capLevels(hls, payer, 1000n);
  expect(hls.autoLevelCapping).toBe(1);
  payer.budget = { total: 10n ** 9n, perMinute: 1n };
  expect(hls.autoLevelCapping).toBe(0);
  payer.budget = { total: 10n ** 9n };
  expect(hls.autoLevelCapping).toBe(-1);
  stop();
  expect(listeners.size).toBe(0);
});
