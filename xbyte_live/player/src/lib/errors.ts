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
  | 'price-raised'
  | 'no-way-to-pay'
  | 'refused'
  | 'pending'
  | 'unreachable'
  | 'charged-before'
  | 'bad-delivery'
  | 'too-large'
  | 'storage'
  | 'http';

/** What a purchase fails with; `status` is the answer's, where there was one. */
export class PaymentError extends Error {
  override readonly name = 'PaymentError';
  constructor(
    readonly code: PaymentErrorCode,
    message: string,
    readonly retryable = false,
    readonly status = 0,
  ) {
    super(message);
  }
}
