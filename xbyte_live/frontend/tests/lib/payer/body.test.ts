import { describe, expect, it } from 'vitest';
import { Body } from '../../../src/lib/payer/body';
import { setUp } from '../../support/payers';

const chunk = (size: number, value: number): Uint8Array => new Uint8Array(size).fill(value);

describe('a body', () => {
  it('is held once where its length is known', () => {
    const body = new Body(6, 6);
    expect([body.add(chunk(4, 1)), body.add(chunk(2, 2))]).toEqual([true, true]);
    const bytes = body.bytes();
    expect([...new Uint8Array(bytes)]).toEqual([1, 1, 1, 1, 2, 2]);
    expect(body.bytes()).toBe(bytes);
  });

  it('takes no more than it may', () => {
    const body = new Body(2, 5);
    expect([body.add(chunk(4, 1)), body.add(chunk(2, 2)), body.add(chunk(1, 3))]).toEqual([
      true,
      false,
      true,
    ]);
    expect([...new Uint8Array(body.bytes())]).toEqual([1, 1, 1, 1, 3]);
  });

  for (const expected of [0, 10, 300_000]) {
    it(`may be longer or shorter than the ${expected} that were said`, () => {
      const body = new Body(expected, 1_000_000);
      for (let n = 0; n < 200; n += 1) body.add(chunk(1000, n));
      const bytes = new Uint8Array(body.bytes());
      expect(body.length).toBe(200_000);
      expect(bytes).toHaveLength(200_000);
      for (let n = 0; n < 200; n += 1) expect(bytes[n * 1000 + 999]).toBe(n);
    });
  }
});

it('is not made room for on the word of a server alone', async () => {
  const { shop, payer } = setUp({
    fetch: async () => {
      await Promise.resolve();
      return new Response(new Uint8Array(10), { headers: { 'content-length': `${2 ** 30}` } });
    },
  });
  let most = 0;
  const before = process.memoryUsage().arrayBuffers;
  const onProgress = (): void => {
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  };
  const buying = payer.fetchPaid(shop.add('/objects/a', 10), { onProgress });
  await expect(buying).rejects.toMatchObject({ code: 'unreachable' });
  expect(most).toBeGreaterThan(0);
  expect(most).toBeLessThan(2 ** 28);
});
