import { describe, expect, test } from 'vitest';

import { amountFor, parseAmount } from '../../../src/lib/money';
import type { PaidRequest, PaidResponse } from '../../../src/lib/payer/types';
import { stepAfter, stepAt, stepsWith, usualCap } from '../../../src/pages/watch/payment/cap_sliders';
import { Download, PIECE, Replaced } from '../../../src/pages/watch/payment/download';
import { perMbOf } from '../../../src/pages/watch/payment/listing';
import { after, leftOut } from '../../../src/pages/watch/payment/receipts';
import { Recent } from '../../../src/pages/watch/player/recent';
import { isForGood, remedyOf } from '../../../src/pages/watch/messages/troubleshooter';

const DOLLAR = 1_000_000n;

describe('caps', () => {
  test('are round, however dear something is', () => {
    expect(stepAt(1n)).toBe(1_000n);
    expect(stepAt(20_000n)).toBe(20_000n);
    expect(stepAt(20_001n)).toBe(50_000n);
    expect(stepAt(51n * DOLLAR)).toBe(100n * DOLLAR);
    expect(stepAt(3_000n * DOLLAR)).toBe(5_000n * DOLLAR);
    expect(usualCap(2n * DOLLAR)).toBe(100n * DOLLAR); // half an hour of it
  });

  test('can be raised for ever', () => {
    let cap = 0n;
    for (let times = 0; times < 30; times += 1) {
      expect(stepAfter(cap)).toBeGreaterThan(cap);
      cap = stepAfter(cap);
    }
    expect(cap).toBeGreaterThan(1_000n * DOLLAR);
  });

  test('that are no step are one to choose', () => {
    for (const cap of [7n, 370_000n, 63n * DOLLAR, 999_999n * DOLLAR, 500_000n]) {
      const steps = stepsWith(cap);
      expect(steps).toContain(cap);
      expect(steps).toEqual([...new Set(steps)].sort((a, b) => Number(a - b)));
      expect(steps[0]).toBeLessThanOrEqual(1_000n);
    }
  });
});

test('what was bought lately is known, and no more of it than that', () => {
  const recent = new Recent<string>(3);
  for (const url of ['a', 'b', 'c', 'a', 'd']) recent.add(url);
  expect(['a', 'b', 'c', 'd'].filter((url) => recent.has(url))).toEqual(['a', 'c', 'd']);
});

test('new receipts are found though the oldest are dropped for them', () => {
  let all = [1, 2, 3].map((at) => ({ at }));
  const [, , newest] = all;
  expect(after(undefined, all)).toEqual(all);
  expect(after(newest, all)).toEqual([]);
  all = [...all.slice(2), { at: 4 }, { at: 5 }]; // as long as it was
  expect(after(newest, all)).toEqual([{ at: 4 }, { at: 5 }]);
  expect(after({ at: 1 }, all)).toEqual(all);
});

test('what was asked for bytes is covered by the price a MB that follows from it', () => {
  for (const perMb of [1n, 333n, 2_000n, 1_234_567n]) {
    for (const bytes of [1, 29_999, 750_112, 5_000_000]) {
      const amount = amountFor(bytes, perMb);
      const most = perMbOf({ amount, bytes });
      expect(amountFor(bytes, most)).toBe(amount); // and no more than was asked
      expect(most).toBeGreaterThanOrEqual(perMb);
    }
  }
  expect(perMbOf({ amount: 5n, bytes: 0 })).toBe(0n);
});

test('of receipts that are not kept any more it is said how many there were', () => {
  expect(leftOut(0, 0)).toBe('');
  expect(leftOut(20_000, 20_000)).toBe('');
  expect(leftOut(21_234, 20_000)).toBe(
    'The last 20,000 are kept and exported; 1,234 before them are left out.',
  );
});

