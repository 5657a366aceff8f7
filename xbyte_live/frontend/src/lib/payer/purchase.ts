import { type ChannelStore, unlessAborted } from '../channel/store';
import { badDelivery, discard, httpError, tooLarge, unreachable } from '../http';
import type { Offer } from '../x402/types';
import { readChallenge, readReceipt, type OfferRule } from '../x402/wire';
import type { Spending } from './budget';
import { RetryingRequest, type HttpClient } from './http_retry';
import { itemOf, type Offers } from './offers';
import type { Pause } from './pause';
import { bytesOf, ceilingOf, MOST_BYTES, priceRaised } from './price_limit';
import type { PaymentContext, PaymentScheme, SchemePayment } from './scheme';
import type { PaidRequest, PaidResponse } from './types';

/** Nothing may be signed since another purchase came to a limit. */
export class Paused extends Error {}

/** A delivery; `forget` says that its caller has it. */
export interface PaidDelivery {
  paid: PaidResponse;
  forget: () => Promise<void>;
}

/** Buys deliveries, one of each resource at a time; `schemes` in the order they are preferred. */
export class Purchases {
  readonly rules: readonly OfferRule[];
  readonly #resources = new Map<string, Promise<void>>();

  constructor(
    readonly store: ChannelStore,
    readonly schemes: readonly PaymentScheme[],
    readonly offers: Offers,
    readonly http: HttpClient,
    readonly spending: Spending,
    readonly pause: Pause,
  ) {
    this.rules = schemes.map(({ rule }) => rule);
  }

  async buy(url: string, request: PaidRequest): Promise<PaidDelivery> {
    return new Purchase(this, url, request).run();
  }

