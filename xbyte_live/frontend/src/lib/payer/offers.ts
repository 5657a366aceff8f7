import { assetOf } from '../x402/assets';
import { priceRaised } from './price_limit';
import { PaymentError } from '../x402/errors';
import { least } from '../money';
import type { HttpClient } from './http_retry';
import { fetchPricing } from './pricing';
import type { Asset, Offer } from '../x402/types';
import { readPricing, type Challenge, type OfferRule } from '../x402/wire';

const MOST_ITEMS = 256;
const OF_ONE_ANSWER = ['channelState', 'voucherState'];

/** The offers for each item, learned from its price list or its last 402. */
export class Offers {
  readonly #known = new Map<string, readonly Offer[]>();
  readonly #asked = new Map<string, Promise<void>>();

  /** `rules` are of the schemes that may be paid by, `assets` what may be paid in. */
  constructor(
    private readonly rules: readonly OfferRule[],
    private readonly assets: readonly Asset[],
    private readonly http: HttpClient,
  ) {}

  /** Ask for an item's price list, once; where there is none its 402 will say the same. */
  async ask(item: string, url: string): Promise<void> {
    let asking = this.#asked.get(url);
    if (!asking) {
      const { fetch: get, patience } = this.http;
      asking = fetchPricing(url, { fetch: get, within: patience.firstByte }).then(
        (document) => {
          if (!this.#known.has(item)) this.learn(item, readPricing(document, this.rules));
        },
        () => undefined,
      );
      this.#asked.set(url, asking);
    }
    await asking;
  }

  learn(item: string, offers: readonly Offer[]): void {
    const usable = offers.filter((offer) => assetOf(offer, this.assets));
    if (usable.length === 0) return;
    this.#known.delete(item);
    this.#known.set(item, usable.map(withoutState));
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= MOST_ITEMS) break;
      this.#known.delete(oldest);
    }
  }

  /** The offers for an item at `amount`; none where no offer is known. */
  of(item: string, amount: bigint): readonly Offer[] {
    return (this.#known.get(item) ?? []).map((offer) => ({ ...offer, amount: amount.toString() }));
  }

  /**
   * The offers of a 402 for `bytes`, if that is known, at no more than `ceiling`.
   *
   * Throws `PaymentError`: `price-raised` when all are dearer, `no-way-to-pay` when none will do.
   */
  usable(
    challenge: Challenge,
    ceiling: bigint | undefined,
    bytes?: number,
  ): readonly Offer[] {
    const usable = challenge.offers.filter((offer) => assetOf(offer, this.assets));
    if (usable.length === 0) {
      const why = challenge.offers.length > 0 ? 'it takes no token allowed here' : challenge.unfit;
      throw new PaymentError('no-way-to-pay', `this server cannot be paid: ${why}`, false, 402);
    }
    const cheap = usable.filter((offer) => ceiling === undefined || BigInt(offer.amount) <= ceiling);
    if (cheap.length === 0) {
      const [first = 0n, ...others] = usable.map(({ amount }) => BigInt(amount));
      throw priceRaised({ amount: least(first, ...others), ...(bytes !== undefined && { bytes }) }, ceiling);
    }
    return cheap.map(withoutState);
  }
}

/** Whether a 402 offers exactly this offer, so that signing anew is no help. */
export function stillOffered(challenge: Challenge, offer: Offer): boolean {
  const wanted = canonical(withoutState(offer));
  return challenge.offers.some((offer) => canonical(withoutState(offer)) === wanted);
}

/** The item a URL belongs to: its origin and path up to the slug, or its whole path. */
export function itemOf(url: string): string {
  const { origin, pathname } = new URL(url);
  const steps = pathname.split('/');
  const hls = steps.slice(0, -1).indexOf('hls');
  return origin + (hls < 0 ? pathname : steps.slice(0, hls + 2).join('/'));
}

/** An offer without what a corrective 402 adds to it. */
function withoutState(offer: Offer): Offer {
  const extra = Object.entries(offer.extra).filter(([name]) => !OF_ONE_ANSWER.includes(name));
  return { ...offer, extra: Object.fromEntries(extra) as Offer['extra'] };
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (name, inner: unknown) => {
    if (name === 'minDeposit') return undefined;
    if (typeof inner !== 'object' || inner === null || Array.isArray(inner)) return inner;
    return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
