import type { Payer } from './payer';
import type { PaidRequest, PaidResponse } from './types';

/** Fetch bytes that are sold over x402, paying for them through `payer`. */
export async function fetchPaid(
  url: string,
  options: PaidRequest & { payer: Payer },
): Promise<PaidResponse> {
  const { payer, ...request } = options;
  return payer.fetchPaid(url, request);
}
