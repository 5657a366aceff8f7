import { WalletAccount } from '../wallets/account';
import { KNOWN_ASSETS } from '../x402/assets';
import { forgiven, viewOf } from '../channel/channel';
import { Refunds } from '../channel/refund';
import type { Teller } from '../channel/deposits';
import { PaymentError, type PaymentErrorCode } from '../x402/errors';
import { PATIENCE, type Patience } from './http_retry';
import { Offers } from './offers';
import { Paused, Purchase, type PaidDelivery, type Means } from './purchase';
import { LimitReached, Spending, type Limit } from './budget';
import { IndexedDbStore, unlessAborted, type ChannelStore } from '../channel/store';
import { ChannelSigner } from '../channel/signer';
import { ChannelLock } from '../channel/lock';
import type { ChannelView, Receipt, Refund } from '../channel/types';
import type { Budget, PaidRequest, PaidResponse, PayerEvents, Waiting } from './types';
import type { Wallet } from '../wallets/wallet';
import type { Asset, Hex } from '../x402/types';

const MOST_RECEIPTS = 20_000;
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

interface Pause {
  why: Waiting;
  error: PaymentError;
  until: Promise<void>;
  end: () => void;
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
  readonly #spending: Spending;
  readonly #account = new WalletAccount();
  readonly #till: ChannelSigner;
  readonly #means: Means;
  readonly #store: ChannelStore;
  readonly #deposit: (suggested: bigint) => bigint;
  readonly #receipts: Receipt[] = [];
  /**
   * The highest price that its owner agreed to, in atomic units per MB. Above it nothing is signed
   * and purchases fail with `price-raised`; set it anew once they agreed to another.
   */
  maxPerMb: bigint | undefined;
  #wallet: Wallet | undefined;
  #pause: Pause | undefined;
  #wanted: { amount: bigint | undefined } | undefined;

