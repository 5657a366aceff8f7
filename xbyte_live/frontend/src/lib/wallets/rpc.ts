import { PaymentError } from '../x402/errors';
import { CONTRACT } from '../x402/typed_data';
import type { Hex } from '../x402/types';

const BALANCE_OF = '0x70a08231';
const AUTHORIZATION_STATE = '0xe94a0102'; // EIP-3009
const CHANNELS = '0x7a7ebd7b'; // x402 `scheme_batch_settlement_evm`
const PATIENCE = 5_000; // milliseconds a node may take

/** The state of a channel in the contract, in atomic units; zeros if it was never opened. */
export interface ChannelOnChain {
  /** All that deposits brought in, less what went back. */
  balance: bigint;
  claimed: bigint;
}

/** A channel, and the network it is on. */
export interface ChannelName {
  network: string;
  channelId: Hex;
}

/** A call of a contract that a node answers (`eth_call`). */
export interface ContractCall {
  to: Hex;
  data: Hex;
}

/** The call that reads what an address holds of a token. */
export function balanceCall(asset: Hex, owner: Hex): ContractCall {
  return { to: asset, data: `${BALANCE_OF}${word(owner)}` };
}

/** The call that reads whether an authorization is used or cancelled. */
export function usedCall(asset: Hex, authorizer: Hex, nonce: Hex): ContractCall {
  return { to: asset, data: `${AUTHORIZATION_STATE}${word(authorizer)}${word(nonce)}` };
}

/** The number a call returned; throws `PaymentError` for what is none. */
export function readNumber(result: unknown): bigint {
  if (typeof result !== 'string' || !/^0x[0-9a-f]{1,64}$/i.test(result)) {
    throw new PaymentError('wallet-failed', 'the node did not answer with a number', true);
  }
  return BigInt(result);
}

/** The number that a node gives for a call. */
export async function callNode(rpcUrl: string, call: ContractCall): Promise<bigint> {
  return readNumber(await ask(rpcUrl, call));
}

/** Reads chains by the nodes that are known, each by its CAIP-2 network. */
export class ChainReader {
  constructor(private readonly rpcUrls: Readonly<Record<string, string>> = {}) {}

  rpcUrl(network: string): string | undefined {
    return this.rpcUrls[network];
  }

  /** The state of a channel on its chain; `undefined` where no node is known or answers. */
  async channel({ network, channelId }: ChannelName): Promise<ChannelOnChain | undefined> {
    const rpcUrl = this.rpcUrl(network);
    return rpcUrl ? readChannel(rpcUrl, channelId) : undefined;
  }
}

async function readChannel(rpcUrl: string, channelId: Hex): Promise<ChannelOnChain | undefined> {
  const call = { to: CONTRACT, data: `${CHANNELS}${word(channelId)}` } as const;
  const result = await ask(rpcUrl, call).catch(() => undefined);
  const words = typeof result === 'string' && /^0x([0-9a-f]{64})([0-9a-f]{64})$/i.exec(result);
  if (!words) return undefined;
  return { balance: BigInt(`0x${words[1]}`), claimed: BigInt(`0x${words[2]}`) };
}

async function ask(rpcUrl: string, call: ContractCall): Promise<unknown> {
  const response = await fetch(rpcUrl, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'eth_call',
      params: [call, 'latest'],
    }),
    signal: AbortSignal.timeout(PATIENCE),
  });
  const answer = (await response.json()) as { result?: unknown };
  return answer.result;
}

function word(value: Hex): string {
  return value.slice(2).toLowerCase().padStart(64, '0');
}
