import type { Channel } from './channel';
import { PaymentError } from '../x402/errors';
import type { Hex, ChannelOffer } from '../x402/types';

/** A payment that may be presented again for the same bytes. */
export interface KeptPayment {
  /** URL, and range if any: the bytes it is for. */
  resource: string;
  channelId: Hex;
  identity: string;
  /** The value of its `PAYMENT-SIGNATURE` header. */
  header: string;
  /** The offer it pays; kept under its first name, so that older pages' payments are read. */
  terms: ChannelOffer;
  amount: bigint;
  ceiling: bigint;
  deposit: bigint;
  /** Milliseconds since 1970. */
  at: number;
  /** Whether the server has confirmed the charge. */
  charged: boolean;
}

/** A private key under a key that never leaves the browser. */
export interface SealedKey {
  address: Hex;
  iv: Uint8Array<ArrayBuffer>;
  sealed: ArrayBuffer;
  wrap: CryptoKey;
}

/** Keeps channels, payments, receipts and keys, so that a reload or a crash loses nothing. */
export interface ChannelStore {
  channel(id: Hex): Promise<Channel | undefined>;
  channels(): Promise<Channel[]>;
  /** Keep a channel and, with it, a payment; on return it is there, with `strict` on the disk. */
  keep(channel: Channel, payment?: KeptPayment, strict?: boolean): Promise<void>;
  payment(resource: string): Promise<KeptPayment | undefined>;
  /** Forget a payment, unless another has taken its place. */
  dropPayment(payment: KeptPayment): Promise<void>;
  /** The receipt that opens these bytes again. */
  token(resource: string): Promise<string | undefined>;
  keepToken(resource: string, token: string | undefined): Promise<void>;
  key(name: string): Promise<SealedKey | undefined>;
  keepKey(name: string, key: SealedKey): Promise<void>;
  /** Shut out whoever else uses it, here or in another tab, until the returned call. */
  lock(name: string, signal?: AbortSignal): Promise<() => void>;
}

const MOST_TOKENS = 20_000; // receipts: some 11 hours of segments

/** A store in memory, for as long as the page lives: for tests, and for money one can lose. */
export class MemoryStore implements ChannelStore {
  readonly #mostTokens: number;
  readonly #channels = new Map<Hex, Channel>();
  readonly #payments = new Map<string, KeptPayment>();
  readonly #tokens = new Map<string, string>();
  readonly #keys = new Map<string, SealedKey>();
  readonly #locks = new Map<string, Promise<void>>();

  constructor(mostTokens = MOST_TOKENS) {
    this.#mostTokens = mostTokens;
  }

