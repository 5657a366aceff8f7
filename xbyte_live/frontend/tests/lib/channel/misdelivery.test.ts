import { expect, it } from 'vitest';
import { misdelivered, newChannel } from '../../../src/lib/channel/channel';
import { setUp, type Setup } from '../../support/payers';
import type { Shop } from '../../support/shop';

const ahead = (bytes: number) => ({ ahead: { bytes, amount: BigInt(bytes) } });

/** A browser that was given something else twice in a row. */
const disappointed = async (): Promise<Setup & { url: string }> => {
  const all = setUp();
  const url = all.shop.add('/hls/a/source/0.ts', 1000);
  all.shop.faults.push('long', 'long');
  for (let tries = 0; tries < 2; tries += 1) {
    await expect(all.payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'bad-delivery' });
  }
  return { ...all, url };
};
const again = (shop: Shop): string => shop.add('/hls/a/source/1.ts', 500);

it('twice in a row has a code of its own, and a way out', async () => {
  const { shop, payer, of, url } = await disappointed();
  const [channel] = await payer.channels();
  const { channelId } = channel ?? {};
  const { paid } = shop;
  for (const each of [url, again(shop)]) {
    await expect(payer.fetchPaid(each, ahead(each === url ? 1000 : 500))).rejects.toMatchObject({
      code: 'misdelivered',
      retryable: false,
      channelId,
    });
  }
  expect(shop.paid).toBe(paid);
  expect(of('error').at(-1)).toMatchObject({ code: 'misdelivered', channelId });
  expect(channel).toMatchObject({ faultCode: 'misdelivered' });
  await payer.trustAgain();
  expect((await payer.channels())[0]?.fault).toBeUndefined();
  // What was paid for is handed over for the payment that is there.
  expect((await payer.fetchPaid(url, ahead(1000))).amount).toBe(0n);
  expect((await payer.fetchPaid(again(shop), ahead(500))).amount).toBe(500n);
  expect(shop.vouchers).toBe(2);
});

it('counts from the beginning once the server is trusted again', async () => {
  const { shop, payer } = await disappointed();
  const [channel] = await payer.channels();
  await payer.trustAgain(channel?.channelId);
  const url = again(shop);
  for (const code of ['bad-delivery', 'bad-delivery', 'misdelivered']) {
    shop.faults.push('long');
    await expect(payer.fetchPaid(url, ahead(500))).rejects.toMatchObject({ code });
  }
});

it('still has a way out after a refund', async () => {
  const { shop, payer } = await disappointed();
  expect(await payer.close()).toHaveLength(1);
  await payer.trustAgain();
  expect((await payer.fetchPaid(again(shop), ahead(500))).amount).toBe(500n);
});

it('is no way out for a server that overcharged', async () => {
  const { shop, payer } = setUp();
  const url = shop.add('/hls/a/source/0.ts', 1000);
  shop.faults.push('long', 'overcharge');
  await expect(payer.fetchPaid(url, ahead(1000))).rejects.toMatchObject({ code: 'bad-delivery' });
  const { channelId } = (await payer.channels())[0] ?? {};
  await expect(payer.fetchPaid(again(shop), ahead(500))).rejects.toMatchObject({
    code: 'overcharged',
    channelId,
  });
  await payer.trustAgain();
  expect((await payer.channels())[0]).toMatchObject({ faultCode: 'overcharged' });
  await expect(payer.fetchPaid(again(shop), ahead(500))).rejects.toMatchObject({ code: 'overcharged' });
});

it('takes nothing from what is final', () => {
  const config = { payer: '0x1', payerAuthorizer: '0x1', receiver: '0x1', token: '0x1' } as const;
  const rest = { receiverAuthorizer: '0x1', withdrawDelay: 900, salt: '0x1' } as const;
  const channel = { ...newChannel('0x1', 'eip155:1', { ...config, ...rest }), fault: 'it lied' };
  expect(misdelivered(misdelivered(channel, 'a'), 'b')).toEqual(channel);
});
