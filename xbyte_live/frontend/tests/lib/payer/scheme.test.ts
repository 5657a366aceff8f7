import { expect, it } from 'vitest';
import { MemoryStore } from '../../../src/lib/channel/store';
import type { Receipt } from '../../../src/lib/channel/types';
import { Spending } from '../../../src/lib/payer/budget';
import { EventDispatcher } from '../../../src/lib/payer/events';
import { PATIENCE } from '../../../src/lib/payer/http_retry';
import { Offers } from '../../../src/lib/payer/offers';
import { Pause } from '../../../src/lib/payer/pause';
import { Purchases } from '../../../src/lib/payer/purchase';
import type {
  DeliveryRequest,
  NextStep,
  PaymentScheme,
  SchemePayment,
} from '../../../src/lib/payer/scheme';
import { CHANNEL_OFFERS } from '../../../src/lib/x402/channel_offers';
import { PaymentError } from '../../../src/lib/x402/errors';
import type { Offer } from '../../../src/lib/x402/types';
import { decodeHeader, encodeHeader } from '../../../src/lib/x402/wire';
import { setUp } from '../../support/payers';
import { ASSET, BASE, NETWORK, PAYEE, Shop } from '../../support/shop';

const TOKEN = { name: 'USDC', version: '2' };
const USDC = { network: NETWORK, address: ASSET, ...TOKEN, decimals: 6, symbol: 'USDC' };

/** A third scheme: coupons that were bought elsewhere, one for each delivery. */
class Coupons implements PaymentScheme {
  readonly rule = {
    scheme: 'coupon',
    faultOf: ({ series }: Record<string, unknown>) =>
      typeof series === 'string' ? undefined : 'it names no series of coupons',
  };

  constructor(
    readonly left: string[],
    readonly spending: Spending,
  ) {}

  start(delivery: DeliveryRequest): CouponPayment {
    return new CouponPayment(this, delivery);
  }
}

class CouponPayment implements SchemePayment {
  header: string | undefined;
  receipt: Receipt | undefined;
  #offer: Offer | undefined;
  #coupon: string | undefined;

  constructor(
    private readonly scheme: Coupons,
    private readonly delivery: DeliveryRequest,
  ) {}

