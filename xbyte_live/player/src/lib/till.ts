import type { Account } from './account';
import { assetOf } from './assets';
import {
  atStake,
  depositNeed,
  newChannel,
  presented,
  refundable,
  withoutExpired,
  type Channel,
  type DepositOrder,
} from './channel';
import { PaymentError } from './errors';
import { walletError } from './injected';
import { type Key, loadKey } from './keys';
import { least, most } from './money';
import type { Limit, Spending } from './spending';
import type { ChannelStore, KeptPayment } from './store';
import type { Turn } from './turns';
import { chainIdOf, channelIdOf, depositData, voucherDigest } from './typed';
import type { Asset, ChannelConfig, Hex, PayerEvents, Terms, Wallet } from './types';
import { encodeHeader } from './wire';

const DEPOSIT_PIECES = 10n; // what a deposit lasts for where the server does not say what it wants
const EXPIRY_MARGIN = 15; // seconds a deposit must still be valid when it leaves
const LONGEST_VALIDITY = 3600; // seconds
// The same for good: with the session key it makes channels of this browser alone.
const SALT: Hex = `0x${'xbyte-hls'
  .split('')
  .map((char) => char.charCodeAt(0).toString(16))
  .join('')
  .padEnd(64, '0')}`;

/** A limit of the budget was reached. */
export class LimitReached extends Error {
  constructor(readonly limit: Limit) {
    super(`the limit of the budget (${limit.limit}) is reached`);
  }
}

/** What a delivery is, whatever it is paid with. */
export interface Wanted {
  resource: string;
  url: string;
  range?: string;
  bytes: number;
}

/** What a 402 adds to the payment that answers it. */
export interface Context {
  resource?: object;
  extensions?: object;
}

/** What the till tells of; the payer makes events of it. */
export interface Teller {
  wallet(): Wallet | undefined;
  /** What a deposit should be, if its owner wants one: 0 is as suggested; forgotten by that. */
  takeWanted(): bigint | undefined;
  /** Whether the wallet may be asked for a deposit at once. */
  mayDeposit(need: PayerEvents['topup-needed']): boolean;
  depositSize(suggested: bigint): bigint;
  depositing(detail: PayerEvents['deposit']): void;
  /** A deposit that its owner wanted did not come about. */
  failed(error: PaymentError): void;
  rpcUrl(network: string): string | undefined;
}

/** Signs vouchers, and has the wallet sign deposits. */
export class Till {
  readonly #store: ChannelStore;
  readonly #spending: Spending;
  readonly #assets: readonly Asset[];
  readonly #teller: Teller;
  readonly #now: () => number;
  readonly #keys = new Map<Hex, Promise<Key>>();
  readonly #noticed = new Set<Hex>();
  readonly #floors = new Set<Hex>();
  readonly #account: Account;

  constructor(
    store: ChannelStore,
    spending: Spending,
    account: Account,
    assets: readonly Asset[],
    teller: Teller,
    now: () => number,
  ) {
    this.#store = store;
    this.#spending = spending;
    this.#account = account;
    this.#assets = assets;
    this.#teller = teller;
    this.#now = now;
  }

