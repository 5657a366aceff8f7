import type { PaymentErrorCode } from '../x402/errors';
import type { ChannelConfig, Hex } from '../x402/types';

/** One charge. */
export interface Receipt {
  url: string;
  range?: string;
  bytes: number;
  amount: bigint;
  /** Milliseconds since 1970. */
  at: number;
  network: string;
  asset: Hex;
  payTo: Hex;
  payer: Hex;
  channelId: Hex;
  /** The channel's total after it: what the payer has signed for. */
  cumulative: bigint;
  /** Transaction of the deposit that came with it, if one did. */
  transaction?: Hex;
}

export interface ChannelView {
  channelId: Hex;
  network: string;
  asset: Hex;
  payTo: Hex;
  payer: Hex;
  /** What the contract knows it by: a withdrawal on chain needs it. */
  config: ChannelConfig;
  /** All that was ever charged, all that lies in it, and what can be had back. */
  charged: bigint;
  balance: bigint;
  refundable: bigint;
  /** What its server says it gave back, or does not have, and no node has confirmed yet. */
  returned: bigint;
  /** A deposit that was signed and has not been seen to arrive. */
  depositing: bigint;
  /** Why its server is not trusted any more. */
  fault?: string;
  /** `misdelivered` ends with `trustAgain()`; `overcharged` is final. */
  faultCode?: PaymentErrorCode;
}

export interface Refund {
  channelId: Hex;
  amount: bigint;
  transaction: Hex;
}
