import { byId, elementOf, fill, say } from '../../dom';
import { lasting, price, round } from '../../words';
import { most } from '../../../lib/money';

/** Caps one may choose, in atomic units. */
const STEPS = [
  1_000n, 2_000n, 5_000n, 10_000n, 20_000n, 50_000n, 100_000n, 250_000n, 500_000n, 1_000_000n,
  2_000_000n, 5_000_000n, 10_000_000n, 20_000_000n, 50_000_000n,
];
const MINUTES = 30n; // that the cap should last if nobody says otherwise
const USUAL = 250_000n;

/** Caps of a minute one may choose; after them, none. */
const MINUTE_STEPS = [
  100n, 200n, 500n, 1_000n, 2_000n, 5_000n, 10_000n, 20_000n, 50_000n, 100_000n, 200_000n, 500_000n,
];

/** The steps, and after the last as many as it takes to come to `amount`: 100, 200, 500 dollars. */
function stepsTo(amount: bigint): bigint[] {
  const steps = [...STEPS];
  for (let last = most(0n, ...STEPS); last < amount; ) {
    last = last.toString().startsWith('2') ? (last * 5n) / 2n : last * 2n;
    steps.push(last);
  }
  return steps;
}

/** The smallest step that is at least `amount`. */
export function stepAt(amount: bigint): bigint {
  return stepAfter(amount - 1n);
}

/** The cap a page begins with. */
export function usualCap(perMinute: bigint): bigint {
  return perMinute > 0n ? stepAt(perMinute * MINUTES) : USUAL;
}

/** The step after the one in force. */
export function stepAfter(cap: bigint): bigint {
  return stepsTo(cap + 1n).find((step) => step > cap) ?? cap;
}

/** The steps to choose from where `cap` is one of them, whatever it is. */
export function stepsWith(cap: bigint): bigint[] {
  const steps = stepsTo(cap);
  return steps.includes(cap) ? steps : [...steps, cap].sort((a, b) => (a < b ? -1 : 1));
}

/** The cap of a minute after the one in force, none after the last. */
export function minuteStepAfter(cap: bigint): bigint | undefined {
  return MINUTE_STEPS.find((step) => step > cap);
}

/** A slider of caps of a minute, with whether what plays fits; at its end there is none. */
export class MinuteSlider {
  readonly #slider = elementOf(HTMLInputElement, 'minute-cap');
  readonly #text = byId('minute-cap-text');
  readonly #fits = byId('minute-cap-fits');
  #perMinute = 0n;

  constructor(changed: () => void) {
    this.#slider.max = String(MINUTE_STEPS.length);
    this.cap = undefined;
    this.#slider.addEventListener('input', () => this.#show());
    this.#slider.addEventListener('change', changed);
  }

  get cap(): bigint | undefined {
    return MINUTE_STEPS[Number(this.#slider.value)];
  }

  set cap(cap: bigint | undefined) {
    const at = MINUTE_STEPS.findIndex((step) => cap !== undefined && step >= cap);
    this.#slider.value = String(at < 0 ? MINUTE_STEPS.length : at);
    this.#show();
  }

  /** What a minute of what is bought now costs. */
  set rate(perMinute: bigint) {
    this.#perMinute = perMinute;
    this.#show();
  }

  #show(): void {
    const { cap } = this;
    const text = cap === undefined ? 'no limit' : round(cap);
    const pauses = cap !== undefined && cap < this.#perMinute;
    const plays = `it plays at ${price(this.#perMinute)} a minute`;
    const about = pauses ? `${plays}, so it will pause` : this.#perMinute > 0n ? plays : '';
    fill(this.#slider);
    say(this.#text, text);
    say(this.#fits, about || '\u00a0');
    this.#slider.setAttribute('aria-valuetext', about ? `${text}; ${about}` : text);
  }
}

/** A slider of caps with what it comes to. */
export class CapSlider {
  readonly #slider: HTMLInputElement;
  readonly #text: HTMLElement;
  readonly #time: HTMLElement;
  #steps = stepsWith(USUAL);
  #perMinute = 0n;
  #spent = 0n;

  constructor(slider: string, text: string, time: string, changed: (cap: bigint) => void) {
    this.#slider = elementOf(HTMLInputElement, slider);
    this.#text = byId(text);
    this.#time = byId(time);
    this.#slider.addEventListener('input', () => this.#show());
    this.#slider.addEventListener('change', () => changed(this.cap));
  }

  get cap(): bigint {
    return this.#steps[Number(this.#slider.value)] ?? USUAL;
  }

  set cap(cap: bigint) {
    this.#steps = stepsWith(cap);
    this.#slider.max = String(this.#steps.length - 1);
    this.#slider.value = String(this.#steps.indexOf(cap));
    this.#show();
  }

  /** What a minute costs and what is spent already, to say how long the cap lasts. */
  rate(perMinute: bigint, spent = 0n): void {
    this.#perMinute = perMinute;
    this.#spent = spent;
    this.#show();
  }

  #show(): void {
    const cap = this.cap;
    fill(this.#slider);
    say(this.#text, round(cap));
    const left = cap > this.#spent ? cap - this.#spent : 0n;
    const time = lasting(left, this.#perMinute);
    const told = left === 0n ? 'used up' : time && `${time}${this.#spent ? ' more' : ''}`;
    say(this.#time, told || '\u00a0');
    this.#slider.setAttribute('aria-valuetext', told ? `${round(cap)}, ${told}` : round(cap));
  }
}
