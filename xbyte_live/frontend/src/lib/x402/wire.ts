import { PaymentError } from './errors';
import { ADDRESS, amountOf, isObject, isPayee, matches, within } from './fields';
import { chainIdOf } from './typed_data';
import type { Offer } from './types';

const MAX_HEADER = 65_536;
const MAX_OFFERS = 32;

/** How the offers of one scheme are read. */
export interface OfferRule {
  readonly scheme: string;
  /** Why an offer of the scheme cannot be believed, if it cannot; `extra` is its own. */
  faultOf(extra: Record<string, unknown>): string | undefined;
}

/** A 402. `offers` are those that can be believed, as the server wrote them. */
export interface Challenge {
  error: string;
  offers: readonly Offer[];
  /** Why others cannot. */
  unfit: string;
  accepts: readonly unknown[];
  resource?: object;
  extensions?: object;
}

/** A JSON document in base64, as x402 headers have it. */
export function encodeHeader(document: unknown): string {
  const bytes = new TextEncoder().encode(JSON.stringify(document));
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(''));
}

/** The JSON object in a header of x402, or `undefined` where there is none. */
export function decodeHeader(value: string | null): Record<string, unknown> | undefined {
  if (!value || value.length > MAX_HEADER) return undefined;
  try {
    const bytes = Uint8Array.from(atob(value.trim()), (char) => char.charCodeAt(0));
    const document: unknown = JSON.parse(new TextDecoder().decode(bytes));
    return isObject(document) ? document : undefined;
  } catch {
    return undefined;
  }
}

/** The receipt that opens the same bytes again, where the item may be watched again free. */
export function readReceipt(headers: Headers): string | undefined {
  const extensions = paymentResponse(headers)?.extensions;
  const own = isObject(extensions) ? extensions['xbyte-receipt'] : undefined;
  const token = isObject(own) ? own.receipt : undefined;
  return typeof token === 'string' && token.length < 512 ? token : undefined;
}

/** Seconds a server asks to wait, where it says so in seconds. */
export function retryAfter(headers: Headers): number | undefined {
  const value = headers.get('retry-after');
  return value && /^\d{1,6}$/.test(value) ? Number(value) : undefined;
}

/**
 * The offers of a 402 (x402 v2 5.1), of the schemes in `rules`. Throws `PaymentError`
 * (`no-way-to-pay`) where it is not in that form.
 */
export function readChallenge(headers: Headers, rules: readonly OfferRule[]): Challenge {
  const document = decodeHeader(headers.get('payment-required'));
  if (document?.x402Version !== 2 || !Array.isArray(document.accepts)) {
    throw new PaymentError(
      'no-way-to-pay',
      "the server's 402 is not in the x402 version 2 form",
      false,
      402,
    );
  }
  return challengeOf(document, document.accepts, rules);
}

/** The offers of a `pricing.json`, of the schemes in `rules`; each delivery has its own amount. */
export function readPricing(document: unknown, rules: readonly OfferRule[]): readonly Offer[] {
  if (!isObject(document) || !Array.isArray(document.accepts)) return [];
  const accepts: unknown[] = document.accepts;
  const offers = accepts.map((offer) => (isObject(offer) ? { amount: '1', ...offer } : offer));
  return challengeOf({}, offers, rules).offers;
}

/** The document of a `PAYMENT-RESPONSE` that tells of a success. */
export function paymentResponse(headers: Headers): Record<string, unknown> | undefined {
  const document = decodeHeader(headers.get('payment-response'));
  return document?.success === true ? document : undefined;
}

function challengeOf(
  document: Record<string, unknown>,
  accepts: unknown[],
  rules: readonly OfferRule[],
): Challenge {
  const offers: Offer[] = [];
  let unfit = `it offers no payment by ${rules.map(({ scheme }) => scheme).join(' or ')}`;
  for (const offer of accepts.slice(0, MAX_OFFERS)) {
    const rule = isObject(offer) ? rules.find(({ scheme }) => scheme === offer.scheme) : undefined;
    if (!rule) continue;
    const why = faultOf(offer as Record<string, unknown>, rule);
    if (why === undefined) offers.push(offer as Offer);
    else unfit = why;
  }
  const { error, resource, extensions } = document;
  return {
    error: typeof error === 'string' ? error.slice(0, 100) : '',
    offers,
    unfit,
    accepts,
    ...(isObject(resource) && { resource }),
    ...(isObject(extensions) && { extensions }),
  };
}

/** Why an offer cannot be believed, if it cannot. */
function faultOf(offer: Record<string, unknown>, rule: OfferRule): string | undefined {
  const { network, asset, payTo, amount, maxTimeoutSeconds, extra } = offer;
  try {
    chainIdOf(String(network));
  } catch {
    return 'it is on no EVM network';
  }
  if (!matches(asset, ADDRESS) || !isPayee(payTo)) return 'it names no token and payee';
  if (payTo.toLowerCase() === asset.toLowerCase()) return 'it would be paid to the token itself';
  if (typeof amount !== 'string' || !amountOf(amount)) return 'its amount is no positive number';
  if (!within(maxTimeoutSeconds, 1, 86_400)) return 'its time limit makes no sense';
  if (!isObject(extra)) return 'it does not say how it is paid';
  if (typeof extra.name !== 'string' || typeof extra.version !== 'string') {
    return 'it does not name the token';
  }
  return rule.faultOf(extra);
}
