import { PaymentError } from './errors';
import { chainIdOf } from './typed_data';
import type { Hex, ChannelOffer } from './types';

const MAX_HEADER = 65_536;
const MAX_OFFERS = 32;
const MAX_AMOUNT = 2n ** 63n - 1n;
const LEAST_DELAY = 900;
const LONGEST_DELAY = 2_592_000;
const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
const WORD = /^0x[0-9a-fA-F]{64}$/;
const SIGNATURE = /^0x[0-9a-fA-F]{130}$/;

/** `channelState`: how a channel stands by its server. */
export interface ChannelReport {
  channelId: Hex;
  balance: bigint;
  claimed: bigint;
  charged?: bigint;
}

/** What was charged for a delivery, and how the channel stands since. */
export interface Charge {
  charged: bigint;
  report?: ChannelReport;
  transaction?: Hex;
}

/** A corrective 402: what the server has charged, and the voucher it proves that with. */
export interface Correction {
  report: ChannelReport & { charged: bigint };
  signed: bigint;
  signature: Hex;
}

/** What a 402 says. `offers` are the ways to pay that can be believed, as the server wrote them. */
export interface Challenge {
  error: string;
  offers: readonly ChannelOffer[];
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

/** What a 402 says (x402 v2 5.1); throws `PaymentError` if it is not in that form. */
export function readChallenge(headers: Headers): Challenge {
  const document = decodeHeader(headers.get('payment-required'));
  if (document?.x402Version !== 2 || !Array.isArray(document.accepts)) {
    throw new PaymentError(
      'no-way-to-pay',
      "the server's 402 is not in the x402 version 2 form",
      false,
      402,
    );
  }
  return challengeOf(document, document.accepts);
}

/** The offers of a `pricing.json`, whose amounts are each delivery's own. */
export function readPricing(document: unknown): readonly ChannelOffer[] {
  if (!isObject(document) || !Array.isArray(document.accepts)) return [];
  const accepts: unknown[] = document.accepts;
  return challengeOf(
    {},
    accepts.map((offer) => (isObject(offer) ? { amount: '1', ...offer } : offer)),
  ).offers;
}

/** What `PAYMENT-RESPONSE` says of a charge to a channel, or `undefined` if it does not. */
export function readCharge(headers: Headers): Charge | undefined {
  const document = settled(headers);
  const extra = document?.extra;
  const charged = isObject(extra) ? number(extra.chargedAmount) : undefined;
  if (!document || !isObject(extra) || charged === undefined) return undefined;
  const report = readReport(extra.channelState);
  const transaction = document.transaction;
  return {
    charged,
    ...(report && { report }),
    ...(matches(transaction, WORD) && { transaction }),
  };
}

/** What `PAYMENT-RESPONSE` says of a refund, or `undefined` if it was none. */
export function readRefund(headers: Headers): { amount: bigint; transaction: Hex } | undefined {
  const document = settled(headers);
  const transaction = document?.transaction;
  const amount = number(document?.amount);
  if (!matches(transaction, WORD) || amount === undefined) return undefined;
  if (BigInt(transaction) === 0n) return undefined;
  return { amount, transaction };
}

/** The receipt that opens the same bytes again, where the item may be watched again free. */
export function readReceipt(headers: Headers): string | undefined {
  const extensions = settled(headers)?.extensions;
  const own = isObject(extensions) ? extensions['xbyte-receipt'] : undefined;
  const token = isObject(own) ? own.receipt : undefined;
  return typeof token === 'string' && token.length < 512 ? token : undefined;
}

/** What a 402 says of that channel with a proof, or `undefined` if it does not. */
export function readCorrection(challenge: Challenge, channelId: Hex): Correction | undefined {
  for (const offer of challenge.accepts) {
    const extra = isObject(offer) ? offer.extra : undefined;
    if (!isObject(extra) || !isObject(extra.voucherState)) continue;
    const report = readReport(extra.channelState);
    const { signedMaxClaimable, signature } = extra.voucherState;
    const signed = number(signedMaxClaimable);
    if (report?.channelId !== channelId || report.charged === undefined) continue;
    if (signed === undefined || !matches(signature, SIGNATURE)) continue;
    return { report: { ...report, charged: report.charged }, signed, signature };
  }
  return undefined;
}

/** What a 402 says of that channel, with a proof or without, or `undefined` if it does not. */
export function readState(challenge: Challenge, channelId: Hex): ChannelReport | undefined {
  for (const offer of challenge.accepts) {
    const extra = isObject(offer) ? offer.extra : undefined;
    const report = isObject(extra) ? readReport(extra.channelState) : undefined;
    if (report?.channelId === channelId) return report;
  }
  return undefined;
}

/** Seconds a server asks to wait, where it says so in seconds. */
export function retryAfter(headers: Headers): number | undefined {
  const value = headers.get('retry-after');
  return value && /^\d{1,6}$/.test(value) ? Number(value) : undefined;
}

function challengeOf(document: Record<string, unknown>, accepts: unknown[]): Challenge {
  const offers: ChannelOffer[] = [];
  let unfit = 'it offers no payment by channel';
  for (const offer of accepts.slice(0, MAX_OFFERS)) {
    const why = faultOf(offer);
    if (why === undefined) offers.push(offer as ChannelOffer);
    else if (isObject(offer) && offer.scheme === 'batch-settlement') unfit = why;
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
function faultOf(offer: unknown): string | undefined {
  if (!isObject(offer) || offer.scheme !== 'batch-settlement') return 'another scheme';
  const { network, asset, payTo, amount, maxTimeoutSeconds, extra } = offer;
  try {
    chainIdOf(String(network));
  } catch {
    return 'it is on no EVM network';
  }
  if (!matches(asset, ADDRESS) || !isPayee(payTo)) return 'it names no token and payee';
  if (payTo.toLowerCase() === asset.toLowerCase()) return 'it would be paid to the token itself';
  if (typeof amount !== 'string' || !number(amount)) return 'its amount is no positive number';
  if (!within(maxTimeoutSeconds, 1, 86_400)) return 'its time limit makes no sense';
  if (!isObject(extra)) return 'it does not say how its channels are';
  if (typeof extra.name !== 'string' || typeof extra.version !== 'string') {
    return 'it does not name the token';
  }
  if ((extra.assetTransferMethod ?? 'eip3009') !== 'eip3009') {
    return 'it wants another way of transfer than EIP-3009';
  }
  if (!isPayee(extra.receiverAuthorizer)) return 'it names nobody who authorizes refunds';
  if (extra.minDeposit !== undefined && number(extra.minDeposit) === undefined) {
    return 'its least deposit is no number';
  }
  if (!within(extra.withdrawDelay, LEAST_DELAY, LONGEST_DELAY)) {
    return 'it wants withdrawals to take shorter or longer than may be';
  }
  return undefined;
}

function settled(headers: Headers): Record<string, unknown> | undefined {
  const document = decodeHeader(headers.get('payment-response'));
  return document?.success === true ? document : undefined;
}

function readReport(value: unknown): ChannelReport | undefined {
  if (!isObject(value) || !matches(value.channelId, WORD)) return undefined;
  const balance = number(value.balance);
  const claimed = number(value.totalClaimed);
  const charged = number(value.chargedCumulativeAmount);
  if (balance === undefined || claimed === undefined) return undefined;
  return {
    channelId: value.channelId.toLowerCase() as Hex,
    balance,
    claimed,
    ...(charged !== undefined && { charged }),
  };
}

function isPayee(value: unknown): value is Hex {
  return matches(value, ADDRESS) && BigInt(value) !== 0n;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function matches(value: unknown, pattern: RegExp): value is Hex {
  return typeof value === 'string' && pattern.test(value);
}

function within(value: unknown, low: number, high: number): value is number {
  return Number.isInteger(value) && (value as number) >= low && (value as number) <= high;
}

function number(value: unknown): bigint | undefined {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value !== 'string' || !/^\d{1,19}$/.test(value)) return undefined;
  const found = BigInt(value);
  return found <= MAX_AMOUNT ? found : undefined;
}
