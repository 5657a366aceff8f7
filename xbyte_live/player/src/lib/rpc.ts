import { PaymentError } from './errors';
import type { Hex } from './types';

const BALANCE_OF = '0x70a08231';

/** The call that reads what an address holds of a token. */
export function balanceCall(asset: Hex, owner: Hex): { to: Hex; data: Hex } {
  return { to: asset, data: `${BALANCE_OF}${owner.slice(2).toLowerCase().padStart(64, '0')}` };
}

/** The number a call returned; throws `PaymentError` for what is none. */
export function readNumber(result: unknown): bigint {
  if (typeof result !== 'string' || !/^0x[0-9a-f]{1,64}$/i.test(result)) {
    throw new PaymentError('wallet-failed', 'the node did not say how much the wallet holds', true);
  }
  return BigInt(result);
}

/** What an address holds of a token, by a node (`eth_call`). */
export async function readBalance(rpcUrl: string, asset: Hex, owner: Hex): Promise<bigint> {
  const response = await fetch(rpcUrl, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'eth_call',
      params: [balanceCall(asset, owner), 'latest'],
    }),
  });
  const answer = (await response.json()) as { result?: unknown };
  return readNumber(answer.result);
}
