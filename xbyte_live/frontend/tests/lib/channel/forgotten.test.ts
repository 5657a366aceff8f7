import { afterEach, describe, expect, it, vi } from 'vitest';
import { AskingWallet, setUp, type Setup } from '../../support/payers';
import { NETWORK } from '../../support/shop';

const ahead = (bytes: number) => ({ ahead: { bytes, amount: BigInt(bytes) }, wait: false });

/** Somebody who bought for 1000 and has 9000 in a channel. */
const bought = async (
  options: Parameters<typeof setUp>[0] = {},
): Promise<Setup & { asked: readonly unknown[] }> => {
  const wallet = new AskingWallet();
  const all = setUp({ wallet, ...options });
  await all.payer.fetchPaid(all.shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
  return { ...all, asked: wallet.asked };
};
const next = async ({ shop, payer }: Setup, bytes = 500, at = 1) =>
  payer.fetchPaid(shop.add(`/hls/a/source/${at}.ts`, bytes), ahead(bytes));

describe('a channel that its server does not know any more', () => {
  it('begins anew with a new deposit', async () => {
    const all = await bought();
    all.shop.accounts.clear();
    expect((await next(all)).amount).toBe(500n);
    expect((await next(all, 500, 2)).amount).toBe(500n);
    expect(all.payer.spent).toBe(2000n);
    expect(all.asked).toHaveLength(1); // another chain: it is good there
    const [channel] = await all.store.channels();
    expect(channel).toMatchObject({ charged: 1000n, signed: 1500n, open: [] });
    expect(await all.payer.close()).toMatchObject([{ amount: 9000n }]);
  });

  it('begins anew once its deposits have expired', async () => {
    let now = 1_000_000_000;
    const all = await bought({ now: () => now });
    now += 301_000;
    all.shop.accounts.clear();
    expect((await next(all)).amount).toBe(500n);
    expect(all.asked).toHaveLength(2);
  });

  it('begins anew after all was given back', async () => {
    const all = await bought();
    await all.payer.close();
    all.shop.accounts.clear();
    expect((await next(all)).amount).toBe(500n);
    expect(all.asked).toHaveLength(2);
  });

  it('begins anew where vouchers were open', async () => {
    const all = await bought();
    all.shop.faults.push('drop', 'drop', 'drop', 'drop');
    await expect(next(all)).rejects.toMatchObject({ code: 'unreachable' });
    all.shop.accounts.clear();
    expect((await next(all)).amount).toBe(500n);
    expect(all.payer.spent).toBe(1500n);
  });

  it('counts anew against the budget, too', async () => {
    const all = await bought({ budget: { total: 1400n } });
    all.shop.accounts.clear();
    await expect(next(all)).rejects.toMatchObject({ code: 'cap-total' });
    expect((await next(all, 400)).amount).toBe(400n);
    await expect(next(all, 1, 2)).rejects.toMatchObject({ code: 'cap-total' });
    expect(all.payer.spent).toBe(1400n);
  });

  it('goes on where its server remembers again', async () => {
    const all = await bought();
    const known = new Map(all.shop.accounts);
    all.shop.accounts.clear();
    await next(all);
    all.shop.accounts.clear();
    for (const [id, account] of known) all.shop.accounts.set(id, account);
    expect((await next(all, 500, 2)).amount).toBe(500n);
    expect((await all.store.channels())[0]).toMatchObject({ charged: 1500n, signed: 1500n });
  });
});

describe('a server that lost its ledger', () => {
  it('is paid from the total that it still knows', async () => {
    const all = await bought();
    all.shop.loseLedger();
    expect((await next(all)).amount).toBe(500n);
    expect(all.asked).toHaveLength(1);
    const [channel] = await all.store.channels();
    expect(channel).toMatchObject({ charged: 500n, signed: 1500n, balance: 10_000n });
    expect(await all.payer.close()).toMatchObject([{ amount: 9500n }]);
  });

  it('refunds what it does not claim', async () => {
    const all = await bought();
    all.shop.loseLedger();
    expect(await all.payer.close()).toMatchObject([{ amount: 10_000n }]);
  });

  it('is not believed where it says more without a proof', async () => {
    const all = await bought();
    all.shop.loseLedger();
    for (const account of all.shop.accounts.values()) account.charged = 2000n;
    await expect(next(all)).rejects.toMatchObject({ code: 'refused' });
    expect((await all.store.channels())[0]).toMatchObject({ charged: 1000n, signed: 1500n });
  });
});

describe('where a node can be asked', () => {
  afterEach(() => vi.unstubAllGlobals());
  const chainSays = (balance: bigint, claimed: bigint): void => {
    const word = (value: bigint): string => value.toString(16).padStart(64, '0');
    const result = `0x${word(balance)}${word(claimed)}`;
    vi.stubGlobal('fetch', async () => Promise.resolve(Response.json({ result })));
  };
  const rpcUrls = { [NETWORK]: 'http://127.0.0.1:8545' };

  it('a server that denies a channel which is there is not begun anew with', async () => {
    const all = await bought({ rpcUrls });
    const { shop, asked } = all;
    chainSays(10_000n, 0n);
    shop.accounts.clear();
    await expect(next(all)).rejects.toMatchObject({ code: 'refused' });
    expect(asked).toHaveLength(1);
    expect((await all.payer.channels())[0]).toMatchObject({ charged: 1000n, refundable: 9000n });
  });

  it('a channel that is not there is begun anew', async () => {
    const all = await bought({ rpcUrls });
    chainSays(0n, 0n);
    all.shop.accounts.clear();
    expect((await next(all)).amount).toBe(500n);
  });
});