describe('a download', () => {
  const PRICE = '0.000333';
  const sold = (size: number) => ({
    size,
    pricePerMb: PRICE,
    priceWhole: '0.123',
    url: 'https://host/objects/film',
    pricingUrl: 'https://host/objects/film/pricing.json',
  });

  /** A server that hands over what is asked for, each byte the last digit of its MB. */
  class Shelf {
    asked: PaidRequest[] = [];
    tag = 'one';
    failing = false;

    readonly fetchPaid = async (_: string, request: PaidRequest): Promise<PaidResponse> => {
      this.asked.push(request);
      if (this.failing) throw new Error('gone');
      const [from = 0, to = 999] = (request.range ?? 'bytes=0-999').slice(6).split('-').map(Number);
      const bytes = new Uint8Array(to - from + 1).fill(from / 2 ** 20);
      request.onProgress?.(bytes.length, bytes.length, bytes);
      const headers = new Headers({ etag: this.tag, 'content-type': 'video/mp4' });
      return Promise.resolve({ bytes: bytes.buffer, status: 200, headers, amount: 1n });
    };
  }

  test('of a small file is one purchase, for no more than its price', async () => {
    const shelf = new Shelf();
    const file = await new Download(shelf.fetchPaid, () => undefined).all(sold(1000));
    expect([file.size, file.type]).toEqual([1000, 'video/mp4']);
    expect(shelf.asked).toHaveLength(1);
    expect(shelf.asked[0]).toMatchObject({ ahead: { bytes: 1000, amount: 123_000n } });
    expect(shelf.asked[0]?.range).toBeUndefined();
  });

  test('of a large one is in pieces, which cost together what it costs', async () => {
    const shelf = new Shelf();
    const size = 2 * PIECE + 12_345;
    const told: number[] = [];
    const file = await new Download(shelf.fetchPaid, (loaded) => told.push(loaded)).all(sold(size));
    expect(file.size).toBe(size);
    expect(shelf.asked.map(({ range }) => range)).toEqual([
      `bytes=0-${PIECE - 1}`,
      `bytes=${PIECE}-${2 * PIECE - 1}`,
      `bytes=${2 * PIECE}-${size - 1}`,
    ]);
    const cost = shelf.asked.reduce((sum, { ahead }) => sum + (ahead?.amount ?? 0n), 0n);
    expect(cost).toBe(amountFor(size, parseAmount(PRICE)));
    expect(told).toEqual([PIECE, 2 * PIECE, size]);
    expect(new Uint8Array(await file.slice(PIECE, PIECE + 1).arrayBuffer())).toEqual(new Uint8Array([32]));
  });

  test('that broke off goes on where it was', async () => {
    const shelf = new Shelf();
    const download = new Download(shelf.fetchPaid, () => (shelf.failing = true));
    await expect(download.all(sold(2 * PIECE))).rejects.toThrow('gone');
    shelf.failing = false;
    expect((await download.all(sold(2 * PIECE))).size).toBe(2 * PIECE);
    const ranges = shelf.asked.map(({ range }) => range);
    expect(ranges.filter((range) => range === `bytes=0-${PIECE - 1}`)).toHaveLength(1);
  });

  test('of a file that changes meanwhile is no mixture', async () => {
    const shelf = new Shelf();
    const download = new Download(shelf.fetchPaid, () => (shelf.tag += '!'));
    await expect(download.all(sold(2 * PIECE))).rejects.toThrow(Replaced);
  });
});

describe('out of trouble', () => {
  test('a deposit is ordered again only where one failed', () => {
    expect(remedyOf('topup-needed', true)).toBe('deposit');
    expect(remedyOf('wallet-rejected', true)).toBe('deposit');
    for (const code of ['refused', 'pending', 'unreachable', 'http', 'cap-total', 'no-wallet'] as const) {
      expect(remedyOf(code, true)).toBe('again');
    }
    expect(remedyOf('overcharged', false)).toBe('none');
    expect(remedyOf('price-raised', false)).toBe('new-price');
    expect(remedyOf('misdelivered', false)).toBe('trust');
  });

  test('nothing more is bought where it would fail alike', () => {
    expect(isForGood('price-raised', false)).toBe(true);
    expect(isForGood('overcharged', false)).toBe(true);
    expect(isForGood('misdelivered', false)).toBe(true);
    expect(isForGood('refused', true)).toBe(false);
    expect(isForGood('http', false)).toBe(false); // another segment may be there
  });
});
