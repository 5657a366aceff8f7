import type { Asked, PaymentErrorCode } from './errors';

export type Hex = `0x${string}`;

/** One way to pay as a server offers it (x402 v2 5.1.2); `extra` may hold more than is named. */
export interface Terms {
  scheme: 'batch-settlement';
  /** CAIP-2, such as `eip155:8453`. */
  network: string;
  asset: Hex;
  /** Atomic units, a whole decimal number. */
  amount: string;
  payTo: Hex;
  maxTimeoutSeconds: number;
  extra: TermsExtra;
}

export interface TermsExtra {
  /** Name and version of the asset's EIP-712 domain. */
  name: string;
  version: string;
  receiverAuthorizer: Hex;
  /** Seconds. */
  withdrawDelay: number;
  /** What the server finds worth its gas, in atomic units. */
  minDeposit?: string;
  [more: string]: unknown;
}

/** A token the payer may pay in; the address is compared without regard to case. */
export interface Asset {
  network: string;
  address: Hex;
  name: string;
  version: string;
  decimals: number;
  symbol: string;
}

/** What a wallet signs: EIP-712 typed data; integers are `bigint` or `number`. */
export interface TypedData {
  domain: { name: string; version: string; chainId: number; verifyingContract: Hex };
  types: Record<string, readonly { name: string; type: string }[]>;
  primaryType: string;
  message: Record<string, unknown>;
}

/** A network, for wallets that do not know it yet (EIP-3085). */
export interface Chain {
  id: number;
  name: string;
  /** Nodes that anybody may ask; without one its owner must add it by hand. */
  rpcUrls: readonly string[];
  /** What its gas is paid in (default: ether). */
  currency?: { name: string; symbol: string; decimals: number };
}

/** Who deposits. `burner` signs silently, `injected` asks its owner. */
export interface Wallet {
  readonly kind: 'injected' | 'burner';
  /** What its owner knows it by. */
  readonly name: string;
  address(): Promise<Hex>;
  /** Hear when its owner chooses another account, until the returned call. */
  onAccount?(changed: (address: Hex) => void): () => void;
  signTypedData(data: TypedData): Promise<Hex>;
  chainId(): Promise<number>;
  switchChain(id: number): Promise<void>;
  /** Atomic units of a token; `rpcUrl` is needed where the wallet has no node of its own. */
  balance(asset: Hex, rpcUrl?: string): Promise<bigint>;
  /**
   * Whether the chain knows an authorization as used or cancelled (EIP-3009). Where nobody can say,
   * a deposit that was refused counts until it expires.
   */
  isUsed?(asset: Hex, authorizer: Hex, nonce: Hex, rpcUrl?: string): Promise<boolean>;
}

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

/** What a playlist said a delivery costs: it is paid ahead, and nothing above is ever signed. */
export interface Ahead {
  bytes: number;
  amount: bigint;
  /** Where they are not given, those of the last 402 or of `pricing` are used. */
  terms?: Terms;
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
  /** What was charged for it now: 0 for what is free, or was paid for before. */
  amount: bigint;
  receipt?: Receipt;
}

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

/** What a channel is for good; addresses are lower-case. */
export interface ChannelConfig {
  payer: Hex;
  payerAuthorizer: Hex;
  receiver: Hex;
  receiverAuthorizer: Hex;
  token: Hex;
  /** Seconds. */
  withdrawDelay: number;
  salt: Hex;
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
