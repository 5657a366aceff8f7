export type Hex = `0x${string}`;

/** One offer to be paid, as a server makes it (x402 v2 5.1.2); `extra` may hold more. */
export interface Offer {
  scheme: string;
  /** CAIP-2, such as `eip155:8453`. */
  network: string;
  asset: Hex;
  /** Atomic units, a whole decimal number. */
  amount: string;
  payTo: Hex;
  maxTimeoutSeconds: number;
  extra: OfferExtra;
}

export interface OfferExtra {
  /** Name and version of the asset's EIP-712 domain. */
  name: string;
  version: string;
  [more: string]: unknown;
}

/** An offer to be paid through a channel (x402 `scheme_batch_settlement_evm`). */
export interface ChannelOffer extends Offer {
  scheme: 'batch-settlement';
  extra: ChannelOfferExtra;
}

export interface ChannelOfferExtra extends OfferExtra {
  receiverAuthorizer: Hex;
  /** Seconds. */
  withdrawDelay: number;
  /** The smallest deposit that the server finds worth its gas, in atomic units. */
  minDeposit?: string;
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

/** EIP-712 typed data that a wallet signs; integers are `bigint` or `number`. */
export interface TypedData {
  domain: { name: string; version: string; chainId: number; verifyingContract: Hex };
  types: Record<string, readonly { name: string; type: string }[]>;
  primaryType: string;
  message: Record<string, unknown>;
}

/** The immutable configuration of a channel; addresses are lower-case. */
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
