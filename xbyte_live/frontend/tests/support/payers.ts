import { generatePrivateKey } from 'viem/accounts';
import { BurnerWallet } from '../../src/lib/wallets/burner';
import { PaymentError } from '../../src/lib/x402/errors';
import { SigningKey } from '../../src/lib/wallets/keys';
import { Payer, type PayerOptions } from '../../src/lib/payer/payer';
import { MemoryStore } from '../../src/lib/channel/store';
import type { PayerEvents } from '../../src/lib/payer/types';
import type { Wallet } from '../../src/lib/wallets/wallet';
import type { Hex, TypedData } from '../../src/lib/x402/types';
import { CHAIN, Shop } from './shop';

/** A wallet that asks, and what it was asked. */
export class AskingWallet implements Wallet {
  readonly kind = 'injected';
  readonly name = 'Asking';
  readonly asked: TypedData[] = [];
  rejects = false;
  holds = 10_000_000n;
  chain = CHAIN;
  refusesChain = false;
  locked = false;
  /** What its chain knows of deposits, where it can be asked. */
  isUsed?: NonNullable<Wallet['isUsed']>;
  #inner = burner();
  readonly #listeners = new Set<(address: Hex) => void>();

  async address(): Promise<Hex> {
    if (this.locked) throw new PaymentError('no-wallet', 'locked', true);
    return this.#inner.address();
  }

  onAccount(changed: (address: Hex) => void): () => void {
    this.#listeners.add(changed);
    return () => this.#listeners.delete(changed);
  }

  /** Its owner chooses another account. */
  async change(tells = true): Promise<Hex> {
    this.#inner = burner();
    const address = await this.#inner.address();
    if (tells) for (const listener of this.#listeners) listener(address);
    return address;
  }

  async signTypedData(data: TypedData): Promise<Hex> {
    this.asked.push(data);
    if (this.rejects) throw new PaymentError('wallet-rejected', 'no', true);
    return this.#inner.signTypedData(data);
  }

  async chainId(): Promise<number> {
    return Promise.resolve(this.chain);
  }

  async switchChain(id: number): Promise<void> {
    if (this.refusesChain) throw new PaymentError('wrong-network', 'not this one', true);
    this.chain = id;
    return Promise.resolve();
  }

  async balance(): Promise<bigint> {
    return Promise.resolve(this.holds);
  }
}

export function burner(): BurnerWallet {
  return new BurnerWallet(new SigningKey(generatePrivateKey()));
}

const QUICK = { firstWait: 1, longestWait: 5, pending: 2000, firstByte: 500, grace: 50, tries: 4 };

type Told = { [K in keyof PayerEvents]: { type: K; detail: PayerEvents[K] } }[keyof PayerEvents];

export interface Setup {
  shop: Shop;
  payer: Payer;
  store: MemoryStore;
  wallet: Wallet;
  told: Told[];
  of: <K extends keyof PayerEvents>(type: K) => PayerEvents[K][];
}

/** A shop and a payer that does not know it yet. */
export function setUp(options: Partial<PayerOptions> = {}, shop = new Shop()): Setup {
  const store = (options.store as MemoryStore | undefined) ?? new MemoryStore();
  const wallet = options.wallet ?? burner();
  const payer = new Payer({
    budget: { total: 1_000_000n },
    fetch: shop.fetch,
    patience: QUICK,
    ...options,
    store,
    wallet: 'wallet' in options ? options.wallet : wallet,
  });
  const told: Told[] = [];
  const types = ['spend', 'cap', 'topup-needed', 'deposit', 'error', 'resume', 'budget'] as const;
  for (const type of types) {
    payer.addEventListener(type, (event: CustomEvent<unknown>) => {
      told.push({ type, detail: event.detail } as Told);
    });
  }
  const of = <K extends keyof PayerEvents>(type: K): PayerEvents[K][] =>
    told.filter((one) => one.type === type).map((one) => one.detail as PayerEvents[K]);
  return { shop, payer, store, wallet, told, of };
}

/** Resolves once `test` holds. */
export async function until(test: () => boolean): Promise<void> {
  for (let tries = 0; !test(); tries += 1) {
    if (tries > 2000) throw new Error('it never came to that');
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}
