import { least, most } from '../money';
import { LimitReached, type Spending } from '../payer/budget';
import type { EventDispatcher } from '../payer/events';
import type { WalletAccount } from '../wallets/account';
import { walletError } from '../wallets/injected';
import type { ChainReader } from '../wallets/rpc';
import type { Wallet } from '../wallets/wallet';
import { PaymentError } from '../x402/errors';
import { chainIdOf, depositData, depositNonce } from '../x402/typed_data';
import type { ChannelOffer, Hex } from '../x402/types';
import {
  depositNeed,
  isDepositing,
  outstandingDeposits,
  refundable,
  withoutDeposit,
  type Channel,
  type DepositOrder,
} from './channel';
import type { ChannelLock } from './lock';
import type { ChannelStore } from './store';

const DEPOSIT_PIECES = 10n; // what a deposit lasts for where the server does not say what it wants
const LONGEST_VALIDITY = 3600; // seconds
/** Seconds a deposit must still be valid when it leaves. */
export const EXPIRY_MARGIN = 15;

/** A channel, and the deposit that leaves with its next voucher if one does. */
export interface DepositDue {
  channel: Channel;
  deposit?: DepositOrder | undefined;
}

/** The amounts that a deposit depends on; `asks` where the wallet is to sign one now. */
interface Want {
  missing: bigint;
  target: bigint;
  wanted: bigint | undefined;
  asks: boolean;
}

/** Deposits that servers could still take, besides what is thought to lie in channels. */
interface Outstanding {
  /** In this channel, and in all. */
  here: bigint;
  all: bigint;
  /** When the first of them expires (ms). */
  until: number | undefined;
}

/**
 * Has the wallet sign deposits, no more than was agreed to.
 *
 * One that a server refused stays good until it expires: it is handed over again instead of another
 * one, and counts with those that follow it.
 */
export class Deposits {
  readonly #noticed = new Set<Hex>();
  readonly #floors = new Set<Hex>();
  #wanted: { amount: bigint | undefined } | undefined;

  /** `size` is how much to deposit, given what is suggested. */
  constructor(
    private readonly store: ChannelStore,
    private readonly spending: Spending,
    private readonly account: WalletAccount,
    private readonly chain: ChainReader,
    private readonly events: EventDispatcher,
    private readonly size: (suggested: bigint) => bigint,
    private readonly now: () => number,
  ) {}

  /** Deposit with the next voucher: `amount`, or what is suggested. */
  topUp(amount: bigint | undefined): void {
    this.#wanted = { amount };
  }

  /**
   * The deposit that goes with the next voucher; a new order is kept in `lock` on return.
   *
   * Throws `LimitReached`, and `PaymentError` where the wallet does not do its part.
   */
  async due(
    lock: ChannelLock,
    before: Channel,
    offer: ChannelOffer,
    wallet: Wallet,
    signal?: AbortSignal,
  ): Promise<DepositDue> {
    const amount = BigInt(offer.amount);
    const target = targetOf(offer);
    const channel = await this.#withoutUsed(before, amount);
    const { kind, missing } = depositNeed(channel, amount, target);
    if (kind === 'attach') return { channel, deposit: channel.deposit };
    // What became of the last one comes first.
    const wanted = isDepositing(channel) ? undefined : this.#takeWanted();
    const isDue = kind === 'sign' || wanted !== undefined;
    const ahead = kind === 'low' && wallet.kind === 'burner' && this.spending.left > 0n;
    if (kind === 'none') this.#noticed.delete(channel.channelId);
    const isNews = kind === 'low' && !this.#noticed.has(channel.channelId);
    if (!isDue && !ahead && !isNews) return { channel };
    const want = { missing, target, wanted, asks: isDue || ahead };
    // One at a time, so that each finds what others have had signed.
    const free = await this.store.lock('deposit', signal);
    try {
      return await this.#ordered(lock, channel, offer, wallet, want);
    } catch (error) {
      if (error instanceof LimitReached) throw error;
      const failure = walletError(error);
      if (missing > 0n) throw failure;
      if (wanted !== undefined) this.events.report(failure);
      return { channel }; // there is enough for now
    } finally {
      free();
    }
  }

