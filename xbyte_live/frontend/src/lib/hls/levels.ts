import type { Events } from 'hls.js';
import { costPerMinute, type Rate } from '../money';
import type { Payer } from '../payer/payer';

const PARSED = 'hlsManifestParsed' as unknown as Events.MANIFEST_PARSED; // the library brings no hls.js

/** The part of an `Hls` that capping its levels needs. */
export interface LevelSource {
  readonly levels: readonly Rate[];
  autoLevelCapping: number;
  on(event: Events.MANIFEST_PARSED, listener: () => void): void;
  off(event: Events.MANIFEST_PARSED, listener: () => void): void;
}

/** The dearest of `levels`, cheapest first, that fits a budget for a minute; else the cheapest. */
export function affordableLevel(
  levels: readonly Rate[],
  perMinute: bigint | undefined,
  perMb: bigint,
): number {
  const fits = (level: Rate): boolean =>
    perMinute === undefined || costPerMinute(level, perMb) <= perMinute;
  return Math.max(0, levels.map(fits).lastIndexOf(true));
}

/**
 * Let hls.js choose by itself only levels whose cost fits the payer's budget for a minute.
 *
 * `perMb` is the price in atomic units. It follows the budget until the returned call. With
 * `capLevelToPlayerSize` hls.js sets the same limit itself, by the size of the picture.
 */
export function capLevels(hls: LevelSource, payer: Payer, perMb: bigint): () => void {
  const cap = (): void => {
    const level = affordableLevel(hls.levels, payer.budget.perMinute, perMb);
    hls.autoLevelCapping = level === hls.levels.length - 1 ? -1 : level;
  };
  hls.on(PARSED, cap);
  payer.addEventListener('budget', cap);
  cap();
  return () => {
    hls.off(PARSED, cap);
    payer.removeEventListener('budget', cap);
    hls.autoLevelCapping = -1;
  };
}
