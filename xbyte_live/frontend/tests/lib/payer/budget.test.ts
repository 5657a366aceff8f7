import { expect, it } from 'vitest';
import { Spending } from '../../../src/lib/payer/budget';

const HOUR = 3_600_000; // milliseconds

it('within a minute is held to its cap, however the clock is set back', () => {
  const spending = new Spending({ total: 10_000n, perMinute: 1000n });
  const start = 10 * HOUR;
  spending.take(800n, start);
  spending.charged(800n, start);
  const now = start - HOUR;
  expect(spending.check(800n, now)).toMatchObject({ limit: 'minute', resumesAt: now + 60_000 });
  expect(spending.perMinute(now)).toBe(800n);
  expect(spending.check(800n, now + 60_001)).toBeUndefined();
  expect(spending.perMinute(now + 60_001)).toBe(0n);
});

it('that never left is taken back after the clock was set back', () => {
  const spending = new Spending({ total: 10_000n, perMinute: 1000n });
  const giveBack = spending.take(800n, HOUR);
  expect(spending.check(800n, 0)).toBeDefined();
  giveBack();
  expect(spending.check(800n, 0)).toBeUndefined();
});