  /** Remember that a server wants larger deposits; false if that was known, or this one is large. */
  raiseFloor(channelId: Hex, order: DepositOrder, offer: ChannelOffer): boolean {
    if (this.#floors.has(channelId) || order.amount >= targetOf(offer)) return false;
    this.#floors.add(channelId);
    return true;
  }

  /** Have a deposit signed and keep it; where the channel only runs low, dispatch a notice. */
  async #ordered(
    lock: ChannelLock,
    channel: Channel,
    offer: ChannelOffer,
    wallet: Wallet,
    { missing, target, wanted, asks }: Want,
  ): Promise<DepositDue> {
    const large = await this.#outstanding(channel);
    const suggested = this.#suggested(channel, missing, target, large);
    const need = { missing, suggested, network: offer.network, asset: offer.asset };
    if (!asks) {
      this.events.dispatch('topup-needed', need);
      this.#noticed.add(channel.channelId);
      return { channel };
    }
    if (missing > 0n && wanted === undefined && !this.events.dispatch('topup-needed', need)) {
      throw new PaymentError('topup-needed', 'the channel is empty and must be topped up', true);
    }
    const chosen = wanted !== undefined && wanted > 0n;
    const asked = most(missing, chosen ? wanted : this.size(suggested));
    const room = this.#room(channel, this.#cap(large), large);
    const size = room === undefined ? asked : least(asked, room);
    if (size <= 0n) return { channel };
    const deposit = await this.#order(wallet, channel, offer, { size, missing });
    const after = { ...channel, deposit, shown: 0 };
    await lock.keep(after, undefined, true);
    this.#noticed.delete(channel.channelId);
    return { channel: after, deposit };
  }

  /** A deposit that was handed over before is handed over again unless the chain knows its end. */
  async #withoutUsed(channel: Channel, amount: bigint): Promise<Channel> {
    const { deposit } = channel;
    const again = channel.shown > 0 && channel.charged + amount > channel.balance;
    if (!deposit || !again || !(await this.#isUsed(channel, deposit))) return channel;
    return withoutDeposit(channel);
  }

  async #outstanding(channel: Channel): Promise<Outstanding> {
    const seconds = Math.floor(this.now() / 1000);
    const others = (await this.store.channels()).filter(
      ({ channelId }) => channelId !== channel.channelId,
    );
    const large: Outstanding = { here: 0n, all: 0n, until: undefined };
    for (const one of [channel, ...others]) {
      for (const order of outstandingDeposits(one, seconds)) {
        if (await this.#isUsed(one, order)) continue;
        large.all += order.amount;
        if (one === channel) large.here += order.amount;
        const end = order.validBefore * 1000;
        if (large.until === undefined || end < large.until) large.until = end;
      }
    }
    return large;
  }

  /** Whether a deposit is used or cancelled; false where nobody can tell. */
  async #isUsed({ channelId, network, config }: Channel, { salt }: DepositOrder): Promise<boolean> {
    const { wallet } = this.account;
    if (!wallet?.isUsed) return false;
    try {
      const elsewhere = wallet.kind === 'injected' && (await wallet.chainId()) !== chainIdOf(network);
      if (elsewhere) return false;
      const nonce = depositNonce(channelId, salt);
      return await wallet.isUsed(config.token, config.payer, nonce, this.chain.rpcUrl(network));
    } catch {
      return false;
    }
  }

