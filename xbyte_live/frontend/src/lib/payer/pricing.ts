import { PaymentError } from '../x402/errors';
import { parseAmount } from '../money';
import type { ChannelOffer } from '../x402/types';
import { CHANNEL_OFFERS, isChannelOffer } from '../x402/channel_offers';
import { readPricing } from '../x402/wire';

/** A `pricing.json`. */
export interface Pricing {
  slug: string;
  name: string;
  kind: string;
  /** Atomic units per MB (1,048,576 bytes) of what is asked for first. */
  perMb: bigint;
  /** Whether what was bought once opens again for its receipt. */
  rewatch: 'free' | 'paid';
  /** Seconds at the beginning that cost nothing. */
  previewSeconds: number;
  /** Offers by channel; each delivery has an amount of its own. */
  offers: readonly ChannelOffer[];
}

const PATIENCE = 15_000; // milliseconds

interface PricingRequest {
  fetch?: typeof fetch;
  signal?: AbortSignal;
  within?: number;
}

/**
 * Fetch the price list of an item; throws `PaymentError` where that is not to be had, and the reason of
 * `signal` or of a time-out. `within` is how long it may take (default 15,000 ms).
 */
export async function loadPricing(url: string, options: PricingRequest = {}): Promise<Pricing> {
  return pricingOf(await fetchPricing(url, options));
}

/** The document of a price list; throws as `loadPricing` does. */
export async function fetchPricing(url: string, options: PricingRequest = {}): Promise<unknown> {
  const get = options.fetch ?? globalThis.fetch.bind(globalThis);
  const late = AbortSignal.timeout(options.within ?? PATIENCE);
  const signal = options.signal ? AbortSignal.any([options.signal, late]) : late;
  const response = await get(url, { signal });
  if (!response.ok) {
    throw new PaymentError('http', `no price list (${response.status})`, false, response.status);
  }
  return response.json();
}

function pricingOf(document: unknown): Pricing {
  const fields = (document ?? {}) as Record<string, unknown>;
  const offers = readPricing(document, [CHANNEL_OFFERS]).filter(isChannelOffer);
  const methods = fields.payment_methods;
  const method = (Array.isArray(methods) ? methods[0] : undefined) as
    | { amount_per_mb?: string }
    | undefined;
  const text = (name: string): string => {
    const value = fields[name];
    return typeof value === 'string' ? value : '';
  };
  const preview = fields.preview_seconds;
  return {
    slug: text('slug'),
    name: text('name'),
    kind: text('kind'),
    perMb: parseAmount(method?.amount_per_mb ?? '0', 0),
    rewatch: fields.rewatch === 'free' ? 'free' : 'paid',
    previewSeconds: typeof preview === 'number' ? preview : 0,
    offers,
  };
}