  /** Wait until nobody else buys a resource, so that what they leave is found; call it when done. */
  async alone(resource: string, signal: AbortSignal | undefined): Promise<() => void> {
    for (let other; (other = this.#resources.get(resource)); ) await unlessAborted(other, signal);
    let free = (): void => undefined;
    const held = new Promise<void>((resolve) => (free = resolve));
    this.#resources.set(resource, held);
    return () => {
      this.#resources.delete(resource);
      free();
    };
  }
}

/** One delivery, paid for at most once however often it must be asked for. */
class Purchase {
  readonly #desk: Purchases;
  readonly #url: string;
  readonly #request: PaidRequest;
  readonly #resource: string;
  readonly #http: RetryingRequest;
  readonly #payments: ReadonlyMap<string, SchemePayment>;
  #payment: SchemePayment | undefined;
  #context: PaymentContext = {};
  #inherited = false;
  #ambiguous = false; // the payment was presented, and not decided on

  constructor(desk: Purchases, url: string, request: PaidRequest) {
    const { range } = request;
    this.#desk = desk;
    this.#url = url;
    this.#request = request;
    this.#http = new RetryingRequest(desk.http, url, request);
    this.#resource = range ? `${url}#${range}` : url;
    const bytes = request.ahead?.bytes ?? 0;
    const delivery = { resource: this.#resource, url, bytes, ...(range && { range }) };
    this.#payments = new Map(desk.schemes.map((one) => [one.rule.scheme, one.start(delivery)]));
  }

  /**
   * Buy it. Where the caller aborts a request that was paid for, what became of the payment is
   * still learned, so that it pays for the same bytes the next time.
   */
  async run(): Promise<PaidDelivery> {
    const { signal } = this.#request;
    const free = await this.#desk.alone(this.#resource, signal);
    const stop = (): void => this.#http.leave(this.#isSigned);
    signal?.addEventListener('abort', stop, { once: true });
    try {
      signal?.throwIfAborted();
      return await this.#buy();
    } finally {
      signal?.removeEventListener('abort', stop);
      for (const payment of this.#payments.values()) payment.release();
      free();
    }
  }

  async #buy(): Promise<PaidDelivery> {
    const { ahead, signal } = this.#request;
    if ((bytesOf(this.#request) ?? 0) > MOST_BYTES) throw tooLarge();
    const reopened = await this.#reopen();
    if (reopened) return { paid: reopened, forget: async () => Promise.resolve() };
    await this.#inherit();
    if (!this.#isSigned && ahead && ahead.amount > 0n) await this.#payAhead(ahead.amount);
    for (;;) {
      let response = await this.#present();
      while (response.status === 402) {
        await this.#answer(response);
        response = await this.#present();
      }
      await this.#judge(response);
      this.#payment?.release();
      if (signal?.aborted) await discard(response);
      signal?.throwIfAborted();
      const bytes = await this.#read(response);
      if (bytes) return this.#delivered(response, bytes);
      this.#ambiguous = true;
      await this.#http.wait('the connection broke off');
    }
  }

  /** The bytes for the receipt of an earlier purchase, where that is what opens them. */
  async #reopen(): Promise<PaidResponse | undefined> {
    const { store } = this.#desk;
    for (const resource of new Set([this.#resource, this.#url])) {
      const receipt = await store.token(resource);
      if (receipt === undefined) continue;
      const response = await this.#present(receipt);
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
    for (const payment of this.#payments.values()) {
      if (!(await payment.resume(this.#request.signal))) continue;
      this.#payment = payment;
      this.#inherited = true;
      return;
    }
  }

  async #payAhead(amount: bigint): Promise<void> {
    const { offers } = this.#desk;
    const ceiling = this.#ceiling();
    const { ahead, pricing, signal } = this.#request;
    if (ceiling !== undefined && amount > ceiling) {
      throw priceRaised({ amount, ...(ahead && { bytes: ahead.bytes }) }, ceiling);
    }
    const item = itemOf(this.#url);
    if (ahead?.terms) offers.learn(item, [ahead.terms]);
    let known = offers.of(item, amount);
    if (known.length === 0 && pricing !== undefined) {
      await unlessAborted(offers.ask(item, pricing), signal);
      known = offers.of(item, amount);
    }
    if (known.length > 0) await this.#sign(known);
  }

  /** Sign by the first scheme that is offered; throws what keeps it from being signed. */
  async #sign(offers: readonly Offer[]): Promise<void> {
    const { signal } = this.#request;
    signal?.throwIfAborted();
    this.#requireNoPause();
    for (const [scheme, payment] of this.#payments) {
      const own = offers.filter((offer) => offer.scheme === scheme);
      if (own.length === 0) continue;
      if (payment !== this.#payment) this.#payment?.release();
      this.#payment = payment;
      await payment.prepare(own, signal);
      this.#requireNoPause();
      await payment.sign(this.#context, signal);
      this.#inherited = this.#ambiguous = false;
      return;
    }
  }

  /** Answer a 402, unless a payment was made that may still be taken for these bytes. */
  async #answer(response: Response): Promise<void> {
    await discard(response);
    const { offers, rules } = this.#desk;
    const challenge = readChallenge(response.headers, rules);
    if (this.#payment && this.#isSigned) {
      const next = await this.#payment.refused(challenge, this.#inherited || this.#ambiguous);
      if (next.kind === 'present') {
        await this.#http.wait('the channel is busy');
        return;
      }
      if (next.wait > 0) await this.#http.sleep(next.wait);
    }
    const usable = offers.usable(challenge, this.#ceiling(), bytesOf(this.#request));
    offers.learn(itemOf(this.#url), challenge.offers);
    const { resource, extensions } = challenge;
    this.#context = { ...(resource && { resource }), ...(extensions && { extensions }) };
    await this.#sign(usable);
  }

  /** Have the payment learn what was charged; throws where what came are not the bytes. */
  async #judge(response: Response): Promise<void> {
    const isCharged = this.#isSigned && (await this.#payment?.confirm(response));
    if (response.ok) return;
    if (!isCharged && !this.#inherited && !this.#ambiguous) await this.#payment?.cancel();
    await discard(response);
    throw httpError(response);
  }

  async #delivered(response: Response, bytes: ArrayBuffer): Promise<PaidDelivery> {
    const payment = this.#payment;
    const token = readReceipt(response.headers);
    if (token !== undefined) await this.#desk.store.keepToken(this.#resource, token);
    const quoted = this.#request.ahead?.bytes;
    if (quoted !== undefined) {
      if (quoted !== bytes.byteLength) await this.#misdelivered(bytes.byteLength, quoted);
      await payment?.delivered();
    }
    const receipt = payment?.receipt;
    const paid: PaidResponse = {
      bytes,
      status: response.status,
      headers: response.headers,
      amount: receipt?.amount ?? 0n,
      ...(receipt && { receipt }),
    };
    return { paid, forget: async () => payment?.forget() };
  }

  /** Send the request with its payment, or with a receipt. */
  async #present(receipt?: string): Promise<Response> {
    const credentials = { payment: this.#payment?.header, receipt };
    const { response, repeated } = await this.#http.ask(credentials);
    if (repeated) this.#ambiguous = true;
    return response;
  }

  /** The body, or `undefined` where it broke off. */
  async #read(response: Response): Promise<ArrayBuffer | undefined> {
    const bytes = await this.#http.read(response);
    if (bytes !== 'more') return bytes;
    return this.#misdelivered('more', bytesOf(this.#request, response.status) ?? 0);
  }

  async #misdelivered(got: number | 'more', quoted: number): Promise<never> {
    const error = badDelivery(got, quoted);
    await this.#payment?.misdelivered(error);
    throw error;
  }

  #requireNoPause(): void {
    if (this.#desk.pause.why !== undefined) throw new Paused();
  }

  #ceiling(): bigint | undefined {
    return ceilingOf(this.#request, this.#desk.spending.maxPerMb);
  }

  get #isSigned(): boolean {
    return this.#payment?.header !== undefined;
  }
}
