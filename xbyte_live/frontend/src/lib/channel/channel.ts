import { PaymentError } from '../x402/errors';
import { least, most } from '../money';
import type { ChannelReport, Charge } from '../x402/channel_wire';
import type { ChannelView } from './types';
import type { ChannelConfig, Hex } from '../x402/types';

const MOST_REMEMBERED = 32;
const MOST_WRONG = 2; // deliveries in a row that are not what was paid for
const LOW_WATER = 5n; // a channel is low when less than this part of a deposit is left in it

/** A voucher that was handed over and whose outcome is not known; `deposit` came with it. */
export interface OpenVoucher {
  identity: string;
  ceiling: bigint;
  amount: bigint;
  deposit: bigint;
  url: string;
  bytes: number;
  range?: string;
}

/** A signed order to move `amount` from the payer into the channel; times in Unix seconds. */
export interface DepositOrder {
  amount: bigint;
  validBefore: number;
  salt: Hex;
  signature: Hex;
  /** Its server wants larger ones. */
  small?: boolean;
}

/**
 * A channel as its payer knows it.
 *
 * `charged` is what the server was seen to have charged, `signed` the highest ceiling ever signed,
 * which is what it may claim; `balance` what deposits brought in, less what went back. `open` are
 * vouchers of unknown outcome, `gone` the identities of those that were certainly not charged.
 * `deposit` was signed, handed over `shown` times, and not seen to arrive; `unsure` says that one of
 * before may have. Of those that have not expired, `brought` are in the balance, `loose` are not:
 * servers may still take these. `wrong` counts deliveries in a row that were not what was paid for.
 * `known` is false until the server has said how it stands. `urls` are of what was bought last,
 * newest first. Where its server began anew, `forgot` is the most that it may have charged before,
 * and `counted` the highest ceiling signed since, from which on more counts against budgets.
 * `returned` is what its server says went back, or is not there, and the chain did not show.
 */
export interface Channel {
  channelId: Hex;
  network: string;
  config: ChannelConfig;
  urls: readonly string[];
  charged: bigint;
  signed: bigint;
  balance: bigint;
  serial: number;
  known: boolean;
  open: readonly OpenVoucher[];
  gone: readonly string[];
  deposit?: DepositOrder | undefined;
  brought?: readonly DepositOrder[];
  loose?: readonly DepositOrder[];
  shown: number;
  unsure: boolean;
  wrong?: number;
  fault: string;
  forgot?: bigint;
  counted?: bigint | undefined;
  returned?: bigint;
}

/** A channel before anything is known of it. */
export function newChannel(channelId: Hex, network: string, config: ChannelConfig): Channel {
  return {
    channelId,
    network,
    config,
    urls: [],
    charged: 0n,
    signed: 0n,
    balance: 0n,
    serial: 0,
    known: false,
    open: [],
    gone: [],
    shown: 0,
    unsure: false,
    fault: '',
  };
}

/**
 * How much a voucher for `amount` more counts against budgets: how much more than before the server
 * may claim once it has it, or all of it where the server began anew.
 */
export function stakeOf({ charged, signed, counted = signed }: Channel, amount: bigint): bigint {
  return most(0n, charged + amount - counted);
}

/** The ceiling from which on more counts, where the server goes on from a lower total. */
export function countedFrom({ charged, signed, counted = signed }: Channel, total: bigint): bigint {
  return total + most(0n, counted - charged);
}

/** The amount that the server can refund: all that it did not charge. */
export function refundable(channel: Channel): bigint {
  return most(0n, channel.balance - channel.charged);
}

/** Whether the outcome of that voucher is not known. */
export function isOpen(channel: Channel, identity: string): boolean {
  return channel.open.some((voucher) => voucher.identity === identity);
}

/** Whether a deposit was signed and has not been seen to arrive. */
export function isDepositing({ deposit, unsure }: Channel): boolean {
  return deposit !== undefined || unsure;
}

/** The channel without deposit orders that have expired. */
export function withoutExpired(channel: Channel, now: number): Channel {
  const { brought = [], loose = [], deposit } = channel;
  const left = { ...channel, brought: valid(brought, now), loose: valid(loose, now) };
  return !deposit || now < deposit.validBefore ? left : withoutDeposit(left);
}

/** The channel without a deposit order that has come to its end; it may have come in. */
export function withoutDeposit(channel: Channel): Channel {
  return { ...channel, deposit: undefined, shown: 0, unsure: channel.unsure || channel.shown > 0 };
}

/** Deposit orders that a server may still take, besides what is in the balance. */
export function outstandingDeposits({ loose = [], deposit }: Channel, now: number): DepositOrder[] {
  return valid(deposit ? [...loose, deposit] : loose, now);
}

