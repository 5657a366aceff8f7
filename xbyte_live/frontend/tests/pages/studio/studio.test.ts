import { describe, expect, test } from 'vitest';

import { Backoff } from '../../../src/pages/studio/backoff';
import { everyStep } from '../../../src/pages/studio/chart';
import { ago, periodOf, plural, volume } from '../../../src/pages/studio/periods';

const NOW = 1_760_000_123;
const DAY = 86_400;

describe('periods', () => {
  test('end with the step that is under way', () => {
    for (const name of ['hour', 'day', 'week', 'month', 'quarter'] as const) {
      const { from, to, step } = periodOf(name, NOW);
      expect(to % step).toBe(0);
      expect(to - step).toBeLessThanOrEqual(NOW);
      expect(to).toBeGreaterThan(NOW);
      expect((to - from) % step).toBe(0);
      expect((to - from) / step).toBeLessThanOrEqual(2000);
    }
  });

  test('of days begin at midnight UTC, as the books do', () => {
    expect(periodOf('month', NOW)).toMatchObject({ step: DAY, utc: true });
    expect(periodOf('month', NOW).from % DAY).toBe(0);
  });

  test('are said in words', () => {
    expect(ago(NOW - 10, NOW)).toBe('just now');
    expect(ago(NOW - 240, NOW)).toBe('4 min ago');
    expect(ago(NOW - 7200, NOW)).toBe('2 h ago');
    expect(plural(1, 'play')).toBe('1 play');
    expect(plural(1200, 'play')).toBe('1,200 plays');
    expect(volume(2 * 1024 ** 3)).toBe('2.00 GB');
  });
});

test('steps in which nothing was earned are there too', () => {
  const sold = { deliveries: 2, bytes: 30, amount: '4' };
  const none = { deliveries: 0, bytes: 0, amount: '0' };
  const steps = everyStep({
    from: 1000,
    to: 1400,
    step: 100,
    total: sold,
    series: [{ at: 1200, ...sold }],
    items: [],
    other_items: none,
  });
  expect(steps).toEqual([none, none, sold, none]);
});

test('a server that does not answer is asked less and less often', () => {
  const backoff = new Backoff(1000);
  const waits = Array.from({ length: 8 }, () => backoff.wait());
  expect(waits).toEqual([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
  backoff.reset();
  expect(backoff.wait()).toBe(1000);
});
