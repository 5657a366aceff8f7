import { PaymentError } from '../x402/errors';
import { balanceCall, readNumber, usedCall, type ContractCall } from './rpc';
import type { Chain, Wallet } from './wallet';
import type { Hex, TypedData } from '../x402/types';

const ANNOUNCED_WITHIN = 120; // milliseconds
const REJECTED = 4001;
const UNKNOWN_CHAIN = 4902;
const ETHER = { name: 'Ether', symbol: 'ETH', decimals: 18 };
const DOMAIN = [
  { name: 'name', type: 'string' },
  { name: 'version', type: 'string' },
  { name: 'chainId', type: 'uint256' },
  { name: 'verifyingContract', type: 'address' },
];

/** A wallet's provider (EIP-1193). */
export interface Eip1193Provider {
  request(call: { method: string; params?: unknown }): Promise<unknown>;
  on?(event: string, listener: (value: unknown) => void): unknown;
  removeListener?(event: string, listener: (value: unknown) => void): unknown;
}

interface Announcement {
  info: { uuid: string; name: string; icon: string; rdns: string };
  provider: Eip1193Provider;
}

/** A wallet that its owner brought along (EIP-1193); it asks them before it signs. */
export class InjectedWallet implements Wallet {
  readonly kind = 'injected';
  readonly name: string;
  /** A `data:` URL, empty where there is none. */
  readonly icon: string;
  readonly #provider: Eip1193Provider;
  readonly #chains: readonly Chain[];

  /** `chains` are those that the wallet is told of where it does not know them. */
  constructor(
    provider: Eip1193Provider,
    name = 'Browser wallet',
    icon = '',
    chains: readonly Chain[] = [],
  ) {
    this.#provider = provider;
    this.name = name;
    this.icon = icon;
    this.#chains = chains;
  }

  async address(): Promise<Hex> {
    const known = await this.#ask('eth_accounts');
    const accounts = isList(known) ? known : await this.#ask('eth_requestAccounts');
    const address = firstOf(accounts);
    if (!address) {
      throw new PaymentError('no-wallet', 'the wallet shows no account to this page', true);
    }
    return address;
  }

  /** A wallet that is only locked does not count as changed. */
  onAccount(changed: (address: Hex) => void): () => void {
    const heard = (accounts: unknown): void => {
      const address = firstOf(accounts);
      if (address) changed(address);
    };
    this.#provider.on?.('accountsChanged', heard);
    return () => void this.#provider.removeListener?.('accountsChanged', heard);
  }

  async signTypedData(data: TypedData): Promise<Hex> {
    const document = { ...data, types: { EIP712Domain: DOMAIN, ...data.types } };
    const text = JSON.stringify(document, (_, value: unknown) =>
      typeof value === 'bigint' ? value.toString() : value,
    );
    const signature = await this.#ask('eth_signTypedData_v4', [await this.address(), text]);
    if (typeof signature !== 'string' || !/^0x([0-9a-fA-F]{2}){65,4096}$/.test(signature)) {
      throw new PaymentError('wallet-failed', 'the wallet answered with no signature', true);
    }
    return recoverable(signature as Hex);
  }

  async chainId(): Promise<number> {
    return Number(await this.#ask('eth_chainId'));
  }

  /**
   * Have its owner switch it to a network, and add that first where the wallet does not know it.
   *
   * Throws `PaymentError`: `wallet-rejected`, `wrong-network`, or `unknown-network` where nothing
   * is known here that would let the wallet add it.
   */
  async switchChain(id: number): Promise<void> {
    const chainId = `0x${id.toString(16)}`;
    try {
      await this.#switch(chainId, id);
    } catch (error) {
      if (!(error instanceof PaymentError) || error.code !== 'unknown-network') throw error;
      await this.#add(chainId, id);
      await this.#switch(chainId, id); // some wallets only add it
    }
  }

  async #switch(chainId: string, id: number): Promise<void> {
    try {
      await this.#ask('wallet_switchEthereumChain', [{ chainId }]);
    } catch (error) {
      if (error instanceof PaymentError && error.code === 'wallet-rejected') throw error;
      if (error instanceof PaymentError && error.code === 'unknown-network') throw this.#unknown(id);
      throw new PaymentError(
        'wrong-network',
        `the wallet must be switched to the network with chain id ${id}`,
        true,
      );
    }
  }

