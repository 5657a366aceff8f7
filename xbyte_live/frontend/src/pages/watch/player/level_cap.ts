import { CapLevelController, type default as Hls } from 'hls.js';

import { affordableLevel } from '../../../lib/hls/levels';
import type { Payer } from '../../../lib/payer/payer';

/**
 * What hls.js may choose by itself: levels that fit the picture, and the budget for a minute.
 *
 * A higher level is for what is bought next: what was bought already is not thrown away for it.
 */
export function levelCap(payer: Payer, perMb: bigint): typeof CapLevelController {
  return class extends CapLevelController {
    readonly #levels: () => Hls['levels'];

    constructor(hls: Hls) {
      super(hls);
      this.#levels = () => hls.levels;
      payer.addEventListener('budget', () => this.detectPlayerSize());
    }

    override setStreamController(): void {
      // with it, a picture that grows would have what is at hand loaded anew
    }

    override getMaxLevel(most: number): number {
      const affordable = affordableLevel(this.#levels(), payer.budget.perMinute, perMb);
      return Math.min(super.getMaxLevel(most), affordable);
    }
  };
}