  /** The best of these offers and the channel that pays it, as it is before a turn is taken. */
  async choose(offers: readonly Terms[]): Promise<{ terms: Terms; channel: Channel }> {
    const wallet = this.#wallet();
    const payer = await this.#account.of(wallet);
    const key = await this.#key(payer);
    const chain = offers.length > 1 ? await wallet.chainId().catch(() => 0) : 0;
    const ways = await Promise.all(
      offers.map(async (terms) => {
        const fresh = channelFor(terms, payer, key.address);
        const channel = (await this.#store.channel(fresh.channelId)) ?? fresh;
        const onChain = chainIdOf(terms.network) === chain;
        const rank = channel.balance > channel.charged ? 0 : onChain ? 1 : 2;
        return { terms, channel, rank };
      }),
    );
    ways.sort((a, b) => a.rank - b.rank);
    const [best] = ways;
    if (!best) throw new PaymentError('no-way-to-pay', 'this server cannot be paid');
    return { terms: best.terms, channel: best.channel };
  }

  /** What keeps a payment from being signed, if its channel is as it was last seen. */
  limit(terms: Terms, channel: Channel): Limit | undefined {
    return this.#spending.check(atStake(channel, BigInt(terms.amount)), this.#now());
  }

  /**
   * Sign for one delivery in the channel's turn, with a deposit where one is due; on return it is
   * kept. Throws `LimitReached`, and `PaymentError` where the wallet does not do its part.
   */
  async sign(
    turn: Turn,
    terms: Terms,
    wanted: Wanted,
    context: Context,
    signal?: AbortSignal,
  ): Promise<KeptPayment> {
    const channel = withoutExpired(turn.channel, this.#seconds());
    if (channel.fault) throw new PaymentError('overcharged', channel.fault);
    this.#require(terms, channel);
    const deposit = await this.#deposit(channel, terms, turn);
    signal?.throwIfAborted();
    this.#require(terms, channel); // the wallet may have taken its time
    // At once: a purchase through another channel shall find that this one has taken its part.
    const giveBack = this.#spending.take(atStake(channel, BigInt(terms.amount)), this.#now());
    try {
      const payment = await this.#payment(channel, terms, wanted, context, deposit);
      const { identity, ceiling, amount } = payment;
      const { url, bytes, range } = wanted;
      const open = {
        identity,
        ceiling,
        amount,
        deposit: payment.deposit,
        url,
        bytes,
        ...(range !== undefined && { range }),
      };
      const withDeposit = { ...channel, ...(deposit && { deposit }) };
      await turn.keep(presented(withDeposit, open, deposit), payment, deposit !== undefined);
      return payment;
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** The header of a refund of all that was not charged. */
  async refund(channel: Channel, terms: Terms, context: Context): Promise<string> {
    const key = await this.#key(channel.config.payer);
    const digest = voucherDigest(channel.channelId, channel.charged, chainIdOf(channel.network));
    return encodeHeader({
      x402Version: 2,
      accepted: terms,
      payload: {
        type: 'refund',
        channelConfig: channel.config,
        voucher: {
          channelId: channel.channelId,
          maxClaimableAmount: channel.charged.toString(),
          signature: await key.sign(digest),
        },
      },
      ...context,
    });
  }

  /** The server wants larger deposits than the budget would have it; false if that was known. */
  raiseFloor(channelId: Hex): boolean {
    if (this.#floors.has(channelId)) return false;
    this.#floors.add(channelId);
    return true;
  }

  async #payment(
    channel: Channel,
    terms: Terms,
    { resource }: Wanted,
    context: Context,
    deposit: DepositOrder | undefined,
  ): Promise<KeptPayment> {
    const amount = BigInt(terms.amount);
    const ceiling = channel.charged + amount;
    const key = await this.#key(channel.config.payer);
    const digest = voucherDigest(channel.channelId, ceiling, chainIdOf(terms.network));
    const voucher = {
      channelId: channel.channelId,
      maxClaimableAmount: ceiling.toString(),
      signature: await key.sign(digest),
    };
    return {
      resource,
      channelId: channel.channelId,
      identity: `${channel.channelId}:${channel.serial}`,
      header: encodeHeader({
        x402Version: 2,
        accepted: terms,
        payload: {
          type: deposit ? 'deposit' : 'voucher',
          channelConfig: channel.config,
          voucher,
          ...(deposit && { deposit: depositWire(deposit) }),
        },
        ...context,
      }),
      terms,
      amount,
      ceiling,
      deposit: deposit?.amount ?? 0n,
      at: this.#now(),
      charged: false,
    };
  }

  async #deposit(channel: Channel, terms: Terms, turn: Turn): Promise<DepositOrder | undefined> {
    const amount = BigInt(terms.amount);
    const hint = BigInt(terms.extra.minDeposit ?? 0);
    const target = most(hint, amount * DEPOSIT_PIECES);
    const { kind, missing } = depositNeed(channel, amount, target);
    const wallet = this.#wallet();
    if (kind === 'attach') return channel.deposit;
    const wanted = channel.deposit ? undefined : this.#teller.takeWanted();
    const due = kind === 'sign' || wanted !== undefined;
    const ahead = kind === 'low' && wallet.kind === 'burner' && this.#spending.left > 0n;
    if (kind === 'none') this.#noticed.delete(channel.channelId);
    if (!due && !ahead && kind !== 'low') return undefined;
    const suggested = this.#suggested(channel, missing, target);
    const need = { missing, suggested, network: terms.network, asset: terms.asset };
    if (!due && !ahead) {
      if (!this.#noticed.has(channel.channelId)) this.#teller.mayDeposit(need);
      this.#noticed.add(channel.channelId);
      return undefined;
    }
    if (kind === 'sign' && wanted === undefined && !this.#teller.mayDeposit(need)) {
      throw new PaymentError('topup-needed', 'the channel is empty and must be topped up', true);
    }
    const chosen = wanted !== undefined && wanted > 0n;
    const asked = most(missing, chosen ? wanted : this.#teller.depositSize(suggested));
    const room = this.#room(channel, this.#spending.budget.deposit);
    const size = room === undefined ? asked : least(asked, room);
    if (size <= 0n) return undefined;
    try {
      const order = await this.#order(wallet, channel, terms, { size, missing });
      await turn.keep({ ...channel, deposit: order, shown: 0 }, undefined, true);
      this.#noticed.delete(channel.channelId);
      return order;
    } catch (error) {
      const told = walletError(error);
      if (missing > 0n) throw told;
      if (wanted !== undefined) this.#teller.failed(told);
      return undefined; // there is enough for now
    }
  }

  /**
   * What to deposit: what the server finds worth its gas, as far as the budget goes. Throws
   * `LimitReached` where what is missing goes beyond what may lie in the channel.
   */
  #suggested(channel: Channel, missing: bigint, target: bigint): bigint {
    const { total, deposit } = this.#spending.budget;
    const floor = this.#floors.has(channel.channelId);
    const cap = floor ? (deposit ?? total) : deposit;
    const room = this.#room(channel, cap);
    const needed = floor ? most(missing, target) : missing;
    if (cap !== undefined && room !== undefined && missing > 0n && needed > room) {
      throw new LimitReached({ limit: 'deposit', needed, spent: refundable(channel), cap });
    }
    const suggested = floor ? needed : most(missing, least(target, this.#spending.left));
    return room === undefined ? suggested : least(suggested, room);
  }

  /** How much more may lie in a channel, if there is an end to it. */
  #room(channel: Channel, cap: bigint | undefined): bigint | undefined {
    return cap === undefined ? undefined : most(0n, cap - refundable(channel));
  }

  async #order(
    wallet: Wallet,
    channel: Channel,
    terms: Terms,
    { size, missing }: { size: bigint; missing: bigint },
  ): Promise<DepositOrder> {
    const chainId = chainIdOf(terms.network);
    await this.#account.check(wallet);
    if ((await wallet.chainId()) !== chainId) await wallet.switchChain(chainId);
    const held = await this.#held(wallet, terms);
    if (held !== undefined && (held < missing || held === 0n)) {
      throw new PaymentError(
        'insufficient-funds',
        `the wallet holds ${held} and ${missing} is missing`,
        true,
      );
    }
    const amount = held === undefined ? size : least(size, held);
    const asked = Math.min(terms.maxTimeoutSeconds, LONGEST_VALIDITY);
    const order = {
      amount,
      validBefore: this.#seconds() + asked,
      salt: hexOf(crypto.getRandomValues(new Uint8Array(32))),
    };
    this.#teller.depositing({ amount, state: 'signing' });
    const data = depositData(
      { address: terms.asset, name: terms.extra.name, version: terms.extra.version, chainId },
      { ...order, payer: channel.config.payer, channelId: channel.channelId },
    );
    const signature = await wallet.signTypedData(data);
    if (this.#seconds() > order.validBefore - EXPIRY_MARGIN) {
      throw new PaymentError('wallet-failed', 'the wallet took too long to sign', true);
    }
    return { ...order, signature };
  }

  async #held(wallet: Wallet, terms: Terms): Promise<bigint | undefined> {
    try {
      return await wallet.balance(terms.asset, this.#teller.rpcUrl(terms.network));
    } catch {
      return undefined; // nobody to ask; the server will say
    }
  }

  #require(terms: Terms, channel: Channel): void {
    if (!assetOf(terms, this.#assets)) {
      throw new PaymentError('no-way-to-pay', 'the server wants a token not allowed here');
    }
    const limit = this.limit(terms, channel);
    if (limit) throw new LimitReached(limit);
  }

  #wallet(): Wallet {
    const wallet = this.#teller.wallet();
    if (!wallet) throw new PaymentError('no-wallet', 'there is no wallet to pay with', true);
    return wallet;
  }

  async #key(payer: Hex): Promise<Key> {
    let key = this.#keys.get(payer);
    if (!key) {
      key = loadKey(this.#store, `session:${payer}`);
      this.#keys.set(payer, key);
      key.catch(() => this.#keys.delete(payer));
    }
    return key;
  }

  #seconds(): number {
    return Math.floor(this.#now() / 1000);
  }
}

function channelFor(terms: Terms, payer: Hex, session: Hex): Channel {
  const lower = (address: Hex): Hex => address.toLowerCase() as Hex;
  const config: ChannelConfig = {
    payer,
    payerAuthorizer: session,
    receiver: lower(terms.payTo),
    receiverAuthorizer: lower(terms.extra.receiverAuthorizer),
    token: lower(terms.asset),
    withdrawDelay: terms.extra.withdrawDelay,
    salt: SALT,
  };
  const channelId = channelIdOf(config, chainIdOf(terms.network)).toLowerCase() as Hex;
  return newChannel(channelId, terms.network, config);
}

function depositWire(order: DepositOrder): object {
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

function hexOf(bytes: Uint8Array): Hex {
  return `0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')}`;
}
