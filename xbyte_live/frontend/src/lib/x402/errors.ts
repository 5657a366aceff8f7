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

/** What a server asks for: so much, for so many bytes where that is known. */
export interface Asked {
  amount: bigint;
  bytes?: number;
}

/** What an error is about, where that is one thing. */
export interface ErrorSubject {
  /** What is dearer than was agreed to. */
  asked?: Asked;
  /** The channel that nothing more is paid through. */
  channelId?: Hex;
}

/** What a purchase fails with; `status` is the answer's, where there was one. */
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
