import { bytesOf, ceilingOf, MOST_BYTES, priceRaised } from './price_limit';
import {
  caught,
  confirmed,
  faultOf,
  isDepositing,
  isOpen,
  misdelivered,
  refused,
  superseded,
  type Channel,
  type DepositOrder,
  type OpenVoucher,
} from '../channel/channel';
import { BUSY, DEPOSIT_BELOW_MINIMUM, DEPOSIT_EXPIRED } from '../x402/codes';
import { EXPIRY_MARGIN } from '../channel/deposits';
import { PaymentError } from '../x402/errors';
import { RetryingRequest, type Patience } from './http_retry';
import { itemOf, stillOffered, type Offers } from './offers';
import { receiptOf } from '../channel/receipts';
import { recover } from '../channel/recovery';
import { unlessAborted, type ChannelStore, type KeptPayment } from '../channel/store';
import { LimitReached } from './budget';
import type { PaymentContext, ChannelSigner } from '../channel/signer';
import { ChannelLock } from '../channel/lock';
import { badDelivery, discard, httpError, lengthOf, lost, tooLarge, unreachable, wrongClock } from '../http';
import { proofOf } from '../channel/proof';
import type { Receipt } from '../channel/types';
import type { PaidRequest, PaidResponse } from './types';
import type { ChannelOffer } from '../x402/types';
import { readChallenge, readCharge, readReceipt, type Challenge, type Charge } from '../x402/wire';

export const RETRY_WINDOW = 120_000; // milliseconds a server re-serves for the same payment
const MOST_ANSWERS = 4; // vouchers that are signed for one delivery, none of them charged

/** What purchases are made with. */
export interface Means {
  store: ChannelStore;
  till: ChannelSigner;
  offers: Offers;
  fetch: typeof fetch;
  now: () => number;
  patience: Patience;
  /** Resources that are being bought on this page, one purchase of each at a time. */
  resources: Map<string, Promise<void>>;
  /** A voucher was charged; `receipt` is what for. */
  charged(receipt: Receipt, deposit: bigint): void;
  /** The highest price that the owner agreed to, in atomic units per MB. */
  agreed(): bigint | undefined;
  /** Whether nothing may be signed for the moment. */
  paused(): boolean;
  /** A deposit left with a voucher. */
  deposited(amount: bigint): void;
}

/** Nothing may be signed since another purchase came to a limit. */
export class Paused extends Error {}

/** A delivery; `forget` says that its caller has it. */
export interface PaidDelivery {
  paid: PaidResponse;
  forget: () => Promise<void>;
}

/** One delivery, paid for at most once however often it must be asked for. */
export class Purchase {
  readonly #means: Means;
  readonly #url: string;
  readonly #request: PaidRequest;
  readonly #resource: string;
  readonly #exchange: RetryingRequest;
  #turn: ChannelLock | undefined;
  #payment: KeptPayment | undefined;
  #context: PaymentContext = {};
  #inherited = false;
  #ambiguous = false; // the payment was presented, and not decided on
  #answers = 0;
  #expired = false; // a deposit was, and another one was signed
  #receipt: Receipt | undefined;

  constructor(means: Means, url: string, request: PaidRequest) {
    this.#means = means;
    this.#url = url;
    this.#request = request;
    this.#exchange = new RetryingRequest(means.fetch, means.patience, url, request);
    this.#resource = request.range ? `${url}#${request.range}` : url;
  }

  /**
   * Buy it. Where the caller aborts a request that was paid for, what became of the payment is
   * still learned, so that it pays for the same bytes the next time.
   */
  async run(): Promise<PaidDelivery> {
    const { signal } = this.#request;
    const free = await this.#alone(signal);
    const stop = (): void => this.#exchange.leave(this.#payment !== undefined);
    signal?.addEventListener('abort', stop, { once: true });
    try {
      signal?.throwIfAborted();
      return await this.#buy();
    } finally {
      signal?.removeEventListener('abort', stop);
      this.#endTurn();
      free();
    }
  }

