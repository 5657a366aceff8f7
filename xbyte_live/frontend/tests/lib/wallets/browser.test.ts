import { beforeAll, describe, expect, it, vi } from 'vitest';
import { recoverTypedDataAddress } from 'viem/utils';
import { BurnerWallet } from '../../../src/lib/wallets/burner';
import { newChannel } from '../../../src/lib/channel/channel';
import { InjectedWallet, injectedWallets, type Eip1193Provider } from '../../../src/lib/wallets/injected';
import { loadSigningKey } from '../../../src/lib/wallets/keys';
import { IndexedDbStore, MemoryStore, type ChannelStore } from '../../../src/lib/channel/store';
import { depositData } from '../../../src/lib/x402/typed_data';
import type { Chain } from '../../../src/lib/wallets/wallet';
import type { Hex } from '../../../src/lib/x402/types';
import { ASSET, CHAIN, NETWORK, Shop } from '../../support/shop';

const ID: Hex = `0x${'11'.repeat(32)}`;
const OWNER: Hex = '0x1111111111111111111111111111111111111111';
const CHANNEL = newChannel(ID, NETWORK, {
  payer: OWNER,
  payerAuthorizer: OWNER,
  receiver: OWNER,
  receiverAuthorizer: OWNER,
  token: ASSET,
  withdrawDelay: 900,
  salt: ID,
});
const PAYMENT = {
  resource: 'http://h/0.ts',
  channelId: ID,
  identity: 'a',
  header: 'h',
  terms: new Shop().terms(1n),
  amount: 1n,
  ceiling: 1n,
  deposit: 0n,
  at: 1,
  charged: false,
};

const stores: [string, () => ChannelStore][] = [
  ['memory', () => new MemoryStore()],
  ['IndexedDB', () => new IndexedDbStore(`test-${Math.random()}`)],
];

describe.each(stores)('a store in %s', (_, make) => {
  it('keeps channels and payments', async () => {
    const store = make();
    expect(await store.channel(ID)).toBeUndefined();
    await store.keep({ ...CHANNEL, charged: 5n }, PAYMENT, true);
    expect(await store.channel(ID)).toEqual({ ...CHANNEL, charged: 5n });
    expect(await store.channels()).toHaveLength(1);
    expect(await store.payment(PAYMENT.resource)).toEqual(PAYMENT);
    await store.dropPayment({ ...PAYMENT, identity: 'another' });
    expect(await store.payment(PAYMENT.resource)).toEqual(PAYMENT);
    await store.dropPayment(PAYMENT);
    expect(await store.payment(PAYMENT.resource)).toBeUndefined();
    await store.keepToken('r', 't');
    expect(await store.token('r')).toBe('t');
    await store.keepToken('r', undefined);
    expect(await store.token('r')).toBeUndefined();
  });

  it('locks in turn, and lets one go that does not want to wait', async () => {
    const store = make();
    const release = await store.lock('a');
    const abort = new AbortController();
    const waiting = store.lock('a', abort.signal);
    const order: string[] = [];
    const last = store.lock('a').then((free) => {
      order.push('last');
      free();
    });
    abort.abort();
    await expect(waiting).rejects.toThrow();
    order.push('first');
    release();
    await last;
    expect(order).toEqual(['first', 'last']);
  });

  it('keeps a key that nobody can read, one for all tabs', async () => {
    const store = make();
    const [one, other] = await Promise.all([loadSigningKey(store, 'k'), loadSigningKey(store, 'k')]);
    expect(one.address).toBe(other.address);
    const kept = await store.key('k');
    if (!kept) throw new Error('there is no key');
    expect(kept.wrap.extractable).toBe(false);
    await expect(crypto.subtle.exportKey('raw', kept.wrap)).rejects.toThrow();
    expect((await loadSigningKey(store, 'other')).address).not.toBe(one.address);
  });
});