  async resume(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async prepare(offers: readonly Offer[]): Promise<void> {
    this.#offer = offers[0];
    return Promise.resolve();
  }

  async sign(): Promise<void> {
    this.#coupon = this.scheme.left.shift();
    if (!this.#coupon) throw new PaymentError('no-way-to-pay', 'there is no coupon left');
    this.header = encodeHeader({ accepted: this.#offer, payload: { coupon: this.#coupon } });
    return Promise.resolve();
  }

  async refused(): Promise<NextStep> {
    this.header = undefined;
    return Promise.resolve({ kind: 'sign', wait: 0 });
  }

  async confirm(response: Response): Promise<boolean> {
    if (!response.headers.has('payment-response')) return Promise.resolve(false);
    const { url, bytes } = this.delivery;
    const amount = BigInt(this.#offer?.amount ?? 0);
    const common = { network: NETWORK, asset: ASSET, payTo: PAYEE, payer: PAYEE } as const;
    this.receipt = { url, bytes, amount, at: 0, channelId: '0x', cumulative: amount, ...common };
    this.scheme.spending.charged(amount, 0);
    return Promise.resolve(true);
  }

  async cancel(): Promise<void> {
    if (this.#coupon) this.scheme.left.push(this.#coupon);
    return Promise.resolve();
  }

  async delivered(): Promise<void> {
    return Promise.resolve();
  }

  async misdelivered(): Promise<void> {
    return Promise.resolve();
  }

  async forget(): Promise<void> {
    return Promise.resolve();
  }

  release(): void {
    // no right to sign was taken
  }
}

/** A server that takes coupons, each once, and offers payment by channel as well or not. */
class CouponShop {
  readonly taken: unknown[] = [];
  refuses: string[] = [];

  constructor(private readonly others: readonly unknown[] = []) {}

  readonly fetch: typeof fetch = async (_, init = {}) => {
    const header = decodeHeader(new Headers(init.headers).get('payment-signature'));
    const { coupon } = (header?.payload ?? {}) as { coupon?: string };
    if (coupon === undefined || this.refuses.includes(coupon)) return Promise.resolve(this.#ask());
    this.taken.push(coupon);
    const headers = { 'payment-response': encodeHeader({ success: true }) };
    return Promise.resolve(new Response('bytes', { headers }));
  };

  #ask(): Response {
    const offer = { scheme: 'coupon', network: NETWORK, asset: ASSET, amount: '5', payTo: PAYEE };
    const extra = { ...TOKEN, series: 'winter' };
    const accepts = [...this.others, { ...offer, maxTimeoutSeconds: 60, extra }];
    const headers = { 'payment-required': encodeHeader({ x402Version: 2, accepts }) };
    return new Response(null, { status: 402, headers });
  }
}

/** A payment by channel, without a wallet to pay it. */
class WithoutWallet extends CouponPayment {
  override async prepare(): Promise<void> {
    return Promise.reject(new PaymentError('no-wallet', 'there is no wallet'));
  }
}

const CHANNELS: PaymentScheme = {
  rule: CHANNEL_OFFERS,
  start: (delivery) => new WithoutWallet(new Coupons([], new Spending({ total: 0n })), delivery),
};

function purchases(shop: CouponShop, spending: Spending, schemes: PaymentScheme[]): Purchases {
  const http = { fetch: shop.fetch, patience: PATIENCE };
  const offers = new Offers(schemes.map(({ rule }) => rule), [USDC], http);
  const pause = new Pause(new EventDispatcher(new EventTarget()));
  return new Purchases(new MemoryStore(), schemes, offers, http, spending, pause);
}

it('pays by a third scheme, which is one object more', async () => {
  const spending = new Spending({ total: 10n });
  const coupons = new Coupons(['one', 'two'], spending);
  const shop = new CouponShop();
  const { paid } = await purchases(shop, spending, [CHANNELS, coupons]).buy(`${BASE}/file`, {});
  expect(paid.amount).toBe(5n);
  expect(paid.receipt?.url).toBe(`${BASE}/file`);
  expect(shop.taken).toEqual(['one']);
  expect(spending.spent).toBe(5n);
});

it('pays by the scheme that is preferred, in whatever order they are offered', async () => {
  const spending = new Spending({ total: 10n });
  const coupons = new Coupons(['one'], spending);
  const shop = new CouponShop([new Shop().terms(5n)]);
  await expect(
    purchases(shop, spending, [CHANNELS, coupons]).buy(`${BASE}/file`, {}),
  ).rejects.toMatchObject({ code: 'no-wallet' });
  await purchases(shop, spending, [coupons, CHANNELS]).buy(`${BASE}/file`, {});
  expect(shop.taken).toEqual(['one']);
});

it('signs again where the scheme says so', async () => {
  const spending = new Spending({ total: 10n });
  const coupons = new Coupons(['old', 'new'], spending);
  const shop = new CouponShop();
  shop.refuses = ['old'];
  await purchases(shop, spending, [coupons]).buy(`${BASE}/file`, {});
  expect(shop.taken).toEqual(['new']);
});

it('holds a scheme to the price that was agreed to', async () => {
  const spending = new Spending({ total: 10n });
  const buying = purchases(new CouponShop(), spending, [new Coupons(['one'], spending)]);
  await expect(buying.buy(`${BASE}/file`, { atMost: 4n })).rejects.toMatchObject({
    code: 'price-raised',
  });
});

it('says which schemes would do where none of them is offered', async () => {
  const { payer } = setUp({ fetch: new CouponShop().fetch });
  await expect(payer.fetchPaid(`${BASE}/file`)).rejects.toMatchObject({
    code: 'no-way-to-pay',
    message: 'this server cannot be paid: it offers no payment by batch-settlement',
  });
});
