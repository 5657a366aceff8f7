import { clock, exact } from '../words';
import type { Moments } from './api';
import { plural, volume } from './periods';

type Place = Moments['moments'][number];

const GAP = 1; // pixels between places that are wide enough

/** Which moments of a timeline earn: the higher and the stronger, the more. */
export class HeatMap {
  readonly #place: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #axis: HTMLElement;
  readonly #reading: HTMLElement;
  #places: Place[] = [];
  #first = 0;
  #length = 0;
  #at: number | null = null;

  constructor(place: HTMLElement, canvas: HTMLCanvasElement, axis: HTMLElement, reading: HTMLElement) {
    this.#place = place;
    this.#canvas = canvas;
    this.#axis = axis;
    this.#reading = reading;
    place.addEventListener('pointermove', (event) => this.#choose(this.#under(event)));
    place.addEventListener('pointerleave', () => this.#choose(null));
    place.addEventListener('blur', () => this.#choose(null));
    place.addEventListener('keydown', (event) => this.#move(event));
    new ResizeObserver(() => this.#draw()).observe(place);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.#draw());
  }

  show({ moments }: Pick<Moments, 'moments'>): void {
    this.#places = moments;
    this.#first = moments[0]?.start_seconds ?? 0;
    const end = Math.max(0, ...moments.map((moment) => moment.start_seconds + moment.duration_seconds));
    this.#length = end - this.#first;
    const marks = this.#length > 0 ? [0, 0.25, 0.5, 0.75, 1] : [];
    this.#axis.replaceChildren(
      ...marks.map((share) => {
        const mark = document.createElement('span');
        mark.textContent = clock(this.#first + share * this.#length);
        return mark;
      }),
    );
    this.#draw();
    this.#choose(this.#at);
  }

  #draw(): void {
    const { clientWidth: width, clientHeight: height } = this.#place;
    const pen = this.#canvas.getContext('2d');
    if (!pen || width === 0) return;
    const sharp = devicePixelRatio || 1;
    this.#canvas.width = Math.round(width * sharp);
    this.#canvas.height = Math.round(height * sharp);
    pen.scale(sharp, sharp);
    const look = getComputedStyle(this.#place);
    const colour = (name: string): string => look.getPropertyValue(`--${name}`).trim();
    const best = Math.max(1, ...this.#places.map((place) => Number(place.amount)));
    this.#places.forEach((place, index) => {
      const left = ((place.start_seconds - this.#first) / this.#length) * width;
      const wide = (place.duration_seconds / this.#length) * width;
      const share = Number(place.amount) / best;
      const gap = wide > 4 ? GAP : 0;
      pen.globalAlpha = 1;
      pen.fillStyle = colour('line');
      pen.fillRect(left, height - 6, Math.max(wide - gap, 0.5), 6);
      if (share > 0) {
        const high = 10 + share * (height - 14);
        pen.globalAlpha = index === this.#at ? 1 : 0.35 + 0.65 * share;
        pen.fillStyle = index === this.#at ? colour('ink') : colour('accent');
        pen.fillRect(left, height - high, Math.max(wide - gap, 0.5), high);
      } else if (index === this.#at) {
        pen.fillStyle = colour('ink-soft');
        pen.fillRect(left, height - 12, Math.max(wide - gap, 1), 12);
      }
    });
  }

  #under(event: PointerEvent): number | null {
    const { left, width } = this.#place.getBoundingClientRect();
    const at = this.#first + ((event.clientX - left) / width) * this.#length;
    const index = this.#places.findIndex((p) => at >= p.start_seconds && at < p.start_seconds + p.duration_seconds);
    return index < 0 ? null : index;
  }

  #move(event: KeyboardEvent): void {
    const last = this.#places.length - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined || last < 0) return;
    event.preventDefault();
    const from = this.#at ?? (step > 0 ? -1 : last + 1);
    this.#choose(Math.max(0, Math.min(last, from + step)));
  }

  #best(): Place | undefined {
    const amounts = this.#places.map((place) => Number(place.amount));
    const most = Math.max(0, ...amounts);
    return most > 0 ? this.#places[amounts.indexOf(most)] : undefined;
  }

  #choose(index: number | null): void {
    const changed = index !== this.#at;
    this.#at = index;
    const place = index === null ? this.#best() : this.#places[index];
    const words = place
      ? `${index === null ? 'Best: ' : ''}${clock(place.start_seconds)} to ${clock(place.start_seconds + place.duration_seconds)}: ` +
        `${exact(BigInt(place.amount))} from ${plural(place.plays, 'play')}, ${volume(place.bytes)}`
      : 'Nothing of this was sold in this time.';
    if (this.#reading.textContent !== words) this.#reading.textContent = words;
    if (changed) this.#draw();
  }
}