it('keeps no more receipts than it may, the newest', async () => {
  const memory = new MemoryStore(5);
  for (let n = 0; n < 9; n += 1) await memory.keepToken(`r${n}`, `t${n}`);
  expect(await memory.token('r3')).toBeUndefined();
  expect(await memory.token('r4')).toBe('t4');
  const name = `pruned-${Math.random()}`;
  const first = new IndexedDbStore(name, 5);
  await first.keep(CHANNEL);
  for (let n = 0; n < 9; n += 1) await first.keepToken(`r${n}`, `t${n}`);
  const since = new IndexedDbStore(name, 5);
  await vi.waitFor(async () => expect(await since.token('r3')).toBeUndefined());
  for (const n of [4, 5, 6, 7, 8]) expect(await since.token(`r${n}`)).toBe(`t${n}`);
  expect(await since.channel(ID)).toEqual(CHANNEL);
});

it('finds the same burner again', async () => {
  const store = new IndexedDbStore('burner');
  const first = await (await BurnerWallet.load(store)).address();
  expect(await (await BurnerWallet.load(new IndexedDbStore('burner'))).address()).toBe(first);
});

describe('an injected wallet', () => {
  const asked: { method: string; params?: unknown }[] = [];
  let answers: Record<string, unknown>;
  const provider: Eip1193Provider = {
    request: async (call) => {
      asked.push(call);
      const answer = answers[call.method];
      if (answer instanceof Error) throw answer;
      return Promise.resolve(answer);
    },
  };
  const failing = (code: number): Error => Object.assign(new Error('no'), { code });
  const data = depositData(
    { address: ASSET, name: 'USDC', version: '2', chainId: CHAIN },
    { payer: OWNER, channelId: ID, amount: 7n, validBefore: 9, salt: ID },
  );
  beforeAll(() => {
    Object.assign(globalThis, {
      addEventListener: window_.addEventListener.bind(window_),
      removeEventListener: window_.removeEventListener.bind(window_),
      dispatchEvent: window_.dispatchEvent.bind(window_),
    });
  });
  const window_ = new EventTarget();

  it('signs typed data that any wallet understands', async () => {
    const burner = await BurnerWallet.load(new MemoryStore());
    const signature = await burner.signTypedData(data);
    answers = { eth_accounts: [OWNER], eth_signTypedData_v4: signature };
    expect(await new InjectedWallet(provider).signTypedData(data)).toBe(signature);
    const [account, text] = asked.at(-1)?.params as [string, string];
    expect(account).toBe(OWNER);
    const document = JSON.parse(text) as Parameters<typeof recoverTypedDataAddress>[0];
    const signer = await recoverTypedDataAddress({ ...document, signature });
    expect(signer.toLowerCase()).toBe(await burner.address());
  });

  it('may end a signature in 0 or 1', async () => {
    answers = { eth_accounts: [OWNER], eth_signTypedData_v4: `0x${'ab'.repeat(64)}01` };
    expect((await new InjectedWallet(provider).signTypedData(data)).slice(-2)).toBe('1c');
  });

  it('tells of another account, and not of being locked', () => {
    const listeners = new Map<string, (value: unknown) => void>();
    const wallet = new InjectedWallet({
      ...provider,
      on: (event, listener) => listeners.set(event, listener),
      removeListener: (event) => listeners.delete(event),
    });
    const heard: string[] = [];
    const stop = wallet.onAccount((address) => heard.push(address));
    for (const accounts of [[OWNER.toUpperCase().replace('0X', '0x')], [], 'x', [5]]) {
      listeners.get('accountsChanged')?.(accounts);
    }
    expect(heard).toEqual([OWNER]);
    stop();
    expect(listeners.size).toBe(0);
  });

  it('says no in plain words', async () => {
    const wallet = new InjectedWallet(provider);
    answers = { eth_accounts: [OWNER], eth_signTypedData_v4: failing(4001) };
    await expect(wallet.signTypedData(data)).rejects.toMatchObject({ code: 'wallet-rejected' });
    answers = { eth_accounts: [], eth_requestAccounts: [] };
    await expect(wallet.address()).rejects.toMatchObject({ code: 'no-wallet' });
    answers = { wallet_switchEthereumChain: failing(-32603) };
    await expect(wallet.switchChain(5)).rejects.toMatchObject({ code: 'wrong-network' });
    answers = { wallet_switchEthereumChain: failing(4001) };
    await expect(wallet.switchChain(5)).rejects.toMatchObject({ code: 'wallet-rejected' });
    answers = { eth_accounts: [OWNER], eth_call: `0x${'0'.repeat(62)}2a`, eth_chainId: '0x14a34' };
    expect(await wallet.balance(ASSET)).toBe(42n);
    expect(await wallet.isUsed(ASSET, OWNER, ID)).toBe(true);
    expect(asked.at(-1)?.params).toEqual([
      { to: ASSET, data: `0xe94a0102${OWNER.slice(2).padStart(64, '0')}${ID.slice(2)}` },
      'latest',
    ]);
    answers.eth_call = `0x${'0'.repeat(64)}`;
    expect(await wallet.isUsed(ASSET, OWNER, ID)).toBe(false);
    expect(await wallet.chainId()).toBe(CHAIN);
  });

  describe('that does not know the network', () => {
    const chain: Chain = { id: CHAIN, name: 'Test chain', rpcUrls: ['http://127.0.0.1:8545'] };
    const unknown = failing(4902);
    const wrapped = Object.assign(failing(-32603), { data: { originalError: { code: 4902 } } });

    /** One that adds networks, unless told otherwise. */
    class Stranger implements Eip1193Provider {
      readonly asked: { method: string; params?: unknown }[] = [];
      chain = 1;
      readonly #knows = new Set([1]);
      constructor(
        private readonly says: Error,
        private readonly adding: Error | 'adds' | 'adds and switches' = 'adds',
      ) {}

      async request(call: { method: string; params?: unknown }): Promise<unknown> {
        this.asked.push(call);
        if (call.method === 'eth_chainId') return Promise.resolve(`0x${this.chain.toString(16)}`);
        const [{ chainId }] = call.params as [{ chainId: string }];
        if (call.method === 'wallet_addEthereumChain') {
          if (this.adding instanceof Error) throw this.adding;
          this.#knows.add(Number(chainId));
          if (this.adding === 'adds and switches') this.chain = Number(chainId);
        } else {
          if (!this.#knows.has(Number(chainId))) throw this.says;
          this.chain = Number(chainId);
        }
        return Promise.resolve(null);
      }

      get added(): unknown[] {
        return this.asked.filter(({ method }) => method === 'wallet_addEthereumChain');
      }
    }
    const wallet = (provider: Stranger, ...chains: Chain[]): InjectedWallet =>
      new InjectedWallet(provider, 'Stranger', '', chains);

    it.each([
      [unknown, 'adds'],
      [unknown, 'adds and switches'],
      [wrapped, 'adds'],
    ] as const)('is told of it, and switched (%o, %s)', async (says, adding) => {
      const provider = new Stranger(says, adding);
      const stranger = wallet(provider, { ...chain, id: 5, name: 'Another' }, chain);
      await stranger.switchChain(CHAIN);
      expect(await stranger.chainId()).toBe(CHAIN);
      expect(provider.added).toEqual([
        {
          method: 'wallet_addEthereumChain',
          params: [
            {
              chainId: '0x14a34',
              chainName: 'Test chain',
              rpcUrls: ['http://127.0.0.1:8545'],
              nativeCurrency: { name: 'Ether', symbol: 'ETH', decimals: 18 },
            },
          ],
        },
      ]);
    });

    it('is told what its gas is paid in', async () => {
      const provider = new Stranger(unknown);
      const currency = { name: 'Avalanche', symbol: 'AVAX', decimals: 18 };
      await wallet(provider, { ...chain, currency }).switchChain(CHAIN);
      expect(provider.added).toMatchObject([{ params: [{ nativeCurrency: currency }] }]);
    });

    it('is told of none that nothing is known of, and its owner which to add', async () => {
      for (const chains of [[], [{ ...chain, rpcUrls: [] }]]) {
        const provider = new Stranger(unknown);
        const asked = wallet(provider, ...chains).switchChain(CHAIN);
        await expect(asked).rejects.toMatchObject({ code: 'unknown-network', retryable: true });
        await expect(asked).rejects.toThrow(/by hand \(chain id 84532\)/);
        expect(provider.added).toEqual([]);
      }
      const named = wallet(new Stranger(unknown), { ...chain, rpcUrls: [] }).switchChain(CHAIN);
      await expect(named).rejects.toThrow('does not know Test chain');
    });

    it('may be kept from adding it, and may not be able to', async () => {
      const kept = wallet(new Stranger(unknown, failing(4001)), chain).switchChain(CHAIN);
      await expect(kept).rejects.toMatchObject({ code: 'wallet-rejected' });
      for (const code of [4200, -32601, -32602]) {
        const cannot = wallet(new Stranger(unknown, failing(code)), chain).switchChain(CHAIN);
        await expect(cannot).rejects.toMatchObject({ code: 'unknown-network' });
      }
    });
  });

  it('tells the wallets it finds of the networks it is given', async () => {
    const provider = { request: async () => Promise.reject(failing(4902)) };
    vi.stubGlobal('ethereum', provider);
    try {
      const chains = [{ id: 5, name: 'Five', rpcUrls: [] }];
      const [found] = await injectedWallets({ within: 1, chains });
      await expect(found?.switchChain(5)).rejects.toThrow('does not know Five');
    } finally {
      vi.unstubAllGlobals();
    }
  });

  it('announces itself', async () => {
    expect(await injectedWallets({ within: 1 })).toEqual([]);
    window_.addEventListener('eip6963:requestProvider', () => {
      for (const uuid of ['a', 'b', 'a']) {
        const info = { uuid, name: `Wallet ${uuid}`, icon: 'javascript:', rdns: 'x' };
        const detail = { info, provider };
        window_.dispatchEvent(new CustomEvent('eip6963:announceProvider', { detail }));
      }
    });
    const found = await injectedWallets({ within: 1 });
    expect(found.map((wallet) => wallet.name)).toEqual(['Wallet a', 'Wallet b']);
    expect(found[0]?.icon).toBe('');
  });
});

describe('what IndexedDB throws at once', () => {
  const failing = { code: 'storage', name: 'PaymentError' };
  const closing = (): never => {
    throw new DOMException('the connection is closing', 'InvalidStateError');
  };

  it('is told in plain words', async () => {
    const store = new IndexedDbStore(`closing-${Math.random()}`);
    await store.keep(CHANNEL);
    vi.spyOn(IDBDatabase.prototype, 'transaction').mockImplementation(closing);
    try {
      await expect(store.channel(ID)).rejects.toMatchObject(failing);
      await expect(store.channels()).rejects.toMatchObject(failing);
      await expect(store.keep(CHANNEL)).rejects.toMatchObject(failing);
    } finally {
      vi.restoreAllMocks();
    }
    expect(await store.channel(ID)).toEqual(CHANNEL);
  });

  it('keeps nothing of what is kept together', async () => {
    const store = new IndexedDbStore(`together-${Math.random()}`);
    await store.keep(CHANNEL);
    const broken = { ...PAYMENT, terms: { ...PAYMENT.terms, extra: { get: () => 1 } } };
    const kept = store.keep({ ...CHANNEL, charged: 5n }, broken as unknown as typeof PAYMENT);
    await expect(kept).rejects.toMatchObject(failing);
    expect(await store.channel(ID)).toEqual(CHANNEL);
  });
});
