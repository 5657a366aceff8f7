import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { EXCEEDS_BALANCE, REFUND_NOTHING } from '../../../src/lib/x402/codes';
import { encodeHeader } from '../../../src/lib/x402/wire';
import { AskingWallet, setUp, type Setup } from '../../support/payers';
import { NETWORK } from '../../support/shop';

const ahead = (bytes: number) => ({ ahead: { bytes, amount: BigInt(bytes) } });
const WORD = `0x${'ab'.repeat(32)}`;

interface Lie {
  refund?: { amount: string; transaction: string };
  error?: string;
}

/** Somebody with 9000 in a channel, whose server answers refunds with a lie where there is one. */
const bought = async (knowsNode = false): Promise<Setup & { lie: (lie: Lie | undefined) => void }> => {
  let lying: Lie | undefined;
  const all: Setup = setUp({
    wallet: new AskingWallet(),
    ...(knowsNode && { rpcUrls: { [NETWORK]: 'http://127.0.0.1:8545' } }),
    fetch: async (input, init) => {
      if (!lying || !new Headers(init?.headers).has('payment-signature')) {
        return all.shop.fetch(input, init);
      }
      if (lying.error !== undefined) {
        const document = { x402Version: 2, error: lying.error, accepts: [all.shop.terms(1n)] };
        const headers = { 'payment-required': encodeHeader(document) };
        return new Response('{}', { status: 402, headers });
      }
      const headers = { 'payment-response': encodeHeader({ success: true, ...lying.refund }) };
      return new Response('{}', { headers });
    },
  });
  await all.payer.fetchPaid(all.shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
  return { ...all, lie: (lie) => (lying = lie) };
};
const seen = async ({ payer }: Setup) => {
  const [channel] = await payer.channels();
  return { refundable: channel?.refundable, returned: channel?.returned };
};

describe('a refund', () => {
  for (const refund of [
    { amount: `${2n ** 63n - 1n}`, transaction: WORD },
    { amount: '9001', transaction: WORD },
    { amount: '9000', transaction: `0x${'0'.repeat(64)}` },
  ]) {
    it(`that cannot be is not believed (${refund.amount})`, async () => {
      const all = await bought();
      all.lie({ refund });
      await expect(all.payer.close()).rejects.toMatchObject({ code: 'refused' });
      expect(await seen(all)).toEqual({ refundable: 9000n, returned: 0n });
      all.lie(undefined);
      expect(await all.payer.close()).toMatchObject([{ amount: 9000n }]);
    });
  }

  it('is said to have gone back where no node is known, and can be asked for again', async () => {
    const all = await bought();
    all.lie({ refund: { amount: '9000', transaction: WORD } });
    const [refund] = await all.payer.close();
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 9000n });
    expect(await all.payer.close()).toEqual([]);
    const only = { channelId: refund?.channelId ?? '0x' };
    expect(await all.payer.close(only)).toMatchObject([{ amount: 9000n }]);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 9000n });
    all.lie(undefined);
    expect(await all.payer.close(only)).toMatchObject([{ amount: 9000n }]);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 9000n });
  });

  it('that is denied is said to have gone back, and can be asked for again', async () => {
    const all = await bought();
    all.lie({ error: REFUND_NOTHING });
    expect(await all.payer.close()).toEqual([]);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 9000n });
    all.lie(undefined);
    const [channel] = await all.payer.channels();
    const only = { channelId: channel?.channelId ?? '0x' };
    expect(await all.payer.close(only)).toMatchObject([{ amount: 9000n }]);
  });

  it('that a server denies while it is paid is remembered, without what is handed over again', async () => {
    const all = await bought();
    all.payer.topUp(5000n);
    await all.payer.fetchPaid(all.shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    expect(await seen(all)).toEqual({ refundable: 13_000n, returned: 0n });
    all.shop.faults.push(`refuse:${EXCEEDS_BALANCE}`);
    await all.payer.fetchPaid(all.shop.add('/hls/a/source/2.ts', 1000), ahead(1000));
    const { refundable = 0n, returned = 0n } = await seen(all);
    expect(refundable + returned).toBe(12_000n);
  });
});

describe('where a node can be asked', () => {
  let balance: bigint | undefined;
  beforeEach(() => {
    vi.stubGlobal('fetch', async () => {
      if (balance === undefined) return Promise.reject(new TypeError('network'));
      const words = [balance, 0n].map((value) => value.toString(16).padStart(64, '0'));
      return Promise.resolve(Response.json({ result: `0x${words.join('')}` }));
    });
  });
  afterEach(() => vi.unstubAllGlobals());

  it('a refund that the chain shows is done with', async () => {
    const all = await bought(true);
    balance = 1000n;
    expect(await all.payer.close()).toHaveLength(1);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 0n });
  });

  it('a refund that the chain does not show is asked for again', async () => {
    const all = await bought(true);
    balance = 10_000n;
    all.lie({ refund: { amount: '9000', transaction: WORD } });
    expect(await all.payer.close()).toHaveLength(1);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 9000n });
    all.lie(undefined);
    const closing = all.payer.close();
    await vi.waitFor(() => expect(all.shop.paid).toBe(2));
    balance = 1000n;
    expect(await closing).toMatchObject([{ amount: 9000n }]);
    expect(all.shop.paid).toBe(2);
  });

  it('what the chain shows later is done with, and nobody is asked', async () => {
    const all = await bought(true);
    balance = undefined;
    expect(await all.payer.close()).toHaveLength(1);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 9000n });
    balance = 1000n;
    const asked = all.shop.seen.length;
    expect(await all.payer.close()).toEqual([]);
    expect(all.shop.seen).toHaveLength(asked);
    expect(await seen(all)).toEqual({ refundable: 0n, returned: 0n });
  });

  it('a server that denies what the chain shows is not believed', async () => {
    const all = await bought(true);
    balance = 10_000n;
    all.lie({ error: REFUND_NOTHING });
    await expect(all.payer.close()).rejects.toMatchObject({ code: 'refused' });
    expect(await seen(all)).toEqual({ refundable: 9000n, returned: 0n });
  });
});
