import { byId } from '../../dom';
import type { Item } from '../item';
import type { Listing } from '../payment/listing';
import type { Player } from './player';
import type { PriceList } from '../server';

/** A stream or title that plays, and the parts of the page around the player. */
export class Playback implements Item {
  constructor(
    private readonly player: Player,
    private readonly listing: Listing,
    private readonly startButton: HTMLButtonElement,
  ) {}

  get ahead(): number {
    return this.player.ahead;
  }

  get begun(): boolean {
    return this.player.started;
  }

  get paused(): boolean {
    return this.player.media.paused;
  }

  begin(): void {
    byId('stage').focus({ preventScroll: true }); // its keys are at hand
    this.startButton.hidden = true;
    byId('controls').hidden = false;
    byId('spinner').hidden = false;
    byId('free-badge').hidden = this.listing.isFree || !this.listing.pricing.preview_seconds;
    this.player.start();
  }

  /** The browser does not let it begin by itself after all. */
  unbegin(): void {
    byId('controls').hidden = byId('spinner').hidden = byId('free-badge').hidden = true;
    this.startButton.hidden = false;
  }

  goOn(): void {
    byId('free-badge').hidden = true;
    this.player.goOn();
    if (this.player.media.paused) this.player.start();
    this.player.goLive();
  }

  pause(): void {
    this.player.media.pause();
  }

  unpause(): void {
    if (this.player.started) void this.player.media.play().catch(() => undefined);
  }

  retry(): void {
    this.player.retry();
  }

  halt(): void {
    this.player.halt();
  }

  reprice(pricing: PriceList): void {
    this.player.reprice(pricing);
  }
}
