import { expect, it } from 'vitest';
import { AskingWallet, setUp, until } from '../../support/payers';
import { Shop } from '../../support/shop';

const ahead = (bytes: number) => ({ ahead: { bytes, amount: BigInt(bytes) } });

/** A device whose clock is ten minutes slow. */
const slow = (validFor: number) => {
  const shop = new Shop();
  shop.validFor = validFor;
  const wallet = new AskingWallet();
  const clock = { now: 1_000_000_000_000 };
  shop.now = () => clock.now + 600_000;
  const all = setUp({ wallet, now: () => clock.now }, shop);
  return { ...all, wallet, clock, url: shop.add('/hls/a/source/0.ts', 1000) };
};

it('that is wrong is told as that, and the wallet is not asked again', async () => {
  const { payer, wallet, of, url, shop, clock } = slow(300);
  const buying = payer.fetchPaid(url, ahead(1000));
  for (let tries = 1; tries < 4; tries += 1) {
    await until(() => of('error').length === tries);
    expect(of('error').at(-1)).toMatchObject({ code: 'wrong-clock', retryable: true });
    expect(payer.waiting).toBe('wallet');
    if (tries < 3) payer.resume();
  }
  expect(wallet.asked).toHaveLength(1);
  clock.now += 600_000; // it is set right
  shop.now = () => clock.now;
  payer.resume();
  expect((await buying).amount).toBe(1000n);
  expect(wallet.asked).toHaveLength(2);
});

it('that is wrong is told where deposits are short-lived, too', async () => {
  const { payer, wallet, url, shop, clock } = slow(15);
  shop.arrived = () => {
    clock.now += 14_990;
    setTimeout(() => (clock.now += 1000), 1);
  };
  const buying = payer.fetchPaid(url, { ...ahead(1000), wait: false });
  await expect(buying).rejects.toMatchObject({ code: 'wrong-clock' });
  expect(wallet.asked.length).toBeLessThanOrEqual(2);
});
