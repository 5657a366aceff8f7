import type Hls from 'hls.js';
import type { Level } from 'hls.js';

import { parseAmount } from '../../../lib/money';
import { byId, elementOf, made } from '../../dom';
import { price } from '../../words';
import type { Rendition } from '../server';

const AUTO = -1;

/**
 * The choice of qualities, in the player and beside the meter, each with its price.
 *
 * Another one is for what is bought next; what was bought is played, not thrown away.
 */
export class Qualities {
  readonly #select = elementOf(HTMLSelectElement, 'quality');
  readonly #list = byId('quality-list');

  constructor(
    private readonly hls: Hls,
    private renditions: Rendition[],
    private readonly buying: (perMinute: bigint) => void,
  ) {
    this.#select.addEventListener('change', () => this.#choose(Number(this.#select.value)));
    this.#list.addEventListener('change', (event) => {
      this.#choose(Number((event.target as HTMLInputElement).value));
    });
  }

  /** Show new prices. */
  reprice(renditions: Rendition[]): void {
    this.renditions = renditions;
    if (this.hls.levels.length > 0) this.offer();
  }

  /** The playlist is read: these are what there is. */
  offer(): void {
    const { levels } = this.hls;
    const order = levels.map((_, index) => index).reverse();
    const choices = levels.length > 1 ? [AUTO, ...order] : order;
    this.#select.replaceChildren(
      ...choices.map((index) => made('option', this.#label(index), { value: String(index) })),
    );
    this.#list.replaceChildren(...choices.map((index) => this.#row(index, choices.length > 1)));
    this.show();
  }

  /** Another one is bought or plays now. */
  show(): void {
    const { hls } = this;
    const bought = Math.max(0, hls.loadLevel);
    const chosen = hls.autoLevelEnabled && hls.levels.length > 1 ? AUTO : bought;
    this.#select.value = String(chosen);
    for (const row of this.#list.querySelectorAll<HTMLElement>('.quality-row')) {
      const index = Number(row.dataset.level);
      row.toggleAttribute('data-playing', index === hls.currentLevel);
      const radio = row.querySelector('input');
      if (radio) radio.checked = index === chosen;
    }
    const next = hls.levels[bought];
    if (next) this.buying(this.#perMinute(next));
    const auto = this.#select.querySelector<HTMLOptionElement>(`option[value="${AUTO}"]`);
    if (auto) auto.textContent = next ? `Auto (${this.#name(next)})` : 'Auto';
  }

  #choose(index: number): void {
    this.hls.loadLevel = index;
    this.show();
  }

  #row(index: number, several: boolean): HTMLElement {
    const level = this.hls.levels[index];
    const row = made(several ? 'label' : 'p', '', {
      class: 'quality-row',
      'data-level': String(index),
    });
    if (several) {
      row.append(made('input', '', { type: 'radio', name: 'quality', value: String(index) }));
    }
    const cost = level ? `${price(this.#perMinute(level))} a minute` : 'as your line allows';
    row.append(made('span', level ? this.#name(level) : 'Auto'), made('span', cost));
    return row;
  }

  #label(index: number): string {
    const level = this.hls.levels[index];
    return level ? `${this.#name(level)} · ${price(this.#perMinute(level))}/min` : 'Auto';
  }

  #name(level: Level): string {
    return level.height ? `${level.height}p` : `${Math.round(rateOf(level) / 1000)} kb/s`;
  }

  #perMinute(level: Level): bigint {
    const name = level.url[0]?.split('/').at(-2);
    const rendition = this.renditions.find((each) => each.name === name);
    return parseAmount(rendition?.price_per_minute ?? '0');
  }
}

function rateOf(level: Level): number {
  return level.averageBitrate || level.bitrate;
}
