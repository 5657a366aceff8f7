import { describe, expect, it, vi } from 'vitest';
import { DEPOSIT_BELOW_MINIMUM, DEPOSIT_EXPIRED, EXCEEDS_BALANCE } from '../../../src/lib/x402/codes';
import { PaymentError } from '../../../src/lib/x402/errors';
import { Payer } from '../../../src/lib/payer/payer';
import { IndexedDbStore } from '../../../src/lib/channel/store';
import { channelIdOf } from '../../../src/lib/x402/typed_data';
import type { Budget } from '../../../src/lib/payer/types';
import type { Hex } from '../../../src/lib/x402/types';
import { AskingWallet, setUp, until, type Setup } from '../../support/payers';
import { CHAIN, PAYEE, Shop } from '../../support/shop';

const ahead = (bytes: number): { ahead: { bytes: number; amount: bigint }; pricing: string } => ({
  ahead: { bytes, amount: BigInt(bytes) },
  pricing: 'http://127.0.0.1:8402/hls/a/pricing.json',
});

describe('buying', () => {
  it('answers a 402 with a deposit and a voucher, then pays ahead', async () => {
    const { shop, payer, of } = setUp();
    const first = shop.add('/hls/a/source/0.ts', 1000);
    const second = shop.add('/hls/a/source/1.ts', 2000);
    const bought = await payer.fetchPaid(first);
    expect(bought.bytes.byteLength).toBe(1000);
    expect(bought.amount).toBe(1000n);
    expect(shop.seen.map((request) => request.payment)).toEqual([false, true]);
    await payer.fetchPaid(second, { ahead: { bytes: 2000, amount: 2000n } });
    expect(shop.seen).toHaveLength(3);
    expect(payer.spent).toBe(3000n);
    expect(shop.charged).toBe(3000n);
    expect(of('spend').map((spend) => spend.total)).toEqual([1000n, 3000n]);
    expect(of('deposit').map((deposit) => deposit.state)).toEqual(['signing', 'sent', 'done']);
    expect(payer.receipts.map((receipt) => receipt.cumulative)).toEqual([1000n, 3000n]);
    expect(payer.receipts[0]).toMatchObject({ bytes: 1000, payTo: PAYEE, url: first });
  });

  it('pays the first one ahead by the price list', async () => {
    const { shop, payer } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    expect(shop.seen.map((request) => request.path)).toEqual([
      '/hls/a/pricing.json',
      '/hls/a/source/0.ts',
    ]);
    expect(payer.spent).toBe(1000n);
  });

  it('takes what is free without a wallet', async () => {
    const { shop, payer } = setUp({ wallet: undefined });
    shop.price = 0n;
    const free = await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 10), {
      ahead: { bytes: 10, amount: 0n },
    });
    expect(free.amount).toBe(0n);
    expect(free.receipt).toBeUndefined();
  });

  it('prices a range by itself', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/objects/a', 5000);
    const part = await payer.fetchPaid(url, { range: 'bytes=100-199' });
    expect(part.status).toBe(206);
    expect(part.bytes.byteLength).toBe(100);
    expect(payer.spent).toBe(100n);
  });

  it('has one voucher of a channel under way at a time', async () => {
    const { shop, payer } = setUp();
    const urls = Array.from({ length: 12 }, (_, n) => shop.add(`/hls/a/source/${n}.ts`, 100 + n));
    await Promise.all(urls.map(async (url, n) => payer.fetchPaid(url, ahead(100 + n))));
    expect(shop.paid).toBe(12);
    expect(payer.spent).toBe(shop.charged);
    expect(shop.charges).toHaveLength(12);
  });

  it('shares a channel between two tabs', async () => {
    const shop = new Shop();
    const one = setUp({}, shop);
    const other = setUp({ store: one.store, wallet: one.wallet }, shop);
    const urls = Array.from({ length: 10 }, (_, n) => shop.add(`/hls/a/source/${n}.ts`, 100));
    await Promise.all(
      urls.map(async (url, n) => (n % 2 ? one : other).payer.fetchPaid(url, ahead(100))),
    );
    expect(shop.accounts.size).toBe(1);
    expect(shop.paid).toBe(10);
    expect(one.payer.spent).toBe(500n);
    expect(other.payer.spent).toBe(500n);
  });

  it('presents the receipt of the first purchase where it opens the same bytes', async () => {
    const { shop, payer } = setUp();
    shop.rewatchFree = true;
    const url = shop.add('/hls/a/source/0.ts', 1000);
    await payer.fetchPaid(url, ahead(1000));
    const again = await payer.fetchPaid(url, ahead(1000));
    expect(again.bytes.byteLength).toBe(1000);
    expect(again.amount).toBe(0n);
    expect(shop.charged).toBe(1000n);
    shop.rewatchFree = false;
    await payer.fetchPaid(url, ahead(1000));
    expect(payer.spent).toBe(2000n);
  });
});

