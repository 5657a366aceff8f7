import {
  begunAnew,
  type Channel,
  countedFrom,
  doubted,
  drained,
  gone,
  landed,
  type OpenVoucher,
  overcharged,
  refused,
} from './channel';
import {
  AMOUNT_MISMATCH,
  BELOW_CLAIMED,
  CHANNEL_NOT_FOUND,
  DEPOSIT_BELOW_MINIMUM,
  DEPOSIT_EXPIRED,
  EXCEEDS_BALANCE,
} from '../x402/codes';
import { most } from '../money';
import type { ChannelProof } from './proof';
import type { Correction } from '../x402/channel_wire';

const UNTAKEN = new Set([DEPOSIT_BELOW_MINIMUM, DEPOSIT_EXPIRED]); // a deposit has not come in

/**
 * The outcome of a voucher that got a 402. `charged`: it was charged before; `again`: it was not,
 * and another may be signed; `refused`: it was not, and another would be refused, too.
 */
export type Verdict = 'charged' | 'again' | 'refused';

/** A 402 to a voucher; `presentedBefore` when it was handed over before without a decision. */
export interface VoucherRefusal extends ChannelProof {
  identity: string;
  presentedBefore: boolean;
}

/** The channel after a refusal, and the voucher of unknown outcome that it shows as charged. */
export interface Recovery {
  channel: Channel;
  verdict: Verdict;
  charged?: OpenVoucher | undefined;
}

/**
 * Learn from a refusal (x402 `scheme_batch_settlement_evm`, Recovery After State Loss).
 *
 * Throws `PaymentError` (`overcharged`) when the server claims what it cannot have earned.
 */
export function recover(channel: Channel, refusal: VoucherRefusal): Recovery {
  const { code, identity, correction } = refusal;
  const left = refused(channel, identity);
  if (code === AMOUNT_MISMATCH || code === BELOW_CLAIMED) {
    if (correction) return corrected(channel, refusal, correction);
    const known = knownStill(channel, refusal);
    if (known === undefined) return { channel: left, verdict: 'refused' };
    return { channel: begunAnew(channel, known), verdict: 'again' };
  }
  if (code === CHANNEL_NOT_FOUND) return notFound(channel, refusal);
  if (code === EXCEEDS_BALANCE) return { channel: drained(left), verdict: 'again' };
  const voucher = channel.open.find((open) => open.identity === identity);
  if (voucher?.deposit && channel.shown > 1 && !UNTAKEN.has(code)) {
    return { channel: doubted(left), verdict: 'again' };
  }
  return { channel: refusal.presentedBefore ? channel : left, verdict: 'refused' };
}

/**
 * The total that a server without a proof says it charged, where that is too low. It is safe
 * to go on from there: no more can be claimed than was signed.
 */
function knownStill(channel: Channel, { identity, report, found }: VoucherRefusal): bigint | undefined {
  const voucher = channel.open.find((open) => open.identity === identity);
  // To a deposit in a channel that it does not know it says nothing of the channel.
  const said = report ? report.charged : voucher?.deposit ? (found?.claimed ?? 0n) : undefined;
  const claimed = most(report?.claimed ?? 0n, found?.claimed ?? 0n);
  return said !== undefined && said < channel.charged && claimed <= said ? said : undefined;
}

/** The server knows no such channel: it is begun anew, unless the chain knows it. */
function notFound(channel: Channel, { identity, found }: VoucherRefusal): Recovery {
  const left = refused(channel, identity);
  if (found && found.balance > 0n) {
    const { balance, deposit } = left;
    const came = deposit && found.balance >= balance + deposit.amount;
    const next = came ? landed(left, deposit.amount) : left;
    const verdict = found.balance === balance ? 'refused' : 'again';
    return { channel: { ...next, balance: found.balance, known: true, unsure: false }, verdict };
  }
  const { returned = 0n } = channel;
  const empty = drained(left);
  const next = channel.charged > 0n ? { ...begunAnew(empty, 0n), balance: 0n } : empty;
  return { channel: found ? { ...next, returned } : next, verdict: 'again' };
}

/** Adopt what the server has charged, once its proof is found to be our own signature. */
function corrected(channel: Channel, refusal: VoucherRefusal, said: Correction): Recovery {
  const charged = said.report.charged;
  if (!refusal.proven) throw overcharged('proves its charges with a voucher that was not signed');
  if (charged > said.signed) {
    throw overcharged(`has charged ${charged} in all, and was given no more than ${said.signed}`);
  }
  const voucher = channel.open.find((open) => open.identity === refusal.identity);
  const newer = said.signed > channel.signed;
  if (!newer && !explained(channel, voucher, refusal, charged)) {
    throw overcharged(`has charged ${charged} in all, and it delivered ${channel.charged}`);
  }
  const moved = charged > channel.charged || !channel.known;
  const maybe = channel.open.filter((open) => moved && open.ceiling === said.signed);
  const mine = voucher !== undefined && maybe.includes(voucher) && refusal.presentedBefore;
  const taken = maybe.filter((open) => open !== voucher || mine);
  const brought = channel.deposit?.amount ?? 0n;
  const hasIt = channel.known && said.report.balance >= channel.balance + brought;
  const next = hasIt || taken.some((open) => open.deposit) ? landed(channel, brought) : channel;
  const trusted = channel.known && !channel.unsure;
  return {
    channel: {
      ...next,
      charged,
      signed: most(channel.signed, said.signed),
      counted: charged < channel.charged ? countedFrom(channel, charged) : undefined,
      balance: trusted ? next.balance : said.report.balance,
      known: true,
      unsure: false,
      open: [],
      gone: gone(
        channel,
        channel.open.filter((open) => !taken.includes(open)),
      ),
    },
    verdict: mine ? 'charged' : 'again',
    charged: moved ? taken.find(chargedUpTo(charged)) : undefined,
  };
}

/** All open vouchers follow on the same total, so that no more than one of them was charged. */
function chargedUpTo(charged: bigint): (open: OpenVoucher) => boolean {
  return (open) => open.ceiling === charged;
}

/** Whether the server can have earned what it says it charged, as far as we know. */
function explained(
  channel: Channel,
  voucher: OpenVoucher | undefined,
  refusal: VoucherRefusal,
  charged: bigint,
): boolean {
  if (!channel.known || charged <= most(channel.charged, channel.forgot ?? 0n)) return true;
  return channel.open.some(
    (open) => charged <= open.ceiling && (open !== voucher || refusal.presentedBefore),
  );
}
