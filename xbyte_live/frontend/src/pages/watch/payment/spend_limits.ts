import { most } from '../../../lib/money';
import type { Payer } from '../../../lib/payer/payer';
import type { Budget, PayerEvents } from '../../../lib/payer/types';
import { inSeconds, round } from '../../words';
import { minuteStepAfter, stepAfter } from './cap_sliders';
import type { Item } from '../item';
import type { Notice, Overlay, WayOut } from '../messages/notice';
import type { Meter } from './meter';
import type { Listing } from './listing';

type Reached = PayerEvents['cap'];

/** The caps that a viewer sets: applies them, and pauses the page where one is reached. */
export class SpendLimits {
  #reached: Reached | undefined;

  constructor(
    private readonly payer: Payer,
    private readonly listing: Listing,
    private readonly meter: Meter,
    private readonly item: Item,
    private readonly notice: Notice,
    private readonly overlay: Overlay,
  ) {}

  /** A cap is reached, and nothing is bought until it is raised or the minute is over. */
  get reached(): boolean {
    return this.#reached !== undefined;
  }

  /** Spend up to `cap` from now on, at no higher price than that of now. */
  begin(cap: bigint): void {
    this.payer.maxPerMb = this.listing.perMb;
    this.meter.cap.cap = cap;
    this.meter.state = 'paying';
    this.payer.budget = this.#budget;
    this.meter.show();
  }

  /** Apply the caps after the viewer has changed them. */
  apply(): void {
    this.lift(); // before it is tried anew, which may end at a cap again
    this.payer.budget = this.#budget;
    this.meter.show();
  }

  /** Let the cap be no lower than what is spent with what is usual on top. */
  makeRoom(): void {
    this.meter.cap.cap = most(this.meter.cap.cap, this.payer.spent + this.listing.usualCap);
  }

  /** Whether nothing was charged so far. */
  get untouched(): boolean {
    return this.payer.spent === 0n;
  }

  /** Spend nothing more; no cap counts as reached. */
  stop(): void {
    this.#reached = undefined;
    this.meter.state = 'idle';
    const { spent, budget } = this.payer;
    if (budget.total > spent) this.payer.budget = { total: spent };
    this.meter.show();
  }

  /** Say that a cap is reached; `others` are ways out besides raising it. */
  reach(reached: Reached, others: WayOut[]): void {
    this.#reached = reached;
    this.meter.state = 'capped';
    this.meter.show();
    const raise = { label: raising(reached), act: () => this.raise() };
    this.notice.show(reached.limit === 'total' ? 'cap' : 'cap-minute', [raise, ...others]);
  }

  /** Nothing is left to play: where that is for a cap, say so over the picture. */
  bufferEmpty(): void {
    if (this.#reached) this.overlay.show(paused(this.#reached), raising(this.#reached));
  }

  raise(): void {
    const reached = this.#reached;
    if (!reached) return;
    if (reached.limit === 'total') this.meter.cap.cap = above(reached);
    else this.meter.minuteCap.cap = minuteStepAfter(reached.cap);
    this.apply();
  }

  /** No cap is in the way any more. */
  lift(): void {
    if (!this.#reached) return;
    this.#reached = undefined;
    this.meter.state = 'paying';
    this.notice.clear('cap', 'cap-minute');
    this.overlay.clear();
    this.item.unpause();
  }

  get #budget(): Budget {
    const perMinute = this.meter.minuteCap.cap;
    const total = this.meter.cap.cap;
    // No more lies in a channel than was spoken of, whatever its server wants.
    const deposit = most(total, this.listing.deposit);
    return { total, deposit, ...(perMinute !== undefined && { perMinute }) };
  }
}

/** The label of the button that raises a cap. */
function raising(reached: Reached): string {
  if (reached.limit === 'total') return `Raise it to ${round(above(reached))}`;
  const next = minuteStepAfter(reached.cap);
  return next === undefined ? 'Lift it' : `Raise it to ${round(next)}`;
}

function above({ cap, spent, needed }: Reached): bigint {
  return stepAfter(most(cap, spent + needed));
}

/** The text of a pause: which cap is reached, and when playing goes on by itself if it does. */
function paused({ limit, cap, resumesAt }: Reached): string {
  if (limit === 'total') return `Paused: your cap of ${round(cap)} is reached.`;
  const told = `Paused: your cap of ${round(cap)} a minute is reached.`;
  return resumesAt === undefined
    ? `${told} The next part alone costs more.`
    : `${told} It goes on ${inSeconds(resumesAt - Date.now())}.`;
}
