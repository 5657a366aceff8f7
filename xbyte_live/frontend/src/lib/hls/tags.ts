import type { Ahead } from '../payer/types';

const TAG = 'EXT-X-XBYTE-SEGMENT';

/** The quote in a fragment's tags (`#EXT-X-XBYTE-SEGMENT:BYTES=…,AMOUNT=…`). */
export function aheadOf(tags: readonly (readonly string[])[]): Ahead | undefined {
  const value = tags.find(([name]) => name === TAG)?.[1] ?? '';
  const bytes = /(?:^|,)BYTES=(\d{1,15})(?:,|$)/.exec(value)?.[1];
  const amount = /(?:^|,)AMOUNT=(\d{1,19})(?:,|$)/.exec(value)?.[1];
  if (bytes === undefined || amount === undefined) return undefined;
  return { bytes: Number(bytes), amount: BigInt(amount) };
}

/** The URL of the price list for a segment of an xByte Live server. */
export function pricingUrlOf(url: string): string | undefined {
  const found = /^(.*\/hls\/[^/?#]+)\/[^/?#]+\/[^/?#]+$/.exec(url.replace(/[?#].*$/, ''));
  return found ? `${found[1]}/pricing.json` : undefined;
}
