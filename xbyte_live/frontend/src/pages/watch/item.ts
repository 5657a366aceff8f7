import type { PriceList } from './server';

/** The item that the page sells: a stream or title that plays (`Playback`), or a file (`Sale`). */
export interface Item {
  /** Seconds at hand that nothing more has to be bought for. */
  readonly ahead: number;
  readonly begun: boolean;
  /** Begin to play, or to buy. */
  begin(): void;
  /** Go on after the viewer's consent. */
  goOn(): void;
  pause(): void;
  /** Play again what a limit had stopped. */
  unpause(): void;
  /** Try again what failed. */
  retry(): void;
  /** Each further purchase would fail alike: buy nothing more. */
  halt(): void;
  /** Show a new price. */
  reprice(pricing: PriceList): void;
}
