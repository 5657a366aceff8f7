import { amountOf, isObject, matches, SIGNATURE, WORD } from './fields';
import type { Hex } from './types';
import { paymentResponse, type Challenge } from './wire';

/** `channelState`: the state of a channel in its server's ledger. */
export interface ChannelReport {
  channelId: Hex;
  balance: bigint;
  claimed: bigint;
  charged?: bigint;
}

/** A charge for a delivery, and the state of the channel after it. */
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

/** The charge in `PAYMENT-RESPONSE`, or `undefined` if there is none. */
export function readCharge(headers: Headers): Charge | undefined {
  const document = paymentResponse(headers);
  const extra = document?.extra;
  const charged = isObject(extra) ? amountOf(extra.chargedAmount) : undefined;
  if (!document || !isObject(extra) || charged === undefined) return undefined;
  const report = readReport(extra.channelState);
  const transaction = document.transaction;
  return {
    charged,
    ...(report && { report }),
    ...(matches(transaction, WORD) && { transaction }),
  };
}

/** The refund in `PAYMENT-RESPONSE`, or `undefined` if there is none. */
export function readRefund(headers: Headers): { amount: bigint; transaction: Hex } | undefined {
  const document = paymentResponse(headers);
  const transaction = document?.transaction;
  const amount = amountOf(document?.amount);
  if (!matches(transaction, WORD) || amount === undefined) return undefined;
  if (BigInt(transaction) === 0n) return undefined;
  return { amount, transaction };
}

/** The correction of that channel in a 402, or `undefined` if there is none. */
export function readCorrection(challenge: Challenge, channelId: Hex): Correction | undefined {
  for (const offer of challenge.accepts) {
    const extra = isObject(offer) ? offer.extra : undefined;
    if (!isObject(extra) || !isObject(extra.voucherState)) continue;
    const report = readReport(extra.channelState);
    const { signedMaxClaimable, signature } = extra.voucherState;
    const signed = amountOf(signedMaxClaimable);
    if (report?.channelId !== channelId || report.charged === undefined) continue;
    if (signed === undefined || !matches(signature, SIGNATURE)) continue;
    return { report: { ...report, charged: report.charged }, signed, signature };
  }
  return undefined;
}

/** The state of that channel in a 402, proven or not, or `undefined` if there is none. */
export function readState(challenge: Challenge, channelId: Hex): ChannelReport | undefined {
  for (const offer of challenge.accepts) {
    const extra = isObject(offer) ? offer.extra : undefined;
    const report = isObject(extra) ? readReport(extra.channelState) : undefined;
    if (report?.channelId === channelId) return report;
  }
  return undefined;
}

function readReport(value: unknown): ChannelReport | undefined {
  if (!isObject(value) || !matches(value.channelId, WORD)) return undefined;
  const balance = amountOf(value.balance);
  const claimed = amountOf(value.totalClaimed);
  const charged = amountOf(value.chargedCumulativeAmount);
  if (balance === undefined || claimed === undefined) return undefined;
  return {
    channelId: value.channelId.toLowerCase() as Hex,
    balance,
    claimed,
    ...(charged !== undefined && { charged }),
  };
}