describe('prices', () => {
  it('never signs above what the playlist said', async () => {
    const { shop, payer, of } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.price *= 2n;
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'price-raised' });
    await expect(payer.fetchPaid(url, { atMost: 1999n })).rejects.toMatchObject({
      code: 'price-raised',
    });
    expect(shop.charged).toBe(0n);
    expect(of('error')[0]).toMatchObject({ code: 'price-raised', retryable: false });
    expect(payer.spent).toBe(0n);
  });

  it('never signs above the price that was agreed to', async () => {
    const { shop, payer, of } = setUp({ maxPerMb: 1_048_576n });
    const [first, second] = [0, 1].map((n) => shop.add(`/hls/a/source/${n}.ts`, 1000));
    if (!first || !second) throw new Error('nothing is sold');
    await payer.fetchPaid(first, ahead(1000));
    shop.price *= 2n;
    const raised = { ahead: { bytes: 1000, amount: 2000n } };
    await expect(payer.fetchPaid(second, raised)).rejects.toMatchObject({ code: 'price-raised' });
    for (const request of [{}, { range: 'bytes=0-99' }, { range: 'bytes=0-' }]) {
      await expect(payer.fetchPaid(second, request)).rejects.toMatchObject({
        code: 'price-raised',
      });
    }
    expect(of('error')).toHaveLength(4);
    expect(payer.spent).toBe(1000n);
    payer.maxPerMb = shop.price;
    expect((await payer.fetchPaid(second, raised)).amount).toBe(2000n);
    expect((await payer.fetchPaid(second, { range: 'bytes=0-99' })).amount).toBe(200n);
    payer.maxPerMb = undefined;
    expect((await payer.fetchPaid(first)).amount).toBe(2000n);
  });

  it('that were raised are told as they are asked for', async () => {
    const { shop, payer, of } = setUp({ maxPerMb: 1_048_576n });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.price *= 2n;
    const amount = 2000n;
    for (const [request, asked] of [
      [{ ahead: { bytes: 1000, amount } }, { amount, bytes: 1000 }], // the playlist says so
      [ahead(1000), { amount, bytes: 1000 }], // its 402 does
      [{ range: 'bytes=0-99' }, { amount: 200n, bytes: 100 }],
      [{ atMost: 1n }, { amount }],
      [{}, undefined], // it is not asked: nothing says how large it is
    ] as const) {
      await expect(payer.fetchPaid(url, request)).rejects.toMatchObject({
        code: 'price-raised',
        asked,
      });
      expect(of('error').at(-1)?.asked).toEqual(asked);
    }
    expect(shop.charged).toBe(0n);
  });

  it('holds to the least that anyone agreed to', async () => {
    const { shop, payer } = setUp({ maxPerMb: 1_048_576n });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    for (const request of [
      { ...ahead(1000), atMost: 999n },
      { ...ahead(1000), maxPerMb: 1_048_575n / 2n },
      { ...ahead(1000), maxPerMb: 0n },
    ]) {
      await expect(payer.fetchPaid(url, request)).rejects.toMatchObject({ code: 'price-raised' });
    }
    expect(shop.paid).toBe(0);
    await payer.fetchPaid(url, { maxPerMb: 2_000_000n, atMost: 1000n });
    expect(shop.charged).toBe(1000n);
  });

  it('takes a rounded unit for next to nothing', async () => {
    const { shop, payer } = setUp({ maxPerMb: 1n });
    shop.price = 1n;
    const url = shop.add('/hls/a/source/0.ts', 10);
    await payer.fetchPaid(url, { ahead: { bytes: 10, amount: 1n } });
    expect(shop.charged).toBe(1n);
  });

  it('still gets for its voucher what was paid for before the price went up', async () => {
    const { shop, payer } = setUp({ maxPerMb: 1_048_576n });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop');
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'unreachable' });
    payer.maxPerMb = 1n;
    await payer.fetchPaid(url, ahead(1000));
    expect(shop.vouchers).toBe(1);
    expect(payer.spent).toBe(1000n);
  });

  it('pays less where the server asks for less', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.price /= 2n;
    const bought = await payer.fetchPaid(url, ahead(1000));
    expect(bought.amount).toBe(500n);
    expect(payer.spent).toBe(500n);
  });

  it('does not pay for what was free', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    const free = { ahead: { bytes: 1000, amount: 0n } };
    await expect(payer.fetchPaid(url, free)).rejects.toMatchObject({ code: 'price-raised' });
  });

  it('is told when bytes are not those that were quoted', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    const quoted = { ahead: { bytes: 1001, amount: 1001n } };
    await expect(payer.fetchPaid(url, quoted)).rejects.toMatchObject({ code: 'bad-delivery' });
  });

  it('stops reading where more comes than was quoted', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('long', 'long');
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'bad-delivery' });
    expect(shop.sent).toBe(2);
    const range = { range: 'bytes=0-99' };
    await expect(payer.fetchPaid(url, range)).rejects.toMatchObject({ code: 'bad-delivery' });
    expect(shop.sent).toBe(4);
  });

  it('buys nothing that is too large to hold', async () => {
    const { shop, payer } = setUp({ budget: { total: 2n ** 40n } });
    const url = shop.add('/objects/a', 1000);
    for (const request of [ahead(2 ** 30 + 1), { range: `bytes=5-${2 ** 30 + 5}` }]) {
      await expect(payer.fetchPaid(url, request)).rejects.toMatchObject({ code: 'too-large' });
    }
    expect(shop.seen).toHaveLength(0);
  });

  it('refuses a token that is not allowed', async () => {
    const { shop, payer } = setUp({ assets: [] });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    await expect(payer.fetchPaid(url)).rejects.toMatchObject({ code: 'no-way-to-pay' });
  });
});

describe('one voucher for one delivery', () => {
  for (const fault of ['drop', 'charge+drop', '503', 'charge+503', 'busy', 'break']) {
    it(`after ${fault}`, async () => {
      const { shop, payer } = setUp();
      const url = shop.add('/hls/a/source/0.ts', 1000);
      shop.faults.push(fault, fault);
      const bought = await payer.fetchPaid(url, ahead(1000));
      expect(bought.bytes.byteLength).toBe(1000);
      expect(shop.vouchers).toBe(1);
      expect(shop.paid).toBe(3);
      expect(payer.spent).toBe(1000n);
      expect(payer.receipts).toHaveLength(1);
    });
  }

  it('is the same one when the caller asks again after it was given up', async () => {
    const { shop, payer } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop', 'drop');
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'unreachable' });
    await payer.fetchPaid(url, ahead(1000));
    expect(shop.vouchers).toBe(1);
    expect(payer.spent).toBe(1000n);
    expect(shop.charged).toBe(1000n);
  });

  it('is the same one after a reload', async () => {
    const shop = new Shop();
    const before = setUp({}, shop);
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop');
    await expect(before.payer.fetchPaid(url, ahead(1000))).rejects.toThrow(PaymentError);
    const since = setUp({ store: before.store, wallet: before.wallet }, shop);
    await since.payer.fetchPaid(url, ahead(1000));
    expect(shop.vouchers).toBe(1);
    expect(since.payer.spent).toBe(1000n);
    await since.payer.fetchPaid(shop.add('/hls/a/source/1.ts', 10), ahead(10));
    expect(shop.accounts.size).toBe(1);
    expect(shop.charged).toBe(1010n);
  });

  it('is not presented after its server has forgotten it', async () => {
    let now = 1_000_000;
    const { shop, payer } = setUp({ now: () => now });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop');
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toThrow(PaymentError);
    now += 121_000;
    shop.forget();
    await payer.fetchPaid(url, ahead(1000));
    expect(shop.charged).toBe(2000n);
    expect(payer.spent).toBe(2000n);
    expect(payer.receipts).toHaveLength(2);
  });
});

