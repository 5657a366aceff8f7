import type { Hex } from './types';

export type PaymentErrorCode =
  | 'no-wallet'
  | 'wallet-rejected'
  | 'wallet-failed'
  | 'wallet-changed'
  | 'wrong-network'
  | 'unknown-network'
  | 'insufficient-funds'
  | 'topup-needed'
  | 'cap-total'
  | 'cap-minute'
  | 'cap-deposit'
  | 'overcharged'
  | 'misdelivered'
  | 'price-raised'
  | 'no-way-to-pay'
  | 'refused'
  | 'wrong-clock'
  | 'pending'
  | 'unreachable'
  | 'charged-before'
  | 'bad-delivery'
  | 'too-large'
  | 'storage'
  | 'http';

/** The amount a server asks for, and the bytes it is for where that is known. */
export interface Asked {
  amount: bigint;
  bytes?: number;
}

/** The subject of an error: an amount or a channel. */
export interface ErrorSubject {
  /** What is dearer than was agreed to. */
  asked?: Asked;
  /** The channel that nothing more is paid through. */
  channelId?: Hex;
}

/** The failure of a purchase; `status` is that of the response, 0 where there was none. */
export class PaymentError extends Error {
  override readonly name = 'PaymentError';
  readonly asked: Asked | undefined;
  readonly channelId: Hex | undefined;

  constructor(
    readonly code: PaymentErrorCode,
    message: string,
    readonly retryable = false,
    readonly status = 0,
    about: ErrorSubject = {},
  ) {
    super(message);
    this.asked = about.asked;
    this.channelId = about.channelId;
  }
}
