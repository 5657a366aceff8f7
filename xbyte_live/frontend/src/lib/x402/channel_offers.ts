import { amountOf, isPayee, within } from './fields';
import type { ChannelOffer, Offer } from './types';
import type { OfferRule } from './wire';

const LEAST_DELAY = 900; // seconds
const LONGEST_DELAY = 2_592_000;

/** Offers to be paid through a channel (x402 `scheme_batch_settlement_evm`). */
export const CHANNEL_OFFERS = {
  scheme: 'batch-settlement',
  faultOf(extra: Record<string, unknown>): string | undefined {
    if ((extra.assetTransferMethod ?? 'eip3009') !== 'eip3009') {
      return 'it wants another way of transfer than EIP-3009';
    }
    if (!isPayee(extra.receiverAuthorizer)) return 'it names nobody who authorizes refunds';
    if (extra.minDeposit !== undefined && amountOf(extra.minDeposit) === undefined) {
      return 'its least deposit is no number';
    }
    if (!within(extra.withdrawDelay, LEAST_DELAY, LONGEST_DELAY)) {
      return 'it wants withdrawals to take shorter or longer than may be';
    }
    return undefined;
  },
} as const satisfies OfferRule;

/** Whether an offer that was read is one to be paid through a channel. */
export function isChannelOffer(offer: Offer): offer is ChannelOffer {
  return offer.scheme === CHANNEL_OFFERS.scheme;
}