describe('an aborted request', () => {
  const abortable = (): { abort: AbortController; url: string } & ReturnType<typeof setUp> => {
    const all = setUp();
    return { ...all, abort: new AbortController(), url: all.shop.add('/hls/a/source/0.ts', 1000) };
  };

  it('that was charged pays for the same bytes later', async () => {
    const { shop, payer, abort, url } = abortable();
    shop.arrived = () => abort.abort();
    const buying = payer.fetchPaid(url, { ...ahead(1000), signal: abort.signal });
    await expect(buying).rejects.toMatchObject({ name: 'AbortError' });
    shop.arrived = () => undefined;
    await until(() => payer.spent === 1000n);
    const again = await payer.fetchPaid(url, ahead(1000));
    expect(again.bytes.byteLength).toBe(1000);
    expect(again.amount).toBe(0n);
    expect(shop.vouchers).toBe(1);
    expect(shop.charged).toBe(1000n);
    expect(payer.spent).toBe(1000n);
  });

  it('does not hold up the next one, and costs no second voucher for that', async () => {
    const { shop, payer, abort, url } = abortable();
    const next = shop.add('/hls/a/source/9.ts', 500);
    shop.arrived = () => abort.abort();
    await expect(
      payer.fetchPaid(url, { ...ahead(1000), signal: abort.signal }),
    ).rejects.toMatchObject({ name: 'AbortError' });
    shop.arrived = () => undefined;
    await payer.fetchPaid(next, ahead(500));
    expect(shop.paid).toBe(2);
    expect(payer.spent).toBe(1500n);
    expect(shop.charged).toBe(1500n);
  });

  for (const fault of ['hang', 'charge+hang']) {
    it(`that got no answer (${fault}) is settled by the next voucher`, async () => {
      const { shop, payer, abort, url } = abortable();
      await payer.fetchPaid(shop.add('/hls/a/source/8.ts', 10), ahead(10));
      shop.faults.push(fault);
      shop.arrived = () => setTimeout(() => abort.abort(), 5);
      await expect(
        payer.fetchPaid(url, { ...ahead(1000), signal: abort.signal }),
      ).rejects.toMatchObject({ name: 'AbortError' });
      shop.arrived = () => undefined;
      await payer.fetchPaid(shop.add('/hls/a/source/9.ts', 500), ahead(500));
      expect(payer.spent).toBe(shop.charged);
      const again = await payer.fetchPaid(url, ahead(1000));
      expect(again.amount).toBe(fault === 'hang' ? 1000n : 0n);
      expect(payer.spent).toBe(shop.charged);
      expect(shop.charged).toBe(1510n);
      expect(payer.receipts).toHaveLength(3);
    });
  }

  it('before anything was signed costs nothing', async () => {
    const { shop, payer, abort, url } = abortable();
    abort.abort();
    await expect(
      payer.fetchPaid(url, { ...ahead(1000), signal: abort.signal }),
    ).rejects.toMatchObject({ name: 'AbortError' });
    await payer.fetchPaid(url, ahead(1000));
    expect(shop.paid).toBe(1);
  });

  it('many times over, at any moment, costs each of the bytes once', async () => {
    const { shop, payer } = setUp();
    const urls = Array.from({ length: 20 }, (_, n) => shop.add(`/hls/a/source/${n}.ts`, 100));
    let delivered = 0;
    for (const [n, url] of urls.entries()) {
      const abort = new AbortController();
      const buying = payer.fetchPaid(url, { ...ahead(100), signal: abort.signal });
      buying.then(
        () => (delivered += 1),
        () => undefined,
      );
      for (let turns = 0; turns < n * 3; turns += 1) await Promise.resolve();
      if (n % 3 === 0) await new Promise((resolve) => setTimeout(resolve, n % 5));
      abort.abort();
    }
    for (const url of urls) await payer.fetchPaid(url, ahead(100));
    expect(shop.charged).toBe(2000n + 100n * BigInt(delivered));
    expect(payer.spent).toBe(shop.charged);
    expect(delivered).toBeLessThan(20);
  });
});

describe('a server that is not honest', () => {
  it('is not paid again after it charged more than was signed', async () => {
    const { shop, payer, of, store } = setUp();
    const url = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('overcharge');
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'overcharged' });
    expect(of('error')).toMatchObject([{ code: 'overcharged', retryable: false }]);
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'overcharged' });
    expect(shop.paid).toBe(1);
    expect((await store.channels())[0]?.fault).not.toBe('');
    expect((await payer.channels())[0]?.fault).toBeDefined();
  });

  it('is caught when it claims what it never delivered', async () => {
    const { shop, payer } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    const [account] = shop.accounts.values();
    if (account) account.charged += 500n;
    const next = payer.fetchPaid(shop.add('/hls/a/source/1.ts', 10), ahead(10));
    await expect(next).rejects.toMatchObject({ code: 'overcharged' });
  });
});