/** The channel whose deposit order makes room for a larger one. */
export function superseded(channel: Channel): Channel {
  const { deposit, loose = [] } = channel;
  if (!deposit) return channel;
  return { ...channel, deposit: undefined, shown: 0, loose: [...loose, { ...deposit, small: true }] };
}

/** The channel whose deposit order was refused again: it may have come in before. */
export function doubted(channel: Channel): Channel {
  const { deposit, loose = [] } = channel;
  if (!deposit) return channel;
  return { ...withoutDeposit(channel), loose: [...loose, deposit] };
}

/**
 * The deposit that is needed with the next voucher for `amount`.
 *
 * `attach`: hand over the one that was signed; `sign`: at least `missing` has to come in;
 * `low`: there is enough, for a little while; `none`. A deposit that may still be taken is not
 * signed again in another size. Throws `PaymentError` where such a one is too small.
 */
export function depositNeed(
  channel: Channel,
  amount: bigint,
  target: bigint,
): { kind: 'attach' | 'sign' | 'low' | 'none'; missing: bigint } {
  const missing = channel.charged + amount - channel.balance;
  if (channel.deposit) {
    const fresh = channel.shown === 0;
    if (missing <= 0n) return { kind: fresh ? 'attach' : 'none', missing: 0n };
    if (missing <= channel.deposit.amount) return { kind: 'attach', missing };
    throw new PaymentError('pending', 'an earlier deposit is still under way', true);
  }
  if (missing > 0n) return { kind: channel.unsure ? 'none' : 'sign', missing };
  return { kind: -missing * LOW_WATER < target ? 'low' : 'none', missing: 0n };
}

/** The channel once a voucher is handed over; to be kept before it is. */
export function presented(
  channel: Channel,
  voucher: OpenVoucher,
  deposit: DepositOrder | undefined,
): Channel {
  const urls = [voucher.url, ...channel.urls.filter((url) => url !== voucher.url)];
  return {
    ...channel,
    urls: urls.slice(0, 4),
    signed: most(channel.signed, voucher.ceiling),
    ...(channel.counted !== undefined && { counted: most(channel.counted, voucher.ceiling) }),
    serial: channel.serial + 1,
    open: [...channel.open, voucher].slice(-MOST_REMEMBERED),
    shown: channel.shown + (deposit ? 1 : 0),
  };
}

/**
 * The channel after a delivery, by what the server said of its charge.
 *
 * Throws `PaymentError` (`overcharged`) when that is not what was signed for (x402
 * `scheme_batch_settlement_evm`, Client Verification Rules).
 */
export function confirmed(channel: Channel, identity: string, taken: Charge): Channel {
  const voucher = channel.open.find((open) => open.identity === identity);
  if (!voucher) return channel;
  const base = voucher.ceiling - voucher.amount;
  if (taken.charged > voucher.amount) {
    throw overcharged(`charged ${taken.charged} for what costs ${voucher.amount}`);
  }
  if (taken.report) check(taken.report, channel, base + taken.charged);
  const after = landed(channel, voucher.deposit);
  const balance = taken.report
    ? after.unsure
      ? taken.report.balance
      : least(after.balance, taken.report.balance)
    : after.balance;
  const { brought = [], loose = [] } = after;
  const came = after.unsure && taken.report ? loose.filter(({ small }) => !small) : [];
  return {
    ...after,
    brought: [...brought, ...came],
    loose: loose.filter((order) => !came.includes(order)),
    charged: base + taken.charged,
    balance,
    known: true,
    unsure: false,
    open: [],
    gone: gone(channel, channel.open.filter((open) => open !== voucher)),
  };
}

/** The channel after a deposit that is under way came in. */
export function landed(channel: Channel, amount: bigint): Channel {
  if (!amount || !channel.deposit) return channel;
  return {
    ...channel,
    balance: channel.balance + channel.deposit.amount,
    brought: [...(channel.brought ?? []), channel.deposit],
    deposit: undefined,
    shown: 0,
  };
}

/**
 * The channel after its server said that it holds no more than it charged. What was thought to have
 * come in may not have: the last of it is handed over again.
 */
export function drained(channel: Channel): Channel {
  const { brought = [], loose = [], deposit, shown } = channel;
  const again = deposit ?? brought.at(-1) ?? loose.findLast(({ small }) => !small);
  const others = (orders: readonly DepositOrder[]): DepositOrder[] =>
    orders.filter((order) => order !== again);
  const held = again && brought.includes(again) ? again.amount : 0n;
  return {
    ...emptied({ ...channel, brought: others(brought), loose: others(loose) }),
    returned: (channel.returned ?? 0n) + most(0n, refundable(channel) - held),
    known: true,
    unsure: false,
    deposit: again,
    shown: again ? Math.max(1, shown) : 0,
  };
}

