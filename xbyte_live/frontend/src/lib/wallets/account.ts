import { PaymentError } from '../x402/errors';
import type { Hex } from '../x402/types';
import type { Wallet } from './wallet';

/**
 * The wallet that deposits, and which of its accounts pays.
 *
 * The account is asked for once: a session key signs the vouchers, so a wallet may be locked
 * meanwhile. Another account would have channels and deposits of its own, so its owner is asked
 * first.
 */
export class WalletAccount {
  #watched: Wallet | undefined;
  #address: Hex | undefined;
  #changed = false;
  #stop: (() => void) | undefined;

  constructor(private current?: Wallet) {}

  get wallet(): Wallet | undefined {
    return this.current;
  }

  set wallet(wallet: Wallet | undefined) {
    if (wallet !== this.current) this.#leave();
    this.current = wallet;
  }

  /** The wallet; throws `PaymentError` (`no-wallet`) where there is none. */
  require(): Wallet {
    if (this.current) return this.current;
    throw new PaymentError('no-wallet', 'there is no wallet to pay with', true);
  }

  /** The address that pays; throws `PaymentError` (`wallet-changed`) once after a change. */
  async of(wallet: Wallet): Promise<Hex> {
    if (this.#changed) throw this.#forget();
    if (this.#watched !== wallet) this.#watch(wallet);
    this.#address ??= lower(await wallet.address());
    return this.#address;
  }

  /** Throws `PaymentError` where the wallet would sign for another account than pays. */
  async check(wallet: Wallet): Promise<void> {
    if (lower(await wallet.address()) !== (await this.of(wallet))) throw this.#forget();
  }

  #leave(): void {
    this.#stop?.();
    this.#watched = this.#stop = this.#address = undefined;
    this.#changed = false;
  }

  #watch(wallet: Wallet): void {
    this.#leave();
    this.#watched = wallet;
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