describe('the budget', () => {
  it('pauses at the total and goes on when it is raised', async () => {
    const { shop, payer, of } = setUp({ budget: { total: 1500n } });
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    const waiting = [1, 2].map(async (n) =>
      payer.fetchPaid(shop.add(`/hls/a/source/${n}.ts`, 1000), ahead(1000)),
    );
    await until(() => payer.waiting === 'total');
    expect(of('cap')).toMatchObject([{ limit: 'total', needed: 1000n, spent: 1000n, cap: 1500n }]);
    expect(shop.charged).toBe(1000n);
    payer.budget = { total: 3000n };
    await Promise.all(waiting);
    expect(payer.spent).toBe(3000n);
    expect(of('resume')).toEqual([{ waited: 'total' }]);
    expect(payer.waiting).toBeUndefined();
  });

  it('does not hold up what is free, or paid for already', async () => {
    const { shop, payer } = setUp({ budget: { total: 1500n } });
    const bought = shop.add('/hls/a/source/0.ts', 1000);
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop');
    await expect(payer.fetchPaid(bought, ahead(1000))).rejects.toMatchObject({
      code: 'unreachable',
    });
    shop.rewatchFree = true;
    const again = shop.add('/hls/a/source/1.ts', 400);
    await payer.fetchPaid(again, ahead(400));
    const waits = payer.fetchPaid(shop.add('/hls/a/source/2.ts', 1000), ahead(1000));
    await until(() => payer.waiting === 'total');
    expect((await payer.fetchPaid(bought, ahead(1000))).amount).toBe(0n);
    expect((await payer.fetchPaid(again, ahead(400))).amount).toBe(0n);
    const dear = shop.price;
    shop.price = 0n;
    const free = { ahead: { bytes: 300, amount: 0n } };
    expect((await payer.fetchPaid(shop.add('/hls/a/source/3.ts', 300), free)).amount).toBe(0n);
    expect((await payer.fetchPaid(shop.add('/hls/a/source/4.ts', 300))).amount).toBe(0n);
    shop.price = dear;
    expect(payer.waiting).toBe('total');
    expect(shop.charged).toBe(1400n);
    payer.budget = { total: 3000n };
    await waits;
    expect(payer.spent).toBe(2400n);
  });

  it('that is used up asks nobody again and again', async () => {
    const { shop, payer, of } = setUp({ budget: { total: 0n } });
    let waits = 0;
    const buying = [0, 1, 2].map(async (n) =>
      payer.fetchPaid(shop.add(`/hls/a/source/${n}.ts`, 1000), { onWait: () => (waits += 1) }),
    );
    await until(() => waits === 3);
    const asked = shop.seen.length;
    await expect(
      payer.fetchPaid(shop.add('/hls/a/source/9.ts', 1000), { wait: false }),
    ).rejects.toMatchObject({ code: 'cap-total' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(shop.seen).toHaveLength(asked + 1);
    expect(waits).toBe(3);
    expect(of('cap')).toHaveLength(1);
    payer.budget = { total: 3000n };
    await Promise.all(buying);
    expect(shop.charged).toBe(3000n);
  });

  it('pauses at the minute and goes on by itself', async () => {
    let now = 1_000_000;
    const budget = { total: 10_000n, perMinute: 1500n };
    const { shop, payer, of } = setUp({ budget, now: () => now });
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    now += 59_990;
    const next = payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    await until(() => payer.waiting === 'minute');
    expect(of('cap')).toMatchObject([{ limit: 'minute', resumesAt: 1_060_000 }]);
    now += 11;
    await next;
    expect(payer.perMinute).toBe(1000n);
  });

  const shops = (count: number): { shop: Shop; fetch: typeof fetch }[] => {
    const all = Array.from({ length: count }, (_, n) => {
      const shop = new Shop();
      shop.payTo = `0x${(n + 1).toString(16).padStart(40, '2')}`;
      return shop;
    });
    const get: typeof fetch = async (input, init) => {
      const url = input instanceof Request ? input.url : input.toString();
      const at = Number(/\/hls\/(\d+)\//.exec(url)?.[1]);
      const shop = all[at];
      if (!shop) throw new TypeError('network');
      return shop.fetch(input, init);
    };
    return all.map((shop) => ({ shop, fetch: get }));
  };

  for (const budget of [{ total: 1000n }, { total: 1_000_000n, perMinute: 1000n }]) {
    it(`holds over channels that are paid at once (${Object.keys(budget).join()})`, async () => {
      const all = shops(6);
      const { payer, store } = setUp({ budget, ...(all[0] && { fetch: all[0].fetch }) });
      const buying = all.map(async ({ shop }, n) =>
        payer.fetchPaid(shop.add(`/hls/${n}/source/0.ts`, 1000), {
          ahead: { bytes: 1000, amount: 1000n },
          pricing: `http://127.0.0.1:8402/hls/${n}/pricing.json`,
          wait: false,
        }),
      );
      const ended = await Promise.allSettled(buying);
      expect(ended.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
      expect(all.reduce((sum, { shop }) => sum + shop.charged, 0n)).toBe(1000n);
      const signed = (await store.channels()).reduce((sum, channel) => sum + channel.signed, 0n);
      expect(signed).toBe(1000n);
      expect(payer.spent).toBe(1000n);
    });
  }

  it('is not used up by what could not be kept, and so never left', async () => {
    const { shop, payer, store } = setUp({ budget: { total: 1000n } });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    const keep = store.keep.bind(store);
    store.keep = async (channel, payment) => {
      if (payment) throw new PaymentError('storage', 'full');
      return keep(channel);
    };
    await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'storage' });
    store.keep = keep;
    await payer.fetchPaid(url, { ...ahead(1000), wait: false });
    expect(shop.charged).toBe(1000n);
  });

  it('of each of two tabs holds, and both together sign no more than they may', async () => {
    const shop = new Shop();
    const one = setUp({ budget: { total: 300n } }, shop);
    const other = setUp({ budget: { total: 200n }, store: one.store, wallet: one.wallet }, shop);
    const urls = Array.from({ length: 20 }, (_, n) => shop.add(`/hls/a/source/${n}.ts`, 100));
    const ended = await Promise.allSettled(
      urls.map(async (url, n) =>
        (n % 2 ? one : other).payer.fetchPaid(url, { ...ahead(100), wait: false }),
      ),
    );
    expect(ended.filter(({ status }) => status === 'fulfilled')).toHaveLength(5);
    expect([one.payer.spent, other.payer.spent]).toEqual([300n, 200n]);
    expect((await one.store.channels())[0]?.signed).toBe(500n);
  });

  it('throws where nobody wants to wait, and can be aborted where one does', async () => {
    const { shop, payer } = setUp({ budget: { total: 10n } });
    const url = shop.add('/hls/a/source/0.ts', 1000);
    await expect(payer.fetchPaid(url, { ...ahead(1000), wait: false })).rejects.toMatchObject({
      code: 'cap-total',
    });
    const abort = new AbortController();
    const waiting = payer.fetchPaid(url, { ...ahead(1000), signal: abort.signal });
    await until(() => payer.waiting === 'total');
    abort.abort();
    await expect(waiting).rejects.toMatchObject({ name: 'AbortError' });
    expect(shop.paid).toBe(0);
  });
});

describe('deposits', () => {
  it('top a channel up, silently by a burner', async () => {
    const { shop, payer, of } = setUp({ deposit: () => 2500n });
    for (let n = 0; n < 6; n += 1) {
      await payer.fetchPaid(shop.add(`/hls/a/source/${n}.ts`, 1000), ahead(1000));
    }
    expect(shop.charged).toBe(6000n);
    expect(of('deposit').filter(({ state }) => state === 'done').length).toBeGreaterThan(1);
    expect(shop.accounts.size).toBe(1);
    expect([...shop.accounts.values()][0]?.balance).toBeGreaterThanOrEqual(6000n);
  });

  it('ask an injected wallet once, and again only when the channel is empty', async () => {
    const wallet = new AskingWallet();
    const { shop, payer, of } = setUp({ wallet, deposit: () => 2500n });
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    expect(wallet.asked).toHaveLength(1);
    expect(of('topup-needed').map((need) => need.missing)).toEqual([1000n, 0n]);
    await payer.fetchPaid(shop.add('/hls/a/source/2.ts', 1000), ahead(1000));
    expect(wallet.asked).toHaveLength(2);
    expect(of('topup-needed').at(-1)?.missing).toBe(500n);
  });

  it('wait for the page where it wants to ask first', async () => {
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet });
    payer.addEventListener('topup-needed', (event) => event.preventDefault());
    const buying = payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    await until(() => payer.waiting === 'topup');
    expect(wallet.asked).toHaveLength(0);
    payer.topUp(5000n);
    await buying;
    expect(wallet.asked[0]?.message.value).toBe(5000n);
    payer.topUp(700n);
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 10), ahead(10));
    expect(wallet.asked).toHaveLength(2);
    expect([...shop.accounts.values()][0]?.balance).toBe(5700n);
  });

  it('that the wallet rejects are told once and asked for again only by its owner', async () => {
    const wallet = new AskingWallet();
    wallet.rejects = true;
    const { shop, payer, of } = setUp({ wallet });
    const buying = [0, 1, 2].map(async (n) =>
      payer.fetchPaid(shop.add(`/hls/a/source/${n}.ts`, 10), ahead(10)),
    );
    await until(() => payer.waiting === 'wallet');
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(wallet.asked).toHaveLength(1);
    expect(of('error')).toMatchObject([{ code: 'wallet-rejected', retryable: true }]);
    expect(shop.paid).toBe(0);
    wallet.rejects = false;
    payer.resume();
    await Promise.all(buying);
    expect(wallet.asked).toHaveLength(2);
    expect(payer.spent).toBe(30n);
  });

  it('need a wallet, its network and its money', async () => {
    const { shop, payer, of } = setUp({ wallet: undefined });
    const buying = payer.fetchPaid(shop.add('/hls/a/source/0.ts', 10), ahead(10));
    await until(() => payer.waiting === 'wallet');
    const wallet = new AskingWallet();
    wallet.chain = 1;
    wallet.refusesChain = true;
    payer.wallet = wallet;
    await until(() => of('error').length === 2);
    wallet.refusesChain = false;
    wallet.holds = 5n;
    payer.resume();
    await until(() => of('error').length === 3);
    wallet.holds = 50n;
    payer.resume();
    await buying;
    const codes = ['no-wallet', 'wrong-network', 'insufficient-funds'];
    expect(of('error').map((error) => error.code)).toEqual(codes);
    expect([...shop.accounts.values()][0]?.balance).toBe(50n);
  });

  for (const fails of ['rejects', 'throws']) {
    it(`that were asked for and did not come about are told, and hold nothing up (${fails})`, async () => {
      const wallet = new AskingWallet();
      const { shop, payer, of } = setUp({ wallet });
      await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
      if (fails === 'rejects') wallet.rejects = true;
      else wallet.signTypedData = async () => Promise.reject(new Error('it fell over'));
      payer.topUp(5000n);
      await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
      const code = fails === 'rejects' ? 'wallet-rejected' : 'wallet-failed';
      expect(of('error')).toMatchObject([{ code, retryable: true }]);
      expect(payer.waiting).toBeUndefined();
      expect(payer.spent).toBe(2000n);
    });
  }

  it('are of no more than may lie in a channel', async () => {
    const wallet = new AskingWallet();
    const budget = { total: 100_000n, deposit: 3000n };
    const { shop, payer, of } = setUp({ wallet, budget, deposit: () => 50_000n });
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    payer.topUp(50_000n);
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    expect(wallet.asked.map((data) => data.message.value)).toEqual([3000n, 1000n]);
    const dear = shop.add('/hls/a/source/2.ts', 3001);
    const request = { ...ahead(3001), wait: false };
    await expect(payer.fetchPaid(dear, request)).rejects.toMatchObject({ code: 'cap-deposit' });
    const waits = payer.fetchPaid(dear, ahead(3001));
    await until(() => payer.waiting === 'deposit');
    expect(of('cap')).toMatchObject([
      { limit: 'deposit', needed: 1001n, spent: 2000n, cap: 3000n },
    ]);
    payer.budget = { ...budget, deposit: 10_000n };
    await waits;
    expect(payer.spent).toBe(5001n);
    expect([...shop.accounts.values()][0]?.balance).toBeLessThanOrEqual(12_000n);
  });

  for (const budget of [{ total: 20_000n }, { total: 10n ** 12n, deposit: 20_000n }]) {
    it(`are no larger for a server that wants all (${Object.keys(budget).join()})`, async () => {
      const wallet = new AskingWallet();
      const { shop, payer } = setUp({ wallet, budget });
      shop.minDeposit = 10n ** 9n;
      shop.faults.push(...Array.from({ length: 9 }, () => `refuse:${DEPOSIT_BELOW_MINIMUM}`));
      const buying = payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), {
        ...ahead(1000),
        wait: false,
      });
      await expect(buying).rejects.toMatchObject({ code: 'cap-deposit' });
      expect(wallet.asked.map((data) => data.message.value)).toEqual([20_000n]);
    });
  }

  it('that stay too small for the server are not made again and again', async () => {
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet });
    shop.faults.push(...Array.from({ length: 9 }, () => `refuse:${DEPOSIT_BELOW_MINIMUM}`));
    const url = shop.add('/hls/a/source/0.ts', 1000);
    await expect(payer.fetchPaid(url, { ...ahead(1000), wait: false })).rejects.toMatchObject({
      code: 'refused',
    });
    expect(wallet.asked).toHaveLength(1);
  });

  it('alone need the wallet to be unlocked', async () => {
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet });
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    wallet.locked = true;
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    expect(payer.spent).toBe(2000n);
    expect(await payer.close()).toHaveLength(1);
  });

  for (const tells of [true, false]) {
    it(`are made from another account only after its owner said so (told: ${tells})`, async () => {
      const wallet = new AskingWallet();
      const { shop, payer, of } = setUp({ wallet, deposit: () => 1000n });
      await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
      const address = await wallet.change(tells);
      const next = payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
      await until(() => payer.waiting === 'wallet');
      expect(of('error')).toMatchObject([{ code: 'wallet-changed', retryable: true }]);
      expect(wallet.asked).toHaveLength(1);
      expect(shop.accounts.size).toBe(1);
      payer.resume();
      await next;
      expect(shop.accounts.size).toBe(2);
      expect(wallet.asked[1]?.message.from).toBe(address);
      payer.wallet = undefined;
      await wallet.change();
      expect(payer.waiting).toBeUndefined();
    });
  }

  it('that were signed are handed over again, not signed again', async () => {
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet });
    shop.faults.push('drop', 'drop', 'drop', 'drop');
    const first = shop.add('/hls/a/source/0.ts', 1000);
    await expect(payer.fetchPaid(first, ahead(1000))).rejects.toThrow(PaymentError);
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    expect(wallet.asked).toHaveLength(1);
    await payer.fetchPaid(first, ahead(1000));
    expect(shop.charged).toBe(2000n);
    expect(payer.spent).toBe(2000n);
  });

  it('that expired unseen are looked for before another is signed', async () => {
    let now = 1_000_000_000;
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet, now: () => now });
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop');
    const first = shop.add('/hls/a/source/0.ts', 1000);
    await expect(payer.fetchPaid(first, ahead(1000))).rejects.toThrow(PaymentError);
    now += 301_000;
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    expect(wallet.asked).toHaveLength(1);
    expect(payer.spent).toBe(shop.charged);
    shop.faults.push('drop', 'drop', 'drop', 'drop');
  });

  it('that never arrived are made anew after they expired', async () => {
    let now = 1_000_000_000;
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet, now: () => now });
    shop.faults.push('drop', 'drop', 'drop', 'drop');
    const first = shop.add('/hls/a/source/0.ts', 1000);
    await expect(payer.fetchPaid(first, ahead(1000))).rejects.toThrow(PaymentError);
    now += 301_000;
    await payer.fetchPaid(first, ahead(1000));
    expect(wallet.asked).toHaveLength(2);
    expect(payer.spent).toBe(1000n);
  });

  it('that are too small for the server are made larger once', async () => {
    const wallet = new AskingWallet();
    const { shop, payer } = setUp({ wallet, budget: { total: 2000n, deposit: 12_000n } });
    shop.faults.push(`refuse:${DEPOSIT_BELOW_MINIMUM}`);
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    expect(wallet.asked.map((data) => data.message.value)).toEqual([2000n, 10_000n]);
    expect(payer.spent).toBe(1000n);
  });

  it('that are refused stop the purchase and tell', async () => {
    const { shop, payer, of } = setUp({ wallet: new AskingWallet() });
    shop.faults.push('refuse:deposit_transaction_failed');
    const buying = payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    await until(() => payer.waiting === 'wallet');
    expect(of('error')).toMatchObject([{ code: 'refused', retryable: true }]);
    payer.resume();
    await buying;
    expect(payer.spent).toBe(1000n);
  });
});