  constructor(options: PayerOptions) {
    super();
    const now = options.now ?? Date.now;
    const get = options.fetch ?? globalThis.fetch.bind(globalThis);
    const assets = options.assets ?? KNOWN_ASSETS;
    const patience = { ...PATIENCE, ...options.patience };
    this.maxPerMb = options.maxPerMb;
    this.#wallet = options.wallet;
    this.#deposit = options.deposit ?? ((suggested) => suggested);
    this.#store = options.store ?? new IndexedDbStore();
    this.#spending = new Spending({ ...options.budget });
    const teller: Teller = {
      wallet: () => this.#wallet,
      takeWanted: () => this.#takeWanted(),
      mayDeposit: (need) => this.#tell('topup-needed', need),
      depositSize: (suggested) => this.#deposit(suggested),
      depositing: (detail) => this.#tell('deposit', detail),
      failed: (error) => this.#report(error),
      rpcUrl: (network) => options.rpcUrls?.[network],
    };
    this.#till = new ChannelSigner(this.#store, this.#spending, this.#account, assets, teller, now);
    this.#means = {
      store: this.#store,
      till: this.#till,
      offers: new Offers(assets, get, patience.firstByte),
      fetch: get,
      now,
      patience,
      resources: new Map(),
      charged: (receipt, deposit) => this.#charged(receipt, deposit),
      agreed: () => this.maxPerMb,
      paused: () => this.#pause !== undefined,
      deposited: (amount) => this.#tell('deposit', { amount, state: 'sent' }),
    };
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
    return this.#spending.perMinute(this.#means.now());
  }

  /** What was charged for, the oldest first; the last 20,000. */
  get receipts(): readonly Receipt[] {
    return this.#receipts;
  }

  /** Why nothing is bought at the moment. */
  get waiting(): Waiting | undefined {
    return this.#pause?.why;
  }

  get budget(): Readonly<Budget> {
    return this.#spending.budget;
  }

  /** A new budget holds at once; what waits for a limit is tried again. */
  set budget(budget: Budget) {
    this.#spending.budget = { ...budget };
    this.#tell('budget', { ...budget });
    if (this.waiting !== 'topup' && this.waiting !== 'wallet') this.resume();
  }

  get wallet(): Wallet | undefined {
    return this.#wallet;
  }

  /** Another wallet has channels of its own. */
  set wallet(wallet: Wallet | undefined) {
    if (wallet !== this.#wallet) this.#account.leave();
    this.#wallet = wallet;
    if (wallet && (this.waiting === 'wallet' || this.waiting === 'topup')) this.resume();
  }

  /** Have the wallet deposit with the next purchase: `amount`, or what is suggested. */
  topUp(amount?: bigint): void {
    this.#wanted = { amount };
    if (this.waiting === 'topup' || this.waiting === 'wallet') this.resume();
  }

  /** Try again what waits. */
  resume(): void {
    this.#pause?.end();
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
      const payer = named || !this.#wallet ? undefined : await this.#account.of(this.#wallet);
      return await new Refunds(this.#means).refundAll({ payer, named, url });
    } catch (error) {
      this.#report(error);
      throw error;
    }
  }

  /** Pay a server again that twice in a row handed over what was not paid for, or all such. */
  async trustAgain(channelId?: Hex): Promise<void> {
    for (const channel of await this.#store.channels()) {
      if (channelId !== undefined && channel.channelId !== channelId) continue;
      if (forgiven(channel) === channel) continue;
      const turn = await ChannelLock.take(this.#store, channel);
      try {
        await turn.keep(forgiven(turn.channel), undefined, true);
      } finally {
        turn.release();
      }
    }
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
        return await new Purchase(this.#means, url, request).run();
      } catch (error) {
        this.#stopped(error, request);
      }
      if (!this.#pause) continue;
      request.onWait?.();
      await unlessAborted(this.#pause.until, request.signal);
    }
  }

  /** Wait for what stopped a purchase, or throw it. */
  #stopped(error: unknown, { wait, signal }: PaidRequest): void {
    if (error instanceof Paused && !signal?.aborted) {
      if (this.#pause && wait === false) throw this.#pause.error;
      return;
    }
    if (error instanceof LimitReached && wait !== false) this.#cap(error.limit);
    else if (forTheOwner(error) && wait !== false) this.#ask(error);
    else {
      const stop = error instanceof LimitReached ? capError(error.limit) : error;
      this.#report(stop);
      throw stop;
    }
    signal?.throwIfAborted();
  }

  #cap(limit: Limit): void {
    const pause = this.#hold(limit.limit, capError(limit));
    if (!pause) return;
    this.#tell('cap', limit);
    if (limit.resumesAt === undefined) return;
    setTimeout(() => pause.end(), Math.max(20, limit.resumesAt - this.#means.now()));
  }

  #ask(error: PaymentError): void {
    const why = error.code === 'topup-needed' ? 'topup' : 'wallet';
    if (this.#hold(why, error) && why === 'wallet') this.#report(error);
  }

  /** Wait from now on, unless it does already. */
  #hold(why: Waiting, error: PaymentError): Pause | undefined {
    if (this.#pause) return undefined;
    let go = (): void => undefined;
    const until = new Promise<void>((resolve) => (go = resolve));
    const end = (): void => {
      if (this.#pause !== pause) return;
      this.#pause = undefined;
      go();
      this.#tell('resume', { waited: why });
    };
    const pause: Pause = { why, error, until, end };
    this.#pause = pause;
    return pause;
  }

  #charged(receipt: Receipt, deposit: bigint): void {
    const { amount, bytes, url, transaction } = receipt;
    this.#spending.charged(amount, this.#means.now());
    this.#receipts.push(receipt);
    if (this.#receipts.length > MOST_RECEIPTS) this.#receipts.shift();
    const { spent: total, perMinute } = this;
    this.#tell('spend', { amount, total, bytes, url, perMinute });
    if (deposit > 0n) {
      this.#tell('deposit', { amount: deposit, state: 'done', ...(transaction && { transaction }) });
    }
  }

  #takeWanted(): bigint | undefined {
    const wanted = this.#wanted;
    this.#wanted = undefined;
    return wanted && (wanted.amount ?? 0n);
  }

  #report(error: unknown): void {
    if (!(error instanceof PaymentError)) return;
    const { code, message, retryable, asked, channelId } = error;
    const about = { ...(asked && { asked }), ...(channelId && { channelId }) };
    this.#tell('error', { code, message, retryable, ...about });
  }

  /** Dispatch an event; false if a listener prevented what comes next. */
  #tell<K extends keyof PayerEvents>(type: K, detail: PayerEvents[K]): boolean {
    return this.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
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