/**
 * The channel whose server knows no more than `charged` of what it charged. It may claim what was
 * signed before; that it knew of that is remembered, should it come to know it again.
 */
export function begunAnew(channel: Channel, charged: bigint): Channel {
  const ceilings = channel.open.map(({ ceiling }) => ceiling);
  return {
    ...channel,
    charged,
    counted: countedFrom(channel, charged),
    forgot: most(channel.forgot ?? 0n, channel.charged, ...ceilings),
    known: true,
    open: [],
    gone: gone(channel, channel.open),
  };
}

/** The channel once no more lies in it than was charged. */
export function emptied(channel: Channel): Channel {
  const { brought = [], loose = [] } = channel;
  const balance = least(channel.balance, channel.charged);
  return { ...channel, balance, brought: [], loose: [...loose, ...brought] };
}

/** The channel after a voucher that was not taken. */
export function refused(channel: Channel, identity: string): Channel {
  const ended = channel.open.filter((open) => open.identity === identity);
  return {
    ...channel,
    open: channel.open.filter((open) => open.identity !== identity),
    gone: gone(channel, ended),
  };
}

/** The channel after its server told of a refund of `amount`. */
export function refunded(channel: Channel, amount: bigint): Channel {
  const balance = most(channel.charged, channel.balance - amount);
  const { returned = 0n } = channel;
  const rest = refundable(channel);
  const unheard = most(0n, amount - rest - returned); // of a deposit that was not seen to arrive
  return { ...emptied(channel), balance, returned: returned + least(amount, rest) + unheard };
}

/** The most that can have gone back, at a Unix time in seconds. */
export function returnable(channel: Channel, now: number): bigint {
  const orders = outstandingDeposits(channel, now).reduce((sum, { amount }) => sum + amount, 0n);
  return refundable(channel) + (channel.returned ?? 0n) + orders;
}

/** The channel once the chain shows its balance: what was not refunded lies in it still. */
export function reconciled(channel: Channel, onChain: bigint): Channel {
  const { balance, returned = 0n } = channel;
  const there = most(balance, least(onChain, balance + returned));
  return { ...channel, balance: there, returned: 0n };
}

/** The channel after its server was caught at claiming too much: nothing more is paid to it. */
export function caught(channel: Channel, what: string): Channel {
  return { ...channel, wrong: 0, fault: what };
}

/** The fault for which nothing more is signed; its owner may forgive a misdelivery. */
export function faultOf(channel: Channel): PaymentError | undefined {
  const { channelId, fault, wrong = 0 } = channel;
  if (!fault) return undefined;
  const code = wrong < MOST_WRONG ? 'overcharged' : 'misdelivered';
  return new PaymentError(code, fault, false, 0, { channelId });
}

/** The channel whose owner forgives that what was paid for did not come. */
export function forgiven(channel: Channel): Channel {
  return faultOf(channel)?.code === 'misdelivered' ? { ...channel, wrong: 0, fault: '' } : channel;
}

/** The channel after what was paid for did not come: its server is given one more chance. */
export function misdelivered(channel: Channel, what: string): Channel {
  if (channel.fault) return channel;
  const wrong = (channel.wrong ?? 0) + 1;
  const fault = wrong < MOST_WRONG ? '' : `${what}, once more; nothing more is paid to it`;
  return { ...channel, wrong, fault };
}

export function gone(channel: Channel, ended: readonly OpenVoucher[]): string[] {
  return [...channel.gone, ...ended.map((open) => open.identity)].slice(-MOST_REMEMBERED);
}

export function overcharged(what: string): PaymentError {
  return new PaymentError(
    'overcharged',
    `the server says it ${what}; nothing more is paid to it`,
  );
}

/** The channel as an application sees it. */
export function viewOf(channel: Channel): ChannelView {
  const fault = faultOf(channel);
  return {
    channelId: channel.channelId,
    network: channel.network,
    asset: channel.config.token,
    payTo: channel.config.receiver,
    payer: channel.config.payer,
    config: channel.config,
    charged: channel.charged,
    balance: channel.balance,
    refundable: refundable(channel),
    returned: channel.returned ?? 0n,
    depositing: channel.deposit?.amount ?? 0n,
    ...(fault && { fault: fault.message, faultCode: fault.code }),
  };
}

function valid(orders: readonly DepositOrder[], now: number): DepositOrder[] {
  return orders.filter(({ validBefore }) => now < validBefore);
}

function check(report: ChannelReport, channel: Channel, charged: bigint): void {
  if (report.channelId !== channel.channelId) {
    throw overcharged('was paid through another channel');
  }
  if (report.charged !== undefined && report.charged !== charged) {
    throw overcharged(`has charged ${report.charged} in all, and it delivered ${charged}`);
  }
  if (report.balance < charged || report.claimed > channel.signed) {
    throw overcharged('holds of the channel what cannot be');
  }
}
