import { BatchSettlement } from '../channel/batch_settlement';
import { viewOf } from '../channel/channel';
import { Deposits } from '../channel/deposits';
import { ReceiptBook } from '../channel/receipts';
import { Refunds } from '../channel/refund';
import { ChannelSigner } from '../channel/signer';
import { IndexedDbStore, unlessAborted, type ChannelStore } from '../channel/store';
import type { ChannelView, Receipt, Refund } from '../channel/types';
import { WalletAccount } from '../wallets/account';
import { ChainReader } from '../wallets/rpc';
import type { Wallet } from '../wallets/wallet';
import { KNOWN_ASSETS } from '../x402/assets';
import { PaymentError, type PaymentErrorCode } from '../x402/errors';
import type { Asset, Hex } from '../x402/types';
import { LimitReached, Spending, type Limit } from './budget';
import { EventDispatcher } from './events';
import { PATIENCE, type Patience } from './http_retry';
import { Offers } from './offers';
import { Pause } from './pause';
import { Paused, Purchases, type PaidDelivery } from './purchase';
import type { PaymentScheme } from './scheme';
import type { Budget, PaidRequest, PaidResponse, PayerEvents, Waiting } from './types';

const FOR_THE_OWNER: ReadonlySet<PaymentErrorCode> = new Set([
  'no-wallet',
  'wallet-rejected',
  'wallet-failed',
  'wallet-changed',
  'wrong-network',
  'unknown-network',
  'insufficient-funds',
  'topup-needed',
  'wrong-clock',
]);

export interface PayerOptions {
  /** Who deposits; it may come later. */
  wallet?: Wallet | undefined;
  budget: Budget;
  /** The highest price to pay, in atomic units per MB; it may be set later. */
  maxPerMb?: bigint | undefined;
  /** How much to deposit, given what the server and the budget suggest. */
  deposit?: (suggested: bigint) => bigint;
  store?: ChannelStore;
  fetch?: typeof fetch;
  /** Milliseconds since 1970. */
  now?: () => number;
  /** Every token that is ever paid in (default: Circle's USDC). */
  assets?: readonly Asset[];
  /** Nodes by CAIP-2 network, for wallets that have none of their own. */
  rpcUrls?: Readonly<Record<string, string>>;
  patience?: Partial<Patience>;
}

/** Which channels to close; by default all of the wallet. */
export interface CloseOptions {
  channelId?: Hex;
  channelIds?: readonly Hex[];
  /** Something that a server sells. */
  url?: string;
}

/**
 * Pays for bytes by vouchers of payment channels, within a budget.
 *
 * The wallet signs deposits alone; a key of this browser signs the vouchers. What was signed is
 * kept before it leaves, so that a reload loses no channel. At a limit, or where the wallet is
 * needed, purchases wait and an event tells; they go on when the budget is raised, or after
 * `resume()`, `topUp()` or a new `wallet`.
 */
export class Payer extends EventTarget {
  readonly #events = new EventDispatcher(this);
  readonly #pause = new Pause(this.#events);
  readonly #spending: Spending;
  readonly #account: WalletAccount;
  readonly #deposits: Deposits;
  readonly #receipts: ReceiptBook;
  readonly #channels: BatchSettlement;
  readonly #refunds: Refunds;
  readonly #purchases: Purchases;
  readonly #store: ChannelStore;
  readonly #now: () => number;

  constructor(options: PayerOptions) {
    super();
    const { store = new IndexedDbStore(), now = Date.now, assets = KNOWN_ASSETS } = options;
    const size = options.deposit ?? ((suggested) => suggested);
    const http = {
      fetch: options.fetch ?? globalThis.fetch.bind(globalThis),
      patience: { ...PATIENCE, ...options.patience },
    };
    const events = this.#events;
    const chain = new ChainReader(options.rpcUrls);
    const spending = new Spending({ ...options.budget }, options.maxPerMb);
    const account = new WalletAccount(options.wallet);
    const deposits = new Deposits(store, spending, account, chain, events, size, now);
    const signer = new ChannelSigner(deposits, store, spending, account, assets, now);
    const receipts = new ReceiptBook(spending, events, now);
    const channels = new BatchSettlement(store, signer, chain, receipts, events, now);
    const schemes: PaymentScheme[] = [channels]; // the one that is preferred first
    const offers = new Offers(schemes.map(({ rule }) => rule), assets, http);
    this.#purchases = new Purchases(store, schemes, offers, http, spending, this.#pause);
    this.#refunds = new Refunds(store, signer, chain, receipts, http, now);
    this.#spending = spending;
    this.#account = account;
    this.#deposits = deposits;
    this.#receipts = receipts;
    this.#channels = channels;
    this.#store = store;
    this.#now = now;
  }