  async channel(id: Hex): Promise<Channel | undefined> {
    return Promise.resolve(this.#channels.get(id));
  }

  async channels(): Promise<Channel[]> {
    return Promise.resolve([...this.#channels.values()]);
  }

  async keep(channel: Channel, payment?: KeptPayment): Promise<void> {
    this.#channels.set(channel.channelId, channel);
    if (payment) this.#payments.set(payment.resource, payment);
    return Promise.resolve();
  }

  async payment(resource: string): Promise<KeptPayment | undefined> {
    return Promise.resolve(this.#payments.get(resource));
  }

  async dropPayment(payment: KeptPayment): Promise<void> {
    if (this.#payments.get(payment.resource)?.identity === payment.identity) {
      this.#payments.delete(payment.resource);
    }
    return Promise.resolve();
  }

  async token(resource: string): Promise<string | undefined> {
    return Promise.resolve(this.#tokens.get(resource));
  }

  async keepToken(resource: string, token: string | undefined): Promise<void> {
    this.#tokens.delete(resource);
    if (token !== undefined) this.#tokens.set(resource, token);
    for (const oldest of this.#tokens.keys()) {
      if (this.#tokens.size <= this.#mostTokens) break;
      this.#tokens.delete(oldest);
    }
    return Promise.resolve();
  }

  async key(name: string): Promise<SealedKey | undefined> {
    return Promise.resolve(this.#keys.get(name));
  }

  async keepKey(name: string, key: SealedKey): Promise<void> {
    this.#keys.set(name, key);
    return Promise.resolve();
  }

  async lock(name: string, signal?: AbortSignal): Promise<() => void> {
    const before = this.#locks.get(name) ?? Promise.resolve();
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    this.#locks.set(
      name,
      before.then(async () => held),
    );
    try {
      await unlessAborted(before, signal);
    } catch (error) {
      release();
      throw error;
    }
    return release;
  }
}

const KEPT_FOR = 600_000; // milliseconds after which no server serves anything for a payment

const STORES = ['channels', 'payments', 'tokens', 'keys'] as const;
type StoreName = (typeof STORES)[number];

/** A store in IndexedDB; tabs of one origin take turns by the Web Locks API. */
export class IndexedDbStore implements ChannelStore {
  readonly #name: string;
  readonly #mostTokens: number;
  #database: Promise<IDBDatabase> | undefined;

  constructor(name = 'xbyte-hls', mostTokens = MOST_TOKENS) {
    this.#name = name;
    this.#mostTokens = mostTokens;
  }

  async channel(id: Hex): Promise<Channel | undefined> {
    return this.#get<Channel>('channels', id);
  }

  async channels(): Promise<Channel[]> {
    return this.#read('channels', (stored) => stored.getAll() as IDBRequest<Channel[]>);
  }

  async keep(channel: Channel, payment?: KeptPayment, strict = false): Promise<void> {
    if (strict) askToStay();
    await this.#write(
      payment ? ['channels', 'payments'] : ['channels'],
      (transaction) => {
        transaction.objectStore('channels').put(channel, channel.channelId);
        if (payment) transaction.objectStore('payments').put(payment, payment.resource);
      },
      strict,
    );
  }

  async payment(resource: string): Promise<KeptPayment | undefined> {
    return this.#get<KeptPayment>('payments', resource);
  }

  async dropPayment(payment: KeptPayment): Promise<void> {
    await this.#write(['payments'], (transaction) => {
      const payments = transaction.objectStore('payments');
      const found = payments.get(payment.resource) as IDBRequest<KeptPayment | undefined>;
      found.onsuccess = () => {
        if (found.result?.identity === payment.identity) payments.delete(payment.resource);
      };
    });
  }

  async token(resource: string): Promise<string | undefined> {
    const kept = await this.#get<KeptToken>('tokens', resource);
    return typeof kept === 'string' ? kept : kept?.token;
  }

  async keepToken(resource: string, token: string | undefined): Promise<void> {
    await this.#write(['tokens'], (transaction) => {
      const tokens = transaction.objectStore('tokens');
      if (token === undefined) tokens.delete(resource);
      else tokens.put({ token, at: Date.now() }, resource);
    });
  }

  async key(name: string): Promise<SealedKey | undefined> {
    return this.#get<SealedKey>('keys', name);
  }

  async keepKey(name: string, key: SealedKey): Promise<void> {
    await this.#write(['keys'], (transaction) => transaction.objectStore('keys').put(key, name), true);
  }

  async lock(name: string, signal?: AbortSignal): Promise<() => void> {
    return new Promise((resolve, reject) => {
      const options = signal ? { signal } : {};
      navigator.locks
        .request(
          `${this.#name}:${name}`,
          options,
          async () => new Promise<void>((release) => resolve(release)),
        )
        .catch(reject);
    });
  }

  async #get<T>(store: StoreName, key: string): Promise<T | undefined> {
    return this.#read(store, (stored) => stored.get(key) as IDBRequest<T | undefined>);
  }

