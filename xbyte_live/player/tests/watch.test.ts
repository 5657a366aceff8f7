import { describe, expect, test } from 'vitest';

import { stepAfter, stepAt, stepsWith, usualCap } from '../src/pages/watch/caps';
import { after } from '../src/pages/watch/receipts';
import { Recent } from '../src/pages/watch/recent';

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