  /**
   * Fetch bytes, paying for them where they are not free.
   *
   * Rejects with `PaymentError`, or with the signal's reason. A voucher whose outcome was not
   * learned pays for the same bytes when they are asked for again.
   */
  async fetchPaid(url: string, request: PaidRequest = {}): Promise<PaidResponse> {
    const absolute = new URL(url, baseUrl()).href.replace(/#.*$/, '');
    const running = this.#run(absolute, request);
    running.catch(() => undefined); // an aborted one goes on alone
    const { paid, forget } = await unlessAborted(running, request.signal);
    await forget();
    return paid;
  }

  /** What was charged since this payer was made, in atomic units. */
  get spent(): bigint {
    return this.#spending.spent;
  }

  /** What was charged within the last 60 seconds. */
  get perMinute(): bigint {
    return this.#spending.perMinute(this.#now());
  }

  /** What was charged for, the oldest first; the last 20,000. */
  get receipts(): readonly Receipt[] {
    return this.#receipts.all;
  }

  /** Why nothing is bought at the moment. */
  get waiting(): Waiting | undefined {
    return this.#pause.why;
  }

  get budget(): Readonly<Budget> {
    return this.#spending.budget;
  }

  /** A new budget holds at once; what waits for a limit is tried again. */
  set budget(budget: Budget) {
    this.#spending.budget = { ...budget };
    this.#events.dispatch('budget', { ...budget });
    if (this.waiting !== 'topup' && this.waiting !== 'wallet') this.resume();
  }

  /**
   * The highest price that its owner agreed to, in atomic units per MB. Above it nothing is signed
   * and purchases fail with `price-raised`; set it anew once they agreed to another.
   */
  get maxPerMb(): bigint | undefined {
    return this.#spending.maxPerMb;
  }

  set maxPerMb(price: bigint | undefined) {
    this.#spending.maxPerMb = price;
  }

  get wallet(): Wallet | undefined {
    return this.#account.wallet;
  }

  /** Another wallet has channels of its own. */
  set wallet(wallet: Wallet | undefined) {
    this.#account.wallet = wallet;
    if (wallet && (this.waiting === 'wallet' || this.waiting === 'topup')) this.resume();
  }

  /** Have the wallet deposit with the next purchase: `amount`, or what is suggested. */
  topUp(amount?: bigint): void {
    this.#deposits.topUp(amount);
    if (this.waiting === 'topup' || this.waiting === 'wallet') this.resume();
  }

  /** Try again what waits. */
  resume(): void {
    this.#pause.end();
  }

  /** The channels of this browser, all wallets'. */
  async channels(): Promise<ChannelView[]> {
    return (await this.#store.channels()).map(viewOf);
  }

  /**
   * Have servers give back what they did not charge, of all channels of this wallet or of those
   * that are named.
   *
   * The key of this browser asks for it, and it goes to whoever deposited: without a wallet it is
   * of all channels of this browser, and another wallet's may be named.
   * `url` is of something a server sells, where what was bought last is not on sale any more.
   */
  async close({ channelId, channelIds, url }: CloseOptions = {}): Promise<Refund[]> {
    const named = channelId === undefined ? channelIds : [...(channelIds ?? []), channelId];
    try {
      const { wallet } = this.#account;
      const payer = named || !wallet ? undefined : await this.#account.of(wallet);
      return await this.#refunds.refundAll({ payer, named, url });
    } catch (error) {
      this.#events.report(error);
      throw error;
    }
  }

  /** Pay a server again that twice in a row handed over what was not paid for, or all such. */
  async trustAgain(channelId?: Hex): Promise<void> {
    await this.#channels.trustAgain(channelId);
  }

  override addEventListener<K extends keyof PayerEvents>(
    type: K,
    listener: (event: CustomEvent<PayerEvents[K]>) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions,
  ): void;
  override addEventListener(
    type: string,
    listener: unknown,
    options?: boolean | AddEventListenerOptions,
  ): void {
    super.addEventListener(type, listener as EventListener, options);
  }

  async #run(url: string, request: PaidRequest): Promise<PaidDelivery> {
    for (;;) {
      try {
        return await this.#purchases.buy(url, request);
      } catch (error) {
        this.#stopped(error, request);
      }
      const { until } = this.#pause;
      if (!until) continue;
      request.onWait?.();
      await unlessAborted(until, request.signal);
    }
  }

  /** Wait for what stopped a purchase, or throw it. */
  #stopped(error: unknown, { wait, signal }: PaidRequest): void {
    if (error instanceof Paused && !signal?.aborted) {
      if (this.#pause.error && wait === false) throw this.#pause.error;
      return;
    }
    if (error instanceof LimitReached && wait !== false) this.#cap(error.limit);
    else if (forTheOwner(error) && wait !== false) this.#ask(error);
    else {
      const stop = error instanceof LimitReached ? capError(error.limit) : error;
      this.#events.report(stop);
      throw stop;
    }
    signal?.throwIfAborted();
  }

  #cap(limit: Limit): void {
    const end = this.#pause.begin(limit.limit, capError(limit));
    if (!end) return;
    this.#events.dispatch('cap', limit);
    if (limit.resumesAt === undefined) return;
    setTimeout(end, Math.max(20, limit.resumesAt - this.#now()));
  }

  #ask(error: PaymentError): void {
    const why = error.code === 'topup-needed' ? 'topup' : 'wallet';
    if (this.#pause.begin(why, error) && why === 'wallet') this.#events.report(error);
  }
}

/** The page's own address; a worker and Node have none that matters. */
function baseUrl(): string | undefined {
  return (globalThis as { document?: Document }).document?.baseURI;
}

function capError({ limit, needed, spent, cap }: Limit): PaymentError {
  return new PaymentError(
    `cap-${limit}`,
    `${needed} more does not fit the budget: ${spent} of ${cap} is used`,
    true,
  );
}

/** Whether an error is for the owner of the wallet to mend. */
function forTheOwner(error: unknown): error is PaymentError {
  if (!(error instanceof PaymentError)) return false;
  return FOR_THE_OWNER.has(error.code) || (error.code === 'refused' && error.retryable);
}