  async #read<T>(store: StoreName, ask: (stored: IDBObjectStore) => IDBRequest<T>): Promise<T> {
    const database = await this.#open();
    return usable(async () => done(ask(database.transaction(store).objectStore(store))));
  }

  async #write(
    stores: StoreName[],
    work: (transaction: IDBTransaction) => void,
    strict = false,
  ): Promise<void> {
    const database = await this.#open();
    const durability = strict ? 'strict' : 'relaxed';
    await usable(async () => {
      const transaction = database.transaction(stores, 'readwrite', { durability });
      const kept = new Promise<void>((resolve, reject) => {
        transaction.oncomplete = () => resolve();
        transaction.onabort = transaction.onerror = () => reject(unusable(transaction.error));
      });
      try {
        work(transaction);
      } catch (error) {
        kept.catch(() => undefined);
        transaction.abort(); // all of it is kept, or nothing
        throw error;
      }
      await kept;
    });
  }

  async #open(): Promise<IDBDatabase> {
    this.#database ??= new Promise<IDBDatabase>((resolve, reject) => {
      const opening = indexedDB.open(this.#name, 1);
      opening.onupgradeneeded = () => {
        for (const store of STORES) opening.result.createObjectStore(store);
      };
      opening.onsuccess = () => {
        opening.result.onversionchange = opening.result.onclose = () => {
          opening.result.close();
          this.#database = undefined;
        };
        forgetOld(opening.result);
        prune(opening.result, this.#mostTokens);
        resolve(opening.result);
      };
      opening.onerror = () => reject(unusable(opening.error));
    }).catch((error: unknown) => {
      this.#database = undefined;
      throw error instanceof PaymentError ? error : unusable(error);
    });
    return this.#database;
  }
}

/** The result of `promise`, unless `signal` is aborted first. */
export async function unlessAborted<T>(promise: Promise<T>, signal?: AbortSignal): Promise<T> {
  if (!signal) return promise;
  signal.throwIfAborted();
  let stop = (): void => undefined;
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason as Error);
    signal.addEventListener('abort', stop, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** Delete payments that are too old for a server to re-serve. */
function forgetOld(database: IDBDatabase): void {
  const walking = database.transaction('payments', 'readwrite').objectStore('payments').openCursor();
  walking.onsuccess = () => {
    const cursor = walking.result;
    if (!cursor) return;
    if ((cursor.value as KeptPayment).at < Date.now() - KEPT_FOR) cursor.delete();
    cursor.continue();
  };
}

/** A receipt as it is kept; the first of them were kept without their time. */
type KeptToken = string | { token: string; at: number };

/** Forget the oldest receipts where there are more than may be. */
function prune(database: IDBDatabase, most: number): void {
  const tokens = database.transaction('tokens', 'readwrite').objectStore('tokens');
  const counting = tokens.count();
  counting.onsuccess = () => {
    if (counting.result <= most) return;
    const found: { key: IDBValidKey; at: number }[] = [];
    const walking = tokens.openCursor();
    walking.onsuccess = () => {
      const cursor = walking.result;
      if (cursor) {
        const kept = cursor.value as KeptToken;
        found.push({ key: cursor.key, at: typeof kept === 'string' ? 0 : kept.at });
        cursor.continue();
        return;
      }
      found.sort((a, b) => a.at - b.at);
      for (const { key } of found.slice(0, found.length - most)) tokens.delete(key);
    };
  };
}

/** Ask the browser not to evict the database when space is short. */
function askToStay(): void {
  const { storage } = navigator as { storage?: Partial<StorageManager> };
  storage?.persist?.().catch(() => undefined);
}

async function done<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(unusable(request.error));
  });
}

/** Run `work` and turn what it throws into a `PaymentError`. */
async function usable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw error instanceof PaymentError ? error : unusable(error);
  }
}

function unusable(error: unknown): PaymentError {
  const why = error instanceof Error ? `: ${error.message}` : '';
  return new PaymentError('storage', `this browser does not let the page keep its channel${why}`);
}
