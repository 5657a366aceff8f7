import type { Receipt } from '../channel/types';
import type { Asked, PaymentErrorCode } from '../x402/errors';
import type { Hex, ChannelOffer } from '../x402/types';

/** The most that may be spent, in atomic units: by this page, and within any 60 seconds. */
export interface Budget {
  total: bigint;
  perMinute?: bigint;
  /**
   * The most that may lie in a channel, whatever its server wants. Where it is left out, a server
   * gets no larger deposit for its wish than `total`.
   */
  deposit?: bigint;
}

/** The quote of a playlist for a delivery: it is paid ahead, and no more is ever signed. */
export interface Ahead {
  bytes: number;
  amount: bigint;
  /** The offer to pay by (default: those of the last 402 or of `pricing`). */
  terms?: ChannelOffer;
}

export interface PaidRequest {
  /** A `Range` header, such as `bytes=0-65535`. */
  range?: string;
  signal?: AbortSignal;
  ahead?: Ahead;
  /** The most that may be signed for it, where not less was quoted or agreed to. */
  atMost?: bigint;
  /** The highest price that was agreed to, in atomic units per MB; `price-raised` above it. */
  maxPerMb?: bigint;
  /** URL of the `pricing.json` of what is bought, asked once. */
  pricing?: string;
  /** False: throw at a cap or where the wallet is needed, instead of waiting (default true). */
  wait?: boolean;
  /** The request leaves; called again for each time it is repeated. */
  onStart?: () => void;
  /** It waits for money or for its owner, and begins anew after that. */
  onWait?: () => void;
  /** The headers are here; `total` is 0 where it is not known. */
  onHeaders?: (response: Response, total: number) => void;
  onProgress?: (loaded: number, total: number, chunk: Uint8Array<ArrayBuffer>) => void;
}

export interface PaidResponse {
  bytes: ArrayBuffer;
  status: number;
  headers: Headers;
  /** The charge: 0 for bytes that are free, or were paid for before. */
  amount: bigint;
  receipt?: Receipt;
}

/** Why nothing is bought at the moment. */
export type Waiting = 'total' | 'minute' | 'deposit' | 'topup' | 'wallet';

export interface PayerEvents {
  /** Bytes were charged for; `bytes` is what was bought, `perMinute` the last 60 seconds. */
  spend: { amount: bigint; total: bigint; bytes: number; url: string; perMinute: bigint };
  /**
   * A limit is reached: it goes on when the budget is raised, or at `resumesAt` (ms). For
   * `deposit`, `needed` more would lie in a channel where `spent` do and no more than `cap` may;
   * with `resumesAt`, `spent` includes deposits that were refused and do not expire before that.
   */
  cap: {
    limit: 'total' | 'minute' | 'deposit';
    needed: bigint;
    spent: bigint;
    cap: bigint;
    resumesAt?: number;
  };
  /**
   * The channel needs money. Unless the page calls `preventDefault()`, the wallet is asked next;
   * if it does, the payer waits for `topUp()`. With `missing` 0 it is a notice in advance.
   */
  'topup-needed': { missing: bigint; suggested: bigint; network: string; asset: Hex };
  deposit: { amount: bigint; state: 'signing' | 'sent' | 'done'; transaction?: Hex };
  /** What stopped a purchase. Where `retryable`, it waits for `resume()`, `topUp()` or a wallet. */
  error: {
    code: PaymentErrorCode;
    message: string;
    retryable: boolean;
    /** What the server asks for, where that is more than was agreed to (`price-raised`). */
    asked?: Asked;
    /** The channel that nothing more is paid through, where that is the error. */
    channelId?: Hex;
  };
  /** It waited, and goes on. */
  resume: { waited: Waiting };
  /** The budget was set anew. */
  budget: Budget;
}
