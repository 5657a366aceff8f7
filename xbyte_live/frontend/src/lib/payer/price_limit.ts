import { PaymentError, type Asked } from '../x402/errors';
import { amountFor, least } from '../money';
import type { PaidRequest } from './types';

/** Bytes of one answer: it is held in memory. */
export const MOST_BYTES = 2 ** 30;

/** How many bytes a request is for, or may get with that status, where it says so. */
export function bytesOf({ ahead, range }: PaidRequest, status = 206): number | undefined {
  if (ahead) return ahead.bytes;
  if (status !== 206) return undefined;
  const found = /^bytes=(\d{1,15})-(\d{1,15})$/.exec(range ?? '');
  return found ? Math.max(0, Number(found[2]) - Number(found[1]) + 1) : undefined;
}

/**
 * The most that may be signed for a request, if anything says so.
 *
 * `agreed` is a price in atomic units per MB. Throws `PaymentError` (`price-raised`) where nothing
 * says what that comes to.
 */
export function ceilingOf(request: PaidRequest, agreed: bigint | undefined): bigint | undefined {
  const said = [request.ahead?.amount, request.atMost].filter((bound) => bound !== undefined);
  const prices = [agreed, request.maxPerMb].filter((price) => price !== undefined);
  const [price, ...others] = prices;
  if (price !== undefined) {
    const bytes = bytesOf(request);
    if (bytes !== undefined) said.push(amountFor(bytes, least(price, ...others)));
    else if (request.atMost === undefined) {
      throw new PaymentError(
        'price-raised',
        'nothing says how large it is, so that it cannot be held to the price agreed to',
      );
    }
  }
  const [bound, ...more] = said;
  return bound === undefined ? undefined : least(bound, ...more);
}

export function priceRaised(asked: Asked, ceiling: bigint | undefined): PaymentError {
  return new PaymentError(
    'price-raised',
    `the server asks ${asked.amount} where no more than ${ceiling} may be paid; load the playlist again`,
    false,
    402,
    { asked },
  );
}
