import { Body } from './body';
import { bytesOf, MOST_BYTES } from './price_limit';
import { PaymentError } from '../x402/errors';
import { discard, lengthOf, tooLarge } from '../http';
import { unlessAborted } from '../channel/store';
import type { PaidRequest } from './types';
import { retryAfter } from '../x402/wire';

const UNDECIDED = new Set([425, 429, 500, 502, 503, 504]); // says nothing about the payment

const MOST_TOLD = 2 ** 23; // bytes made room for on the word of a server alone

/** How long one payment is presented again while its outcome is unknown; in milliseconds. */
export interface Patience {
  /** How often it may go wrong without a word on when to come back. */
  tries: number;
  firstWait: number;
  longestWait: number;
  /** How long to wait in all where the server says when. */
  pending: number;
  /** How long an answer may take to begin. */
  firstByte: number;
  /** How long nothing may come of a body that has begun. */
  nextBytes: number;
  /** How long an aborted request may still take to tell whether it was charged. */
  grace: number;
}

export const PATIENCE: Patience = {
  tries: 8,
  firstWait: 200,
  longestWait: 10_000,
  pending: 100_000,
  firstByte: 15_000,
  nextBytes: 15_000,
  grace: 4_000,
};

/** The function that sends requests, and how long they may take. */
export interface HttpClient {
  fetch: typeof fetch;
  patience: Patience;
}

/** The header that pays for a request, or opens it: a payment, a receipt or neither. */
export interface Credentials {
  payment?: string | undefined;
  receipt?: string | undefined;
}

/** A response that decides on a payment; `repeated` where others before it did not. */
export interface FinalResponse {
  response: Response;
  repeated: boolean;
}

/** One request, sent again until a response decides on its payment. */
export class RetryingRequest {
  readonly #http: HttpClient;
  readonly #url: string;
  readonly #request: PaidRequest;
  readonly #wire = new AbortController();
  #failures = 0;
  #unguided = 0;
  #waited = 0;

  constructor(http: HttpClient, url: string, request: PaidRequest) {
    this.#http = http;
    this.#url = url;
    this.#request = request;
  }

  /** Send it until an answer decides; throws `PaymentError` where none does in time. */
  async ask(key: Credentials): Promise<FinalResponse> {
    const headers = new Headers();
    if (key.payment !== undefined) headers.set('payment-signature', key.payment);
    else if (key.receipt !== undefined) headers.set('xbyte-receipt', key.receipt);
    if (this.#request.range) headers.set('range', this.#request.range);
    for (let repeated = false; ; repeated = true) {
      const response = await this.#send(headers, key.payment !== undefined);
      if (response && !UNDECIDED.has(response.status)) return { response, repeated };
      if (response) await discard(response);
      const said = response ? `said ${response.status}` : 'does not answer';
      await this.wait(`the server ${said}`, response);
    }
  }

  /** The body; `undefined` where it broke off, `more` where it is longer than it may be. */
  async read(response: Response): Promise<ArrayBuffer | 'more' | undefined> {
    const { onHeaders, onProgress, signal } = this.#request;
    const total = lengthOf(response);
    onHeaders?.(response, total);
    const size = bytesOf(this.#request, response.status);
    const body = new Body(size ?? Math.min(total, MOST_TOLD), size ?? MOST_BYTES);
    let held = true;
    const reader = response.body?.getReader();
    try {
      while (reader) {
        const { done, value } = await this.#next(reader, signal);
        if (done) break;
        held = body.add(value);
        if (!held) break;
        onProgress?.(body.length, total, value);
      }
    } catch {
      reader?.cancel().catch(() => undefined);
      signal?.throwIfAborted();
      return undefined;
    }
    if (!held) {
      reader?.cancel().catch(() => undefined);
      if (size === undefined) throw tooLarge();
      return 'more';
    }
    return body.length < total ? undefined : body.bytes();
  }

  /** Wait before it is sent again; throws `PaymentError` where that was often enough. */
  async wait(what: string, response?: Response): Promise<void> {
    const { patience } = this.#http;
    const said = response && retryAfter(response.headers);
    this.#failures += 1;
    if (said === undefined) this.#unguided += 1;
    const wait = said
      ? said * 1000
      : Math.min(patience.firstWait * 2 ** (this.#failures - 1), patience.longestWait);
    if (this.#unguided >= patience.tries || this.#waited + wait > patience.pending) {
      const code = response?.status === 503 ? 'pending' : 'unreachable';
      throw new PaymentError(code, `${what}; the same payment is good again later`, true);
    }
    this.#waited += wait;
    await this.sleep(wait);
  }

  async sleep(milliseconds: number): Promise<void> {
    const timer = new Promise((resolve) => setTimeout(resolve, milliseconds));
    await unlessAborted(timer, this.#wire.signal);
  }

  /** Its caller has left: be done at once, or within a grace that is left to be told of a charge. */
  leave(paid: boolean): void {
    if (paid) setTimeout(() => this.#wire.abort(), this.#http.patience.grace);
    else this.#wire.abort();
  }

  /** The next chunk of a body; throws where none comes in time. */
  async #next(
    reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>,
    signal: AbortSignal | undefined,
  ): Promise<ReadableStreamReadResult<Uint8Array<ArrayBuffer>>> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const silence = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('nothing comes')), this.#http.patience.nextBytes);
    });
    try {
      return await unlessAborted(Promise.race([reader.read(), silence]), signal);
    } finally {
      clearTimeout(timer);
    }
  }

  /** Send it once; no answer is `undefined`. */
  async #send(headers: Headers, pays: boolean): Promise<Response | undefined> {
    const { signal } = this.#wire;
    const one = new AbortController();
    signal.throwIfAborted();
    signal.addEventListener('abort', () => one.abort());
    const timer = setTimeout(() => one.abort(), this.#http.patience.firstByte);
    if (!this.#request.signal?.aborted) this.#request.onStart?.();
    try {
      return await this.#http.fetch(this.#url, {
        headers,
        cache: pays ? 'no-store' : 'default',
        redirect: pays ? 'error' : 'follow',
        signal: one.signal,
      });
    } catch {
      signal.throwIfAborted();
      return undefined;
    } finally {
      clearTimeout(timer);
    }
  }
}