  /**
   * The deposit to suggest: the one that the server finds worth its gas, within the budget. Throws
   * `LimitReached` where what is missing goes beyond what may lie in the channel.
   */
  #suggested(channel: Channel, missing: bigint, target: bigint, large: Outstanding): bigint {
    const { total, deposit } = this.spending.budget;
    const floor = this.#floors.has(channel.channelId);
    const room = this.#room(channel, floor ? (deposit ?? total) : this.#cap(large), large);
    const needed = floor ? most(missing, target) : missing;
    if (room !== undefined && missing > 0n && needed > room) {
      throw new LimitReached({
        limit: 'deposit',
        needed,
        spent: refundable(channel) + large.all,
        cap: large.all > 0n ? most(total, deposit ?? 0n) : (deposit ?? total),
        ...(large.until !== undefined && { resumesAt: large.until }),
      });
    }
    const left = most(0n, this.spending.left - large.all);
    const suggested = floor ? needed : most(missing, least(target, left));
    return room === undefined ? suggested : least(suggested, room);
  }

  /** The most that may lie in a channel, if there is an end to it. */
  #cap({ here }: Outstanding): bigint | undefined {
    const { total, deposit } = this.spending.budget;
    return deposit ?? (here > 0n ? total : undefined);
  }

  /** How much more may be deposited in a channel, if there is an end to it. */
  #room(channel: Channel, cap: bigint | undefined, { here, all }: Outstanding): bigint | undefined {
    const { total, deposit } = this.spending.budget;
    const own = cap === undefined ? undefined : cap - refundable(channel) - here;
    const shared = all > 0n ? most(total, deposit ?? 0n) - all : undefined;
    if (own === undefined || shared === undefined) {
      const room = own ?? shared;
      return room === undefined ? undefined : most(0n, room);
    }
    return most(0n, least(own, shared));
  }

  async #order(
    wallet: Wallet,
    channel: Channel,
    offer: ChannelOffer,
    { size, missing }: { size: bigint; missing: bigint },
  ): Promise<DepositOrder> {
    const chainId = chainIdOf(offer.network);
    await this.account.check(wallet);
    if ((await wallet.chainId()) !== chainId) await wallet.switchChain(chainId);
    const held = await this.#held(wallet, offer);
    if (held !== undefined && (held < missing || held === 0n)) {
      throw new PaymentError(
        'insufficient-funds',
        `the wallet holds ${held} and ${missing} is missing`,
        true,
      );
    }
    const amount = held === undefined ? size : least(size, held);
    const asked = Math.min(offer.maxTimeoutSeconds, LONGEST_VALIDITY);
    const order = {
      amount,
      validBefore: this.#seconds() + asked,
      salt: hexOf(crypto.getRandomValues(new Uint8Array(32))),
    };
    this.events.dispatch('deposit', { amount, state: 'signing' });
    const data = depositData(
      { address: offer.asset, name: offer.extra.name, version: offer.extra.version, chainId },
      { ...order, payer: channel.config.payer, channelId: channel.channelId },
    );
    const signature = await wallet.signTypedData(data);
    if (this.#seconds() > order.validBefore - EXPIRY_MARGIN) {
      throw new PaymentError('wallet-failed', 'the wallet took too long to sign', true);
    }
    return { ...order, signature };
  }

  async #held(wallet: Wallet, offer: ChannelOffer): Promise<bigint | undefined> {
    try {
      return await wallet.balance(offer.asset, this.chain.rpcUrl(offer.network));
    } catch {
      return undefined; // nobody to ask; the server will say
    }
  }

  /** The deposit that its owner wants, if any, once: 0 is what is suggested. */
  #takeWanted(): bigint | undefined {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    return wanted && (wanted.amount ?? 0n);
  }

  #seconds(): number {
    return Math.floor(this.now() / 1000);
  }
}

/** A deposit as it is sent (x402 `scheme_batch_settlement_evm`). */
export function depositWire(order: DepositOrder): object {
  return {
    amount: order.amount.toString(),
    authorization: {
      erc3009Authorization: {
        validAfter: '0',
        validBefore: order.validBefore.toString(),
        salt: order.salt,
        signature: order.signature,
      },
    },
  };
}

/** The size of a deposit for deliveries of that price. */
function targetOf({ amount, extra }: ChannelOffer): bigint {
  return most(BigInt(extra.minDeposit ?? 0), BigInt(amount) * DEPOSIT_PIECES);
}

function hexOf(bytes: Uint8Array): Hex {
  return `0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
