import type { Payer } from '../../../lib/payer/payer';
import { byId, made, say } from '../../dom';
import { exact, price, round, size } from '../../words';
import { CapSlider, MinuteSlider } from './cap_sliders';
import { Receipts } from './receipts';

const MINUTE = 60_000; // milliseconds
const SPOKEN_EVERY = 15_000;

type State = 'idle' | 'paying' | 'capped';

/** Shows the amount paid, the rate a minute, and the used part of the cap. */
export class Meter {
  readonly cap: CapSlider;
  readonly minuteCap: MinuteSlider;
  readonly #box = byId('meter');
  readonly #paid = byId('paid');
  readonly #receipts: Receipts;
  #bytes = 0;
  #count = 0;
  #expected = 0n;
  #spokenAt = 0;
  #spoken = 0n;
  #state: State = 'idle';

  constructor(
    slug: string,
    private readonly payer: Payer,
    capsChanged: () => void,
  ) {
    this.cap = new CapSlider('cap', 'cap-text', 'cap-time', capsChanged);
    this.minuteCap = new MinuteSlider(capsChanged);
    this.#receipts = new Receipts(slug, () => payer.receipts);
    payer.addEventListener('spend', ({ detail }) => {
      this.#bytes += detail.bytes;
      this.#count += 1;
      this.show();
    });
    setInterval(() => this.#tick(), 1_000);
  }

  /** What a minute of what is bought now should cost. */
  set expected(perMinute: bigint) {
    this.#expected = perMinute;
    this.minuteCap.rate = perMinute;
    this.show();
  }

  set state(state: State) {
    this.#state = state;
    this.#box.dataset.state = state;
  }

  show(): void {
    const { spent } = this.payer;
    const text = exact(spent);
    if (this.#paid.dataset.amount !== spent.toString()) {
      this.#paid.replaceChildren(text.slice(0, -2), made('small', text.slice(-2)));
      this.#paid.dataset.amount = spent.toString();
    }
    const bytes = byId('bytes');
    say(bytes, size(this.#bytes));
    bytes.dataset.bytes = String(this.#bytes);
    say(byId('count'), this.#count.toLocaleString('en'));
    this.cap.rate(this.#expected, spent);
    this.#gauge(spent);
    this.#receipts.show(this.#count);
    this.#tick();
  }

  #gauge(spent: bigint): void {
    const cap = this.payer.budget.total;
    if (this.#state === 'idle' || cap === 0n) {
      const more = spent > 0n ? ' more' : '';
      this.#tellGauge(0, `Nothing${more} is charged before you say so.`, 'Nothing of the cap');
      return;
    }
    const permille = Number((spent * 1000n) / cap);
    const text = `${(permille / 10).toFixed(permille < 100 ? 1 : 0)} % of your ${round(cap)} cap`;
    this.#tellGauge(permille, text, text);
  }

  #tellGauge(permille: number, text: string, label: string): void {
    byId('gauge-fill').style.setProperty('--used', String(Math.min(1, permille / 1000)));
    say(byId('gauge-text'), text);
    byId('gauge').setAttribute('aria-label', `${label} is used`);
  }

  #tick(): void {
    const now = Date.now();
    const rate = spentSince(this.payer, now - MINUTE);
    const shown = byId('rate');
    say(shown, exact(rate).slice(0, -2));
    shown.dataset.amount = rate.toString();
    const { spent } = this.payer;
    if (spent !== this.#spoken && now - this.#spokenAt >= SPOKEN_EVERY) {
      this.#spokenAt = now;
      this.#spoken = spent;
      say(byId('spoken'), `Paid ${exact(spent)} so far; ${price(rate)} in the last minute.`);
    }
  }
}

function spentSince(payer: Payer, since: number): bigint {
  let sum = 0n;
  for (let index = payer.receipts.length - 1; index >= 0; index -= 1) {
    const receipt = payer.receipts[index];
    if (!receipt || receipt.at < since) break;
    sum += receipt.amount;
  }
  return sum;
}
