import type { Hex, TypedData } from '../x402/types';

/** A network, for wallets that do not know it yet (EIP-3085). */
export interface Chain {
  id: number;
  name: string;
  /** Nodes that anybody may ask; without one its owner must add it by hand. */
  rpcUrls: readonly string[];
  /** The currency of its gas (default: ether). */
  currency?: { name: string; symbol: string; decimals: number };
}

/** A wallet that deposits. `burner` signs silently, `injected` asks its owner. */
export interface Wallet {
  readonly kind: 'injected' | 'burner';
  /** The name its owner knows it by. */
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
