import { recoverAddress } from 'viem/utils';
import { voucherDigest } from './typed';
import type { Hex } from './types';
import type { Correction } from './wire';

/** Whether the voucher of a correction was signed by that key. */
export async function proves(
  correction: Correction,
  channelId: Hex,
  key: Hex,
  chainId: number,
): Promise<boolean> {
  const hash = voucherDigest(channelId, correction.signed, chainId);
  try {
    const signer = await recoverAddress({ hash, signature: correction.signature });
    return signer.toLowerCase() === key;
  } catch {
    return false;
  }
}