  /** Have its owner add a network (EIP-3085). */
  async #add(chainId: string, id: number): Promise<void> {
    const chain = this.#chains.find((one) => one.id === id);
    if (!chain || chain.rpcUrls.length === 0) throw this.#unknown(id);
    const { name: chainName, rpcUrls, currency: nativeCurrency = ETHER } = chain;
    try {
      await this.#ask('wallet_addEthereumChain', [{ chainId, chainName, rpcUrls, nativeCurrency }]);
    } catch (error) {
      if (error instanceof PaymentError && error.code === 'wallet-rejected') throw error;
      throw this.#unknown(id);
    }
  }

  #unknown(id: number): PaymentError {
    const name = this.#chains.find((one) => one.id === id)?.name ?? 'the network';
    const what = `the wallet does not know ${name}: add it there by hand (chain id ${id})`;
    return new PaymentError('unknown-network', what, true);
  }

  async balance(asset: Hex): Promise<bigint> {
    return this.#call(balanceCall(asset, await this.address()));
  }

  async isUsed(asset: Hex, authorizer: Hex, nonce: Hex): Promise<boolean> {
    return (await this.#call(usedCall(asset, authorizer, nonce))) > 0n;
  }

  async #call(call: ContractCall): Promise<bigint> {
    return readNumber(await this.#ask('eth_call', [call, 'latest']));
  }

  async #ask(method: string, params?: unknown): Promise<unknown> {
    try {
      return await this.#provider.request(params === undefined ? { method } : { method, params });
    } catch (error) {
      throw walletError(error);
    }
  }
}

/** Options for finding wallets. */
export interface InjectedOptions {
  /** Networks to tell a wallet of that does not know them. */
  chains?: readonly Chain[];
  /** Milliseconds in which they announce themselves. */
  within?: number;
}

/** The wallets that announce themselves to this page (EIP-6963), else `window.ethereum`. */
export async function injectedWallets({
  chains = [],
  within = ANNOUNCED_WITHIN,
}: InjectedOptions = {}): Promise<InjectedWallet[]> {
  const found = new Map<string, InjectedWallet>();
  const heard = (event: Event): void => {
    const { info, provider } = (event as CustomEvent<Announcement>).detail;
    const icon = info.icon.startsWith('data:image/') ? info.icon : '';
    found.set(info.uuid, new InjectedWallet(provider, info.name.slice(0, 64), icon, chains));
  };
  globalThis.addEventListener('eip6963:announceProvider', heard);
  globalThis.dispatchEvent(new Event('eip6963:requestProvider'));
  await new Promise((resolve) => setTimeout(resolve, within));
  globalThis.removeEventListener('eip6963:announceProvider', heard);
  const { ethereum } = globalThis as { ethereum?: Eip1193Provider };
  if (found.size === 0 && ethereum) return [new InjectedWallet(ethereum, undefined, undefined, chains)];
  return [...found.values()];
}

/** The `PaymentError` for a refusal of a wallet. */
export function walletError(error: unknown): PaymentError {
  if (error instanceof PaymentError) return error;
  const { code, message, data } = (error ?? {}) as {
    code?: unknown;
    message?: unknown;
    data?: { originalError?: { code?: unknown } };
  };
  if (code === REJECTED || code === 'ACTION_REJECTED') {
    return new PaymentError('wallet-rejected', 'the wallet was not allowed to sign', true);
  }
  // some wallets wrap it in an internal error
  if (code === UNKNOWN_CHAIN || data?.originalError?.code === UNKNOWN_CHAIN) {
    return new PaymentError('unknown-network', 'the wallet does not know this network', true);
  }
  const why = typeof message === 'string' ? `: ${message.slice(0, 200)}` : '';
  return new PaymentError('wallet-failed', `the wallet failed${why}`, true);
}

/** Some wallets end a signature in 0 or 1 where tokens take 27 and 28 alone. */
function recoverable(signature: Hex): Hex {
  if (signature.length !== 132) return signature;
  const last = Number.parseInt(signature.slice(130), 16);
  return last < 2 ? `${signature.slice(0, 130) as Hex}${(last + 27).toString(16)}` : signature;
}

function firstOf(accounts: unknown): Hex | undefined {
  const address = isList(accounts) ? accounts[0] : undefined;
  if (typeof address !== 'string' || !/^0x[0-9a-fA-F]{40}$/.test(address)) return undefined;
  return address.toLowerCase() as Hex;
}

function isList(value: unknown): value is unknown[] {
  return Array.isArray(value) && value.length > 0;
}
