import { PaymentError } from './errors';
import type { Hex } from './types';

const BALANCE_OF = '0x70a08231';
const AUTHORIZATION_STATE = '0xe94a0102'; // EIP-3009

/** What a node is asked for (`eth_call`). */
export interface Call {
  to: Hex;
  data: Hex;
}

/** The call that reads what an address holds of a token. */
export function balanceCall(asset: Hex, owner: Hex): Call {
  return { to: asset, data: `${BALANCE_OF}${word(owner)}` };
}

/** The call that reads whether an authorization is used or cancelled. */
export function usedCall(asset: Hex, authorizer: Hex, nonce: Hex): Call {
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
export async function askNode(rpcUrl: string, call: Call): Promise<bigint> {
  const response = await fetch(rpcUrl, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'eth_call',
      params: [call, 'latest'],
    }),
  });
  const answer = (await response.json()) as { result?: unknown };
  return readNumber(answer.result);
}

function word(value: Hex): string {
  return value.slice(2).toLowerCase().padStart(64, '0');
}
