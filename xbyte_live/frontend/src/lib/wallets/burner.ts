import { PaymentError } from '../x402/errors';
import { type SigningKey, loadSigningKey } from './keys';
import { callNode, balanceCall, usedCall } from './rpc';
import { type ChannelStore, IndexedDbStore } from '../channel/store';
import { hashOf } from '../x402/typed_data';
import type { Wallet } from './wallet';
import type { Hex, TypedData } from '../x402/types';

/** A wallet of this browser alone, for test money: it signs whatever it is asked, silently. */
export class BurnerWallet implements Wallet {
  readonly kind = 'burner';
  readonly name = 'Burner wallet';
  readonly #key: SigningKey;
  #chainId = 0;

  constructor(key: SigningKey) {
    this.#key = key;
  }

  /** The burner of this browser, made if there is none. */
  static async load(store: ChannelStore = new IndexedDbStore()): Promise<BurnerWallet> {
    return new BurnerWallet(await loadSigningKey(store, 'burner'));
  }

  async address(): Promise<Hex> {
    return Promise.resolve(this.#key.address);
  }

  async signTypedData(data: TypedData): Promise<Hex> {
    return this.#key.sign(hashOf(data));
  }

  /** The chain it was switched to last; it signs for any. */
  async chainId(): Promise<number> {
    return Promise.resolve(this.#chainId);
  }

  async switchChain(id: number): Promise<void> {
    this.#chainId = id;
    return Promise.resolve();
  }

  async balance(asset: Hex, rpcUrl?: string): Promise<bigint> {
    if (!rpcUrl) throw new PaymentError('wallet-failed', 'a burner wallet knows no node to ask');
    return callNode(rpcUrl, balanceCall(asset, this.#key.address));
  }

  async isUsed(asset: Hex, authorizer: Hex, nonce: Hex, rpcUrl?: string): Promise<boolean> {
    return rpcUrl ? (await callNode(rpcUrl, usedCall(asset, authorizer, nonce))) > 0n : false;
  }

  /** Ask a faucet for test money: `POST` of `{"address": "0x…"}`. */
  async fund(faucetUrl: string): Promise<void> {
    const response = await fetch(faucetUrl, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ address: this.#key.address }),
    });
    if (!response.ok) {
      throw new PaymentError(
        'wallet-failed',
        `the faucet gave nothing (${response.status})`,
        true,
        response.status,
      );
    }
  }
}
