import { recoverAddress } from 'viem/utils';
import type { Channel } from './channel';
import { AMOUNT_MISMATCH, BELOW_CLAIMED, CHANNEL_NOT_FOUND } from '../x402/codes';
import type { ChainReader, ChannelOnChain } from '../wallets/rpc';
import { chainIdOf, voucherDigest } from '../x402/typed_data';
import type { Hex } from '../x402/types';
import {
  readCorrection,
  readState,
  type ChannelReport,
  type Correction,
} from '../x402/channel_wire';
import type { Challenge } from '../x402/wire';

/** The state of a channel that a 402 claims, and the proofs of it. */
export interface ChannelProof {
  code: string;
  correction: Correction | undefined;
  /** The correction's voucher was signed by the channel's own key. */
  proven: boolean;
  report: ChannelReport | undefined;
  found: ChannelOnChain | undefined;
}

/** Read the state that a 402 claims for a channel; without a proof in it the chain is asked. */
export async function proofOf(
  challenge: Challenge,
  channel: Channel,
  chain: ChainReader,
): Promise<ChannelProof> {
  const { channelId, config, network } = channel;
  const code = challenge.error;
  const correction = readCorrection(challenge, channelId);
  const mismatch = code === AMOUNT_MISMATCH || code === BELOW_CLAIMED;
  const bare = code === CHANNEL_NOT_FOUND || (mismatch && !correction);
  return {
    code,
    correction,
    proven: correction
      ? await proves(correction, channelId, config.payerAuthorizer, chainIdOf(network))
      : false,
    report: readState(challenge, channelId),
    found: bare ? await chain.channel(channel) : undefined,
  };
}

/** Whether the voucher of a correction was signed by that key. */
async function proves(
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
