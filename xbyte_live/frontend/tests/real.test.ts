import { readFileSync, rmSync, writeFileSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import type { FragmentLoaderContext, LoaderConfiguration } from 'hls.js';
import { afterAll, describe, expect, it } from 'vitest';
import { BurnerWallet } from '../src/lib/wallets/burner';
import { SigningKey } from '../src/lib/wallets/keys';
import { xbyteLoader } from '../src/lib/hls/loader';
import { Payer, type PayerOptions } from '../src/lib/payer/payer';
import { loadPricing } from '../src/lib/payer/pricing';
import { IndexedDbStore } from '../src/lib/channel/store';
import { depositNonce } from '../src/lib/x402/typed_data';
import type { Hex } from '../src/lib/x402/types';
import { until } from './support/payers';

interface World {
  url: string;
  rpc: string;
  network: string;
  key: Hex;
  funds: number;
  /** The bytes that are sold as `large`, and where to ask for a restart and tell what was spent. */
  large: string;
  folder: string;
}

const world = JSON.parse(process.env.XBYTE_TEST_WORLD ?? 'null') as World | null;

/** Against a server and a chain that are real; `tests/test_player_library.py` starts them. */
describe.skipIf(!world)('a real server', () => {
  if (!world) return;
  const wallet = new BurnerWallet(new SigningKey(world.key));
  const store = new IndexedDbStore('real');
  const large = readFileSync(world.large);
  const payers: Payer[] = [];
  let refunded = 0n;

  const payer = (options: Partial<PayerOptions> = {}): Payer => {
    const made = new Payer({
      wallet,
      store,
      budget: { total: 5_000_000n },
      rpcUrls: { [world.network]: world.rpc },
      ...options,
    });
    payers.push(made);
    return made;
  };
  const piece = (n: number): string => `bytes=${n * 20_000}-${n * 20_000 + 19_999}`;
  const bytesOf = (n: number): Buffer => large.subarray(n * 20_000, (n + 1) * 20_000);
  const restart = async (): Promise<void> => {
    const flag = join(world.folder, 'restart');
    writeFileSync(flag, '');
    while (existsSync(flag)) await new Promise((resolve) => setTimeout(resolve, 20));
  };

  afterAll(() => {
    const spent = payers.reduce((sum, one) => sum + one.spent, 0n);
    const receipts = payers.flatMap((one) => one.receipts);
    const told = receipts.reduce((sum, receipt) => sum + receipt.amount, 0n);
    const result = { spent: `${spent}`, told: `${told}`, refunded: `${refunded}` };
    writeFileSync(join(world.folder, 'result.json'), JSON.stringify(result));
  });

  it('is paid through a channel that is opened by the first piece', async () => {
    const one = payer();
    const bought = await one.fetchPaid(`${world.url}/objects/large`, { range: piece(0) });
    expect(Buffer.from(bought.bytes).equals(bytesOf(0))).toBe(true);
    expect(bought.receipt?.transaction).toMatch(/^0x[0-9a-f]{64}$/);
    const held = await wallet.balance(bought.receipt?.asset ?? '0x', world.rpc);
    const [channel] = await one.channels();
    expect(held + (channel?.balance ?? 0n)).toBe(BigInt(world.funds));
    expect(channel?.charged).toBe(one.spent);
    const [kept] = await store.channels();
    const [order] = kept?.brought ?? [];
    if (!kept || !order) throw new Error('there is no deposit');
    const { token, payer: from } = kept.config;
    const nonce = depositNonce(kept.channelId, order.salt);
    expect(await wallet.isUsed(token, from, nonce, world.rpc)).toBe(true);
    expect(await wallet.isUsed(token, from, kept.channelId, world.rpc)).toBe(false);
  });

  it('goes on with the channel after a reload, in two tabs at once', async () => {
    const [one, other] = [payer(), payer({ store: new IndexedDbStore('real') })];
    const url = `${world.url}/objects/large`;
    const numbers = Array.from({ length: 16 }, (_, n) => n + 1);
    const parts = await Promise.all(
      numbers.map(async (n) => (n % 2 ? one : other).fetchPaid(url, { range: piece(n) })),
    );
    for (const [at, part] of parts.entries()) {
      expect(Buffer.from(part.bytes).equals(bytesOf(at + 1))).toBe(true);
    }
    expect(await one.channels()).toHaveLength(1);
  });

  it('delivers for the first voucher what was asked for again after an abort', async () => {
    const one = payer();
    const url = `${world.url}/objects/large`;
    let delivered = 0;
    for (let n = 20; n < 40; n += 1) {
      const abort = new AbortController();
      const buying = one.fetchPaid(url, { range: piece(n), signal: abort.signal });
      setTimeout(() => abort.abort(), n % 7);
      await buying.then(
        () => (delivered += 1),
        () => undefined,
      );
    }
    const before = delivered;
    for (let n = 20; n < 40; n += 1) {
      const part = await one.fetchPaid(url, { range: piece(n) });
      expect(Buffer.from(part.bytes).equals(bytesOf(n))).toBe(true);
    }
    const price = one.receipts[0]?.amount ?? 0n;
    expect(one.spent).toBe(price * BigInt(20 + before));
  });

  it('is killed and started again, and charges nothing twice', async () => {
    const one = payer();
    const url = `${world.url}/objects/large`;
    const numbers = Array.from({ length: 10 }, (_, n) => n + 40);
    const restarted = restart();
    for (const n of numbers) {
      const part = await one.fetchPaid(url, { range: piece(n) });
      expect(Buffer.from(part.bytes).equals(bytesOf(n))).toBe(true);
    }
    await restarted;
    await one.fetchPaid(url, { range: piece(40) });
    const price = one.receipts[0]?.amount ?? 0n;
    expect(one.spent).toBe(price * 11n);
  });

  it('sells a title through the loader, paid ahead in one round trip each', async () => {
    const requests: string[] = [];
    const one = payer({
      fetch: async (input, init) => {
        requests.push(input instanceof Request ? input.url : input.toString());
        return fetch(input, init);
      },
    });
    const list = `${world.url}/hls/film/source/index.m3u8`;
    const text = await (await fetch(list)).text();
    const segments = [...text.matchAll(/#(EXT-X-XBYTE-SEGMENT):(.*)\n[^]*?\n(\d+\.ts)/g)];
    expect(segments.length).toBeGreaterThan(2);
    const Loader = xbyteLoader(one);
    const told: bigint[] = [];
    for (const [, tag = '', value = '', name = ''] of segments) {
      const url = new URL(name, list).href;
      const loader = new Loader({} as never);
      const data = await new Promise<ArrayBuffer>((resolve, reject) => {
        loader.load(
          { url, frag: { tagList: [[tag, value]] } } as unknown as FragmentLoaderContext,
          { loadPolicy: { maxLoadTimeMs: 20_000 } } as LoaderConfiguration,
          {
            onSuccess: (answer) => resolve(answer.data as ArrayBuffer),
            onError: (error) => reject(new Error(error.text)),
            onTimeout: () => reject(new Error('timeout')),
          },
        );
      });
      const found = /BYTES=(\d+),AMOUNT=(\d+)/.exec(value);
      expect(data.byteLength).toBe(Number(found?.[1]));
      told.push(BigInt(found?.[2] ?? 0));
      const { start, first, end } = loader.stats.loading;
      expect(start).toBeGreaterThan(0);
      expect(first).toBeGreaterThanOrEqual(start);
      expect(end).toBeGreaterThanOrEqual(first);
      expect(loader.stats.loaded).toBe(data.byteLength);
    }
    expect(told[0]).toBe(0n);
    expect(one.spent).toBe(told.reduce((sum, amount) => sum + amount, 0n));
    expect(requests).toHaveLength(segments.length + 1);
    const pricing = await loadPricing(`${world.url}/hls/film/pricing.json`);
    expect(pricing).toMatchObject({ slug: 'film', perMb: 1_000_000n, rewatch: 'paid' });
  });

  it('opens what may be watched again for the receipt of the first time', async () => {
    const one = payer();
    const url = `${world.url}/objects/again`;
    const first = await one.fetchPaid(url);
    const second = await payer().fetchPaid(url);
    expect(second.amount).toBe(0n);
    expect(second.bytes.byteLength).toBe(first.bytes.byteLength);
    expect(one.spent).toBe(first.amount);
  });

  it('pays for a title anew where watching again is a sale again', async () => {
    const one = payer();
    const url = `${world.url}/objects/large`;
    const first = await one.fetchPaid(url, { range: piece(3) });
    const second = await one.fetchPaid(url, { range: piece(3) });
    expect(second.amount).toBe(first.amount);
  });

  it('is topped up when a channel runs out, and stops at the cap', async () => {
    // What was bought has left the window of a live stream: channels are refunded all the same.
    const one = payer({
      fetch: async (input, init) => {
        const { pathname } = new URL(input instanceof Request ? input.url : input);
        const sold = !pathname.startsWith('/channels/');
        return sold ? new Response(null, { status: 410 }) : fetch(input, init);
      },
    });
    await one.close().then((refunds) => {
      refunded += refunds.reduce((sum, refund) => sum + refund.amount, 0n);
    });
    expect((await one.channels())[0]?.refundable).toBe(0n);
    const two = payer({ deposit: () => 60_000n, budget: { total: 150_000n } });
    const url = `${world.url}/objects/large`;
    let n = 0;
    two.addEventListener('cap', (event) => {
      expect(event.detail.limit).toBe('total');
      two.budget = { total: 1_000_000n };
    });
    while (n < 10) await two.fetchPaid(url, { range: piece(n++) });
    expect(two.spent).toBeGreaterThan(150_000n);
    await until(() => two.waiting === undefined);
  });

  it('gives back all that it did not charge', async () => {
    const one = payer();
    const refunds = await one.close();
    refunded += refunds.reduce((sum, refund) => sum + refund.amount, 0n);
    const [channel] = await one.channels();
    expect(channel?.balance).toBe(channel?.charged);
    const asset = channel?.asset ?? '0x';
    const spent = payers.reduce((sum, each) => sum + each.spent, 0n);
    expect(await wallet.balance(asset, world.rpc)).toBe(BigInt(world.funds) - spent);
    rmSync(join(world.folder, 'restart'), { force: true });
  });
}, 120_000);
