import { expect, it } from 'vitest';
import { setUp, until } from '../../support/payers';
import { BASE } from '../../support/shop';

const ahead = (bytes: number) => ({ ahead: { bytes, amount: BigInt(bytes) } });
const SHORT = {
  firstWait: 1,
  longestWait: 5,
  pending: 300,
  firstByte: 40,
  nextBytes: 40,
  grace: 20,
  tries: 4,
};

/** An answer that never comes, unless nobody waits for it any more. */
const never = async (signal?: AbortSignal | null): Promise<never> =>
  new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError')));
  });

it('of a server to a refund holds up nothing that is bought', async () => {
  const { shop, payer, store } = setUp();
  await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
  const { payer: other } = setUp({
    store,
    patience: SHORT,
    wallet: payer.wallet,
    fetch: async (input, init) => {
      if (new Headers(init?.headers).has('payment-signature')) return never(init?.signal);
      return shop.fetch(input, init);
    },
  });
  const closing = other.close();
  const bought = payer.fetchPaid(shop.add('/hls/a/source/1.ts', 500), ahead(500));
  await expect(closing).rejects.toMatchObject({ code: 'pending', retryable: true });
  expect((await bought).amount).toBe(500n);
  expect(await payer.close()).toMatchObject([{ amount: 8500n }]);
});

it('of a server that is asked where to refund ends, too', async () => {
  const { shop, payer, store } = setUp();
  await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
  const get: typeof fetch = async (_, init) => never(init?.signal);
  const { payer: other } = setUp({ store, patience: SHORT, wallet: payer.wallet, fetch: get });
  await expect(other.close()).rejects.toMatchObject({ code: 'unreachable' });
});

for (const stalls of ['no answer', 'a body that never ends']) {
  it(`of a price list holds nobody up (${stalls})`, async () => {
    let asked = 0;
    const { shop, payer } = setUp({
      patience: SHORT,
      fetch: async (input, init) => {
        const url = input instanceof Request ? input.url : input.toString();
        if (!url.endsWith('pricing.json')) return shop.fetch(input, init);
        asked += 1;
        if (stalls === 'no answer') return never(init?.signal);
        const body = new ReadableStream({
          start: (stream) => {
            init?.signal?.addEventListener('abort', () => stream.error(new Error('aborted')));
          },
        });
        return new Response(body);
      },
    });
    const request = { ...ahead(1000), pricing: `${BASE}/hls/a/pricing.json` };
    const url = shop.add('/hls/a/source/0.ts', 1000);
    const abort = new AbortController();
    const given = payer.fetchPaid(url, { ...request, signal: abort.signal });
    await until(() => asked === 1);
    abort.abort();
    await expect(given).rejects.toMatchObject({ name: 'AbortError' });
    expect((await payer.fetchPaid(url, request)).amount).toBe(1000n);
    expect(asked).toBe(1);
  });
}

it('in the midst of a body is taken for its end, and the same payment asks again', async () => {
  const { shop, payer } = setUp({ patience: SHORT });
  const url = shop.add('/hls/a/source/0.ts', 1000);
  shop.faults.push('stall');
  expect((await payer.fetchPaid(url, ahead(1000))).bytes.byteLength).toBe(1000);
  expect(shop.vouchers).toBe(1);
  expect(payer.spent).toBe(1000n);
  shop.faults.push('stall', 'stall', 'stall', 'stall');
  const next = shop.add('/hls/a/source/1.ts', 1000);
  await expect(payer.fetchPaid(next, ahead(1000))).rejects.toMatchObject({ code: 'unreachable' });
});