describe('a deposit that was refused', () => {
  const START = 1_000_000_000; // milliseconds
  const FAILED = 'refuse:deposit_transaction_failed';

  /** Somebody who tries again however often it is refused, in a page that is loaded anew. */
  const refusing = (budget: Budget, minDeposit = 10_000n) => {
    const shop = new Shop();
    shop.minDeposit = minDeposit;
    const wallet = new AskingWallet();
    const name = `refused-${Math.random()}`;
    const clock = { now: START };
    const load = (): Setup => {
      const store = new IndexedDbStore(name);
      return setUp({ wallet, store, budget, now: () => clock.now }, shop);
    };
    const url = shop.add('/hls/a/source/0.ts', 1000);
    const attempt = async (page: Setup, bytes = url): Promise<unknown> =>
      page.payer.fetchPaid(bytes, { ...ahead(1000), wait: false }).then(
        () => 'bought',
        (error: unknown) => (error instanceof PaymentError ? error.code : error),
      );
    /** What the server could still take of all that it was given. */
    const atLarge = (): bigint =>
      wallet.asked
        .filter(({ message }) => Number(message.validBefore) * 1000 > clock.now)
        .reduce((sum, { message }) => sum + (message.value as bigint), 0n);
    return { shop, wallet, clock, load, url, attempt, atLarge };
  };

  it('is handed over again, however often, and after a reload', async () => {
    const { shop, wallet, load, attempt, clock } = refusing({ total: 1_000_000n });
    shop.faults.push(...Array.from({ length: 99 }, () => FAILED));
    for (let loads = 0; loads < 3; loads += 1) {
      const page = load();
      for (let tries = 0; tries < 4; tries += 1) {
        expect(await attempt(page)).toBe('refused');
        clock.now += 1000;
      }
    }
    expect(wallet.asked).toHaveLength(1);
    const { payer } = load();
    const waits = payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    await until(() => payer.waiting === 'wallet'); // for its owner, not for good
    shop.faults.length = 0;
    payer.resume();
    expect((await waits).amount).toBe(1000n);
    expect(wallet.asked).toHaveLength(1);
    expect([...shop.accounts.values()][0]?.balance).toBe(10_000n);
  });

  it('is handed over again even where its owner orders another one', async () => {
    const { shop, wallet, load, attempt, clock } = refusing({ total: 1_000_000n });
    shop.faults.push(...Array.from({ length: 99 }, () => FAILED));
    const page = load();
    for (let tries = 0; tries < 6; tries += 1) {
      page.payer.topUp();
      await attempt(page);
      clock.now += 1000;
    }
    expect(wallet.asked).toHaveLength(1);
  });

  it('is signed anew once it has expired', async () => {
    const { shop, wallet, load, attempt, clock } = refusing({ total: 1_000_000n });
    shop.faults.push(...Array.from({ length: 99 }, () => FAILED));
    const page = load();
    for (let tries = 0; tries < 3; tries += 1) await attempt(page);
    clock.now += 301_000;
    shop.faults.length = 0;
    expect(await attempt(load())).toBe('bought');
    expect(wallet.asked).toHaveLength(2);
  });

  it('is not signed anew for a server that calls it expired before it is', async () => {
    const { shop, wallet, load, attempt } = refusing({ total: 1_000_000n });
    shop.faults.push(...Array.from({ length: 99 }, () => `refuse:${DEPOSIT_EXPIRED}`));
    for (let loads = 0; loads < 3; loads += 1) {
      expect(await attempt(load())).toBe('wrong-clock');
    }
    expect(wallet.asked).toHaveLength(1);
  });

  it('that is about to expire is awaited, and another one signed', async () => {
    const { shop, wallet, load, attempt, clock } = refusing({ total: 1_000_000n });
    shop.faults.push(FAILED);
    await attempt(load());
    clock.now += 299_990; // of 300 seconds
    shop.faults.push(`refuse:${DEPOSIT_EXPIRED}`);
    shop.arrived = () => {
      clock.now += 5;
      setTimeout(() => (clock.now = START + 300_000), 1);
    };
    expect(await attempt(load())).toBe('bought');
    expect(wallet.asked).toHaveLength(2);
  });

  for (const budget of [{ total: 30_000n }, { total: 2000n, deposit: 30_000n }]) {
    const which = Object.keys(budget).join();

    it(`counts where the server wants larger ones (${which})`, async () => {
      const { shop, wallet, load, attempt, atLarge, clock } = refusing(budget);
      shop.faults.push(...Array.from({ length: 99 }, () => `refuse:${DEPOSIT_BELOW_MINIMUM}`));
      for (let loads = 1; loads < 9; loads += 1) {
        shop.minDeposit = BigInt(Math.min(3, loads)) * 10_000n;
        await attempt(load());
        expect(atLarge()).toBeLessThanOrEqual(30_000n);
      }
      const page = load();
      expect(await attempt(page)).toBe('cap-deposit');
      const waits = page.payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
      await until(() => page.payer.waiting === 'deposit');
      const signed = wallet.asked.length;
      expect(page.of('cap').at(-1)?.resumesAt).toBe(START + 300_000); // when it goes on by itself
      clock.now += 301_000;
      shop.faults.length = 0;
      page.payer.resume();
      expect((await waits).amount).toBe(1000n);
      expect(wallet.asked.length).toBe(signed + 1);
    });

    it(`counts in all channels that a server has opened (${which})`, async () => {
      const { shop, load, attempt, atLarge } = refusing(budget);
      shop.faults.push(...Array.from({ length: 99 }, () => FAILED));
      const codes = new Set();
      for (let n = 0; n < 40; n += 1) {
        shop.payTo = `0x${(n + 1).toString(16).padStart(40, '2')}`;
        codes.add(await attempt(load()));
        expect(atLarge()).toBeLessThanOrEqual(30_000n);
      }
      expect(codes).toEqual(new Set(['refused', 'cap-deposit']));
    });
  }

  it('counts where a server had taken it, and denies that', async () => {
    const { shop, wallet, load, attempt } = refusing({ total: 1_000_000n });
    for (let n = 0; n < 5; n += 1) {
      expect(await attempt(load(), shop.add(`/hls/a/source/${n}.ts`, 1000))).toBe('bought');
      shop.faults.push(`refuse:${EXCEEDS_BALANCE}`);
    }
    expect(wallet.asked).toHaveLength(1);
  });

  it('does not count once the chain knows it as used or cancelled', async () => {
    const { shop, wallet, load, attempt } = refusing({ total: 10_000n, deposit: 10_000n });
    const known = new Set<Hex>();
    wallet.isUsed = async (_, __, nonce) => Promise.resolve(known.has(nonce));
    expect(await attempt(load())).toBe('bought');
    const next = shop.add('/hls/a/source/1.ts', 1000);
    expect(await load().payer.close()).toHaveLength(1);
    expect(await attempt(load(), next)).toBe('cap-deposit');
    known.add(wallet.asked[0]?.message.nonce as Hex);
    expect(await attempt(load(), next)).toBe('bought');
    expect(wallet.asked).toHaveLength(2);
  });

  it('that was cancelled on chain is signed anew', async () => {
    const { shop, wallet, load, attempt } = refusing({ total: 10_000n, deposit: 10_000n });
    shop.faults.push(FAILED);
    expect(await attempt(load())).toBe('refused');
    wallet.isUsed = async () => Promise.resolve(true);
    expect(await attempt(load())).toBe('bought');
    expect(wallet.asked).toHaveLength(2);
  });
});

