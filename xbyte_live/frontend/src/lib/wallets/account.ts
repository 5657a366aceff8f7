import { PaymentError } from '../x402/errors';
import type { Wallet } from './wallet';
import type { Hex } from '../x402/types';

/**
 * Which account of a wallet pays.
 *
 * It is asked for once: a session key signs the vouchers, so a wallet may be locked meanwhile.
 * Another account would have channels and deposits of its own, so its owner is asked first.
 */
export class WalletAccount {
  #wallet: Wallet | undefined;
  #address: Hex | undefined;
  #changed = false;
  #stop: (() => void) | undefined;

  /** The address that pays; throws `PaymentError` (`wallet-changed`) once after a change. */
  async of(wallet: Wallet): Promise<Hex> {
    if (this.#changed) throw this.#forget();
    if (this.#wallet !== wallet) this.#watch(wallet);
    this.#address ??= lower(await wallet.address());
    return this.#address;
  }

  /** Throws `PaymentError` where the wallet would sign for another account than pays. */
  async check(wallet: Wallet): Promise<void> {
    if (lower(await wallet.address()) !== (await this.of(wallet))) throw this.#forget();
  }

  /** The payer has another wallet. */
  leave(): void {
    this.#stop?.();
    this.#wallet = this.#stop = this.#address = undefined;
    this.#changed = false;
  }

  #watch(wallet: Wallet): void {
    this.leave();
    this.#wallet = wallet;
    this.#stop = wallet.onAccount?.((address) => {
      this.#changed = this.#address !== undefined && lower(address) !== this.#address;
    });
  }

  #forget(): PaymentError {
    this.#address = undefined;
    this.#changed = false;
    return new PaymentError('wallet-changed', 'the wallet shows another account now', true);
  }
}

function lower(address: Hex): Hex {
  return address.toLowerCase() as Hex;
}
