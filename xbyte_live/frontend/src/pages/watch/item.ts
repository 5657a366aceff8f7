import type { PriceList } from './server';

/** What the page hands over: something that plays (`Playback`), or a file (`Sale`). */
export interface Item {
  /** Seconds at hand that nothing more has to be bought for. */
  readonly ahead: number;
  readonly begun: boolean;
  /** Somebody wants it. */
  begin(): void;
  /** It was agreed to pay for it. */
  goOn(): void;
  pause(): void;
  /** Play again what a limit had stopped. */
  unpause(): void;
  /** Try again what failed. */
  retry(): void;
  /** Each further purchase would fail alike: buy nothing more. */
  halt(): void;
  /** It costs something else now. */
  reprice(pricing: PriceList): void;
}