describe('closing', () => {
  it('has the rest refunded, and goes on with a new deposit', async () => {
    const { shop, payer } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    const [before] = await payer.channels();
    expect(before).toMatchObject({ charged: 1000n, balance: 10_000n, refundable: 9000n });
    expect(await payer.close()).toMatchObject([{ amount: 9000n }]);
    expect(await payer.close()).toEqual([]);
    expect((await payer.channels())[0]?.refundable).toBe(0n);
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 10), ahead(10));
    expect(payer.spent).toBe(1010n);
  });

  it('has it refunded where nothing is sold any more', async () => {
    const { shop, payer } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    shop.closed = true;
    const [channel] = await payer.channels();
    expect(await payer.close()).toMatchObject([{ amount: 9000n, channelId: channel?.channelId }]);
    expect(shop.seen.at(-1)?.path).toBe(`/channels/${channel?.channelId}`);
    expect((await payer.channels())[0]?.refundable).toBe(0n);
  });

  it('has it refunded where one of its servers is down', async () => {
    const { shop, payer, store } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    const [channel] = await store.channels();
    if (!channel) throw new Error('there is no channel');
    const urls = ['http://127.0.0.1:1/hls/a/source/9.ts', ...channel.urls];
    await store.keep({ ...channel, urls });
    const { payer: other } = setUp({
      store,
      wallet: payer.wallet,
      fetch: async (input, init) => {
        const url = input instanceof Request ? input.url : input.toString();
        if (url.includes(':1/')) throw new TypeError('network');
        return shop.fetch(input, init);
      },
    });
    expect(await other.close()).toMatchObject([{ amount: 9000n }]);
  });

  it('needs no wallet: the key that signed for it asks', async () => {
    const { shop, payer, store } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    const since = setUp({ store, wallet: undefined }, shop).payer;
    const [channel] = await since.channels();
    expect(channel).toMatchObject({ refundable: 9000n });
    expect(await since.close()).toMatchObject([{ amount: 9000n }]);
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 1000), ahead(1000));
    const another = setUp({ store }, shop).payer;
    expect(await another.close()).toEqual([]);
    expect(await another.close({ channelId: channel?.channelId ?? '0x' })).toHaveLength(1);
  });

  it('is of what is named, whoever deposited it, though the wallet is locked', async () => {
    const { shop, payer, store } = setUp({ wallet: new AskingWallet() });
    const other = setUp({ store }, shop).payer;
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    await other.fetchPaid(shop.add('/hls/a/source/1.ts', 500), ahead(500));
    const locked = new AskingWallet();
    locked.locked = true;
    const since = setUp({ store, wallet: locked }, shop).payer;
    const rest = (await since.channels()).filter(({ refundable }) => refundable > 0n);
    const refunds = await since.close({ channelIds: rest.map(({ channelId }) => channelId) });
    expect(refunds.map(({ amount }) => amount).sort()).toEqual([9000n, 9500n]);
    expect(await since.close({ channelIds: [] })).toEqual([]);
  });

  it('tells what a withdrawal on chain needs', async () => {
    const { shop, payer } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    const [channel] = await payer.channels();
    if (!channel) throw new Error('there is no channel');
    expect(channelIdOf(channel.config, CHAIN)).toBe(channel.channelId);
    expect(channel.config).toMatchObject({ receiver: PAYEE, token: channel.asset });
  });

  it('counts what was charged and never heard of', async () => {
    const { shop, payer } = setUp();
    await payer.fetchPaid(shop.add('/hls/a/source/0.ts', 1000), ahead(1000));
    shop.faults.push('charge+drop', 'drop', 'drop', 'drop');
    const next = payer.fetchPaid(shop.add('/hls/a/source/1.ts', 500), ahead(500));
    await expect(next).rejects.toThrow(PaymentError);
    expect(await payer.close()).toMatchObject([{ amount: 8500n }]);
    expect(payer.spent).toBe(1500n);
  });
});

it('pays nothing on a page that has no store', async () => {
  const { shop, wallet } = setUp();
  const url = shop.add('/hls/a/source/0.ts', 1000);
  vi.stubGlobal('indexedDB', undefined);
  try {
    const broken = new Payer({ wallet, budget: { total: 10_000n }, fetch: shop.fetch });
    await expect(broken.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'storage' });
    await expect(broken.close()).rejects.toMatchObject({ code: 'storage' });
    expect(broken.spent).toBe(0n);
  } finally {
    vi.unstubAllGlobals();
  }
  expect(shop.paid).toBe(0);
});