  async #buy(): Promise<PaidDelivery> {
    const { ahead } = this.#request;
    if ((bytesOf(this.#request) ?? 0) > MOST_BYTES) throw tooLarge();
    const reopened = await this.#reopen();
    if (reopened) return { paid: reopened, forget: async () => Promise.resolve() };
    await this.#inherit();
    if (!this.#payment && ahead && ahead.amount > 0n) await this.#payAhead(ahead.amount);
    for (;;) {
      let response = await this.#present();
      while (response.status === 402) {
        await this.#answer(response);
        response = await this.#present();
      }
      await this.#judge(response);
      this.#endTurn();
      if (this.#aborted) await discard(response);
      this.#request.signal?.throwIfAborted();
      const bytes = await this.#read(response);
      if (bytes) return this.#delivered(response, bytes);
      this.#ambiguous = true;
      await this.#exchange.wait('the connection broke off');
    }
  }

  /** The bytes for the receipt of an earlier purchase, where that is what opens them. */
  async #reopen(): Promise<PaidResponse | undefined> {
    const { store } = this.#means;
    for (const resource of new Set([this.#resource, this.#url])) {
      const token = await store.token(resource);
      if (token === undefined) continue;
      const response = await this.#present(token);
      if (response.ok) {
        const bytes = await this.#read(response);
        if (!bytes) throw unreachable();
        return { bytes, status: response.status, headers: response.headers, amount: 0n };
      }
      await discard(response);
      if (response.status !== 402) throw httpError(response);
      await store.keepToken(resource, undefined);
    }
    return undefined;
  }

  /** Take over the payment that an earlier request for these bytes left open. */
  async #inherit(): Promise<void> {
    const { store, now } = this.#means;
    const kept = await store.payment(this.#resource);
    if (!kept) return;
    const channel = await store.channel(kept.channelId);
    if (!channel || now() > kept.at + RETRY_WINDOW || channel.gone.includes(kept.identity)) {
      await store.dropPayment(kept);
      return;
    }
    this.#turn = await ChannelLock.take(store, channel, this.#request.signal);
    const fault = faultOf(this.#turn.channel);
    if (fault?.code === 'misdelivered') throw fault; // what was paid for is there once it is forgiven
    if (this.#turn.channel.gone.includes(kept.identity) || fault) {
      await store.dropPayment(kept);
      this.#endTurn();
      return;
    }
    this.#payment = kept;
    this.#inherited = true;
  }

  async #payAhead(amount: bigint): Promise<void> {
    const { offers } = this.#means;
    const ceiling = this.#ceiling();
    const { ahead, pricing } = this.#request;
    if (ceiling !== undefined && amount > ceiling) {
      throw priceRaised({ amount, ...(ahead && { bytes: ahead.bytes }) }, ceiling);
    }
    const item = itemOf(this.#url);
    if (ahead?.terms) offers.learn(item, [ahead.terms]);
    let known = offers.of(item, amount);
    if (known.length === 0 && pricing !== undefined) {
      await unlessAborted(offers.ask(item, pricing), this.#request.signal);
      known = offers.of(item, amount);
    }
    if (known.length > 0) await this.#sign(known);
  }

  /** Sign in the channel's turn; throws what keeps it from being signed. */
  async #sign(offers: readonly ChannelOffer[]): Promise<void> {
    const { till, store } = this.#means;
    const { signal, range } = this.#request;
    signal?.throwIfAborted();
    if (this.#means.paused()) throw new Paused();
    const { terms, channel } = await till.choose(offers);
    const limit = till.limit(terms, channel);
    if (limit) throw new LimitReached(limit);
    if (this.#turn?.channel.channelId !== channel.channelId) {
      this.#endTurn();
      this.#turn = await ChannelLock.take(store, channel, signal);
    }
    if (this.#means.paused()) throw new Paused();
    const bytes = this.#request.ahead?.bytes ?? 0;
    const wanted = { resource: this.#resource, url: this.#url, bytes, ...(range && { range }) };
    const payment = await till.sign(this.#turn, terms, wanted, this.#context, signal);
    if (this.#aborted) {
      await this.#unsend(payment); // it never left
      signal?.throwIfAborted();
    }
    this.#payment = payment;
    this.#inherited = this.#ambiguous = false;
    if (payment.deposit) this.#means.deposited(payment.deposit);
  }

  /** Answer a 402, unless a payment was made that may still be taken for these bytes. */
  async #answer(response: Response): Promise<void> {
    await discard(response);
    const challenge = readChallenge(response.headers);
    const { offers } = this.#means;
    const refusal = this.#payment;
    if (refusal) {
      if (challenge.error === BUSY) {
        await this.#exchange.wait('the channel is busy');
        return;
      }
      await this.#refused(refusal, challenge);
    }
    const usable = offers.usable(challenge, this.#ceiling(), bytesOf(this.#request));
    offers.learn(itemOf(this.#url), challenge.offers);
    const { resource, extensions } = challenge;
    this.#context = { ...(resource && { resource }), ...(extensions && { extensions }) };
    await this.#sign(usable);
  }

  /** Learn from a 402 to a voucher what became of it; on return another may be signed. */
  async #refused(payment: KeptPayment, challenge: Challenge): Promise<void> {
    const { store } = this.#means;
    const turn = await this.#ownTurn(payment);
    this.#payment = undefined;
    if (!isOpen(turn.channel, payment.identity)) {
      await store.dropPayment(payment);
      if (payment.charged) await this.#misdelivered(payment, lost());
      return;
    }
    const { till } = this.#means;
    const evidence = await proofOf(challenge, turn.channel, async (of) => till.onChain(of));
    const presentedBefore = this.#inherited || this.#ambiguous;
    const { identity } = payment;
    const order = payment.deposit ? turn.channel.deposit : undefined;
    const outcome = await this.#caught(turn, (channel) =>
      recover(channel, { ...evidence, identity, presentedBefore }),
    );
    await turn.keep(outcome.channel);
    if (outcome.charged) this.#count(turn, outcome.charged, { charged: outcome.charged.amount });
    if (outcome.verdict === 'charged') {
      await store.dropPayment(payment);
      await this.#misdelivered(payment, lost());
    }
    const mended = order !== undefined && (await this.#mended(turn, payment, order, challenge));
    const again = outcome.verdict === 'again' || mended;
    const expired = order !== undefined && challenge.error === DEPOSIT_EXPIRED && !mended;
    const hopeless = presentedBefore || stillOffered(challenge, payment.terms);
    if (expired || (!again && hopeless) || ++this.#answers >= MOST_ANSWERS) {
      if (!presentedBefore) await store.dropPayment(payment);
      if (expired) throw wrongClock();
      const code = challenge.error || 'payment_required';
      const what = payment.deposit ? 'deposit' : 'voucher';
      throw new PaymentError(
        'refused',
        `the server refused a ${what} (${code}) and charged nothing`,
        payment.deposit > 0n || isDepositing(turn.channel),
        402,
      );
    }
    await store.dropPayment(payment);
  }

  /** Whether a deposit was refused for a reason that another one would not have. */
  async #mended(
    turn: ChannelLock,
    payment: KeptPayment,
    order: DepositOrder,
    challenge: Challenge,
  ): Promise<boolean> {
    const { till, now } = this.#means;
    if (challenge.error === DEPOSIT_BELOW_MINIMUM) {
      const { channelId, terms } = payment;
      const asked = challenge.offers.find(({ asset }) => asset === terms.asset) ?? terms;
      if (!till.deposits.raiseFloor(channelId, order, asked)) return false;
      await turn.keep(superseded(turn.channel), undefined, true);
      return true;
    }
    const left = order.validBefore * 1000 - now();
    if (challenge.error !== DEPOSIT_EXPIRED || left > EXPIRY_MARGIN * 1000) return false;
    if (this.#expired) return false;
    this.#expired = true;
    await this.#exchange.sleep(left); // servers want it to be good for a little longer
    return true;
  }

  /** Have the server's account of its charge checked, before more is signed for it. */
  async #judge(response: Response): Promise<void> {
    const payment = this.#payment;
    if (!payment) {
      if (!response.ok) await this.#fail(response);
      return;
    }
    const turn = await this.#ownTurn(payment);
    const taken = readCharge(response.headers);
    const open = turn.channel.open.find((voucher) => voucher.identity === payment.identity);
    if (open && taken) {
      const channel = await this.#caught(turn, (before) =>
        confirmed(before, payment.identity, taken),
      );
      this.#payment = { ...payment, charged: true };
      await turn.keep(channel, this.#payment);
      const bytes = open.bytes || lengthOf(response);
      this.#count(turn, { ...open, bytes }, taken);
    }
    if (response.ok) return;
    if (!taken && !this.#inherited && !this.#ambiguous) await this.#unsend(payment);
    await this.#fail(response);
  }

  async #delivered(response: Response, bytes: ArrayBuffer): Promise<PaidDelivery> {
    const { store } = this.#means;
    const token = readReceipt(response.headers);
    if (token !== undefined) await store.keepToken(this.#resource, token);
    const payment = this.#payment;
    const forget = async (): Promise<void> => {
      if (payment) await store.dropPayment(payment);
    };
    const quoted = this.#request.ahead?.bytes;
    if (quoted !== undefined) {
      if (quoted !== bytes.byteLength) {
        await this.#misdelivered(payment, badDelivery(bytes.byteLength, quoted));
      }
      if (payment) await this.#asQuoted(payment);
    }
    const paid: PaidResponse = {
      bytes,
      status: response.status,
      headers: response.headers,
      amount: this.#receipt?.amount ?? 0n,
      ...(this.#receipt && { receipt: this.#receipt }),
    };
    return { paid, forget };
  }

  /**
   * What was paid for did not come. The payment stays good for it, and nothing is signed to a
   * server that does so twice in a row, however often its caller tries again.
   */
  async #misdelivered(payment: KeptPayment | undefined, error: PaymentError): Promise<never> {
    if (payment) {
      const turn = await this.#ownTurn(payment);
      const channel = misdelivered(turn.channel, error.message);
      await turn.keep(channel, undefined, channel.fault !== '');
    }
    throw error;
  }

  /** What was paid for came. */
  async #asQuoted(payment: KeptPayment): Promise<void> {
    const channel = await this.#means.store.channel(payment.channelId);
    if (!channel?.wrong) return;
    const turn = await this.#ownTurn(payment);
    if (!turn.channel.fault) await turn.keep({ ...turn.channel, wrong: 0 });
    this.#endTurn();
  }

  /** Count a charge, once. */
  #count(turn: ChannelLock, open: OpenVoucher, taken: Charge): void {
    const receipt = receiptOf(turn.channel, open, taken, this.#means.now());
    if (open.identity === this.#payment?.identity) this.#receipt = receipt;
    this.#means.charged(receipt, open.deposit);
  }

  /** Send the request with its payment, or with a receipt. */
  async #present(receipt?: string): Promise<Response> {
    const key = { payment: this.#payment?.header, receipt };
    const { response, repeated } = await this.#exchange.ask(key);
    if (repeated) this.#ambiguous = true;
    return response;
  }

  /** The body, or `undefined` where it broke off. */
  async #read(response: Response): Promise<ArrayBuffer | undefined> {
    const bytes = await this.#exchange.read(response);
    if (bytes !== 'more') return bytes;
    const quoted = bytesOf(this.#request, response.status) ?? 0;
    return this.#misdelivered(this.#payment, badDelivery('more', quoted));
  }

  /** A voucher that was never shown, or was not taken. */
  async #unsend(payment: KeptPayment): Promise<void> {
    const turn = await this.#ownTurn(payment);
    if (isOpen(turn.channel, payment.identity)) {
      await turn.keep(refused(turn.channel, payment.identity));
    }
    await this.#means.store.dropPayment(payment);
  }

  async #ownTurn(payment: KeptPayment): Promise<ChannelLock> {
    const { store } = this.#means;
    if (this.#turn) return this.#turn;
    const channel = await store.channel(payment.channelId);
    if (!channel) throw new PaymentError('storage', 'the channel is not kept any more');
    this.#turn = await ChannelLock.take(store, channel);
    return this.#turn;
  }

  /** Learn from a server; one that is caught at claiming too much is never paid again. */
  async #caught<T>(turn: ChannelLock, learn: (channel: Channel) => T): Promise<T> {
    try {
      return learn(turn.channel);
    } catch (error) {
      if (error instanceof PaymentError && error.code === 'overcharged') {
        await turn.keep(caught(turn.channel, error.message), undefined, true);
        throw faultOf(turn.channel) ?? error;
      }
      throw error;
    }
  }

  async #fail(response: Response): Promise<never> {
    await discard(response);
    throw httpError(response);
  }

  /** One purchase of a resource at a time, so that the next one finds what this one left. */
  async #alone(signal: AbortSignal | undefined): Promise<() => void> {
    const { resources } = this.#means;
    for (let other; (other = resources.get(this.#resource)); ) await unlessAborted(other, signal);
    let free = (): void => undefined;
    const held = new Promise<void>((resolve) => (free = resolve));
    resources.set(this.#resource, held);
    return () => {
      resources.delete(this.#resource);
      free();
    };
  }

  #ceiling(): bigint | undefined {
    return ceilingOf(this.#request, this.#means.agreed());
  }

  #endTurn(): void {
    this.#turn?.release();
    this.#turn = undefined;
  }

  get #aborted(): boolean {
    return this.#request.signal?.aborted ?? false;
  }
}
