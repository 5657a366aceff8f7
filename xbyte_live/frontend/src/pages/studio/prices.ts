import { byId, made, say } from '../dom';
import { price } from '../words';
import { ceilDiv, formatAmount, parseAmount } from '../../lib/money';
import { ask, ApiError, type CatalogItem } from './api';

const SETTLES = 4_000; // milliseconds the catalog may still tell of before
const KINDS: Record<CatalogItem['kind'], string> = { title: 'Title', stream: 'Stream', object: 'File' };

/** The prices of the items, an editable row each; rows being edited are left alone. */
export class Prices {
  readonly #body = byId('prices');
  readonly #rows = new Map<string, PriceRow>();

  show(items: CatalogItem[]): void {
    for (const [slug, row] of this.#rows) {
      if (!items.some((item) => item.slug === slug)) {
        row.element.remove();
        this.#rows.delete(slug);
      }
    }
    for (const item of items) {
      let row = this.#rows.get(item.slug);
      if (!row) {
        row = new PriceRow(item);
        this.#rows.set(item.slug, row);
        this.#body.append(row.element);
      }
      row.show(item);
    }
  }
}

class PriceRow {
  readonly element = made('tr');
  readonly #slug: string;
  readonly #price: HTMLInputElement;
  readonly #preview: HTMLInputElement | null;
  readonly #rewatch: HTMLSelectElement;
  readonly #minute = made('td', '', { 'data-label': 'A minute' });
  readonly #save = made('button', 'Save', { class: 'button button-small', type: 'button' });
  readonly #said = made('span', '', { class: 'st-error', role: 'alert' });
  #item: CatalogItem;
  #settled = 0;

  constructor(item: CatalogItem) {
    this.#item = item;
    this.#slug = item.slug;
    const named = (what: string): Record<string, string> => ({ 'aria-label': `${what} of ${item.name}` });
    this.#price = made('input', '', {
      inputmode: 'decimal',
      pattern: '[0-9]{1,9}(\\.[0-9]{1,6})?',
      required: '',
      ...named('Dollars per MB'),
    });
    this.#preview =
      item.kind === 'object'
        ? null
        : made('input', '', { inputmode: 'numeric', pattern: '[0-9]{1,6}', required: '', ...named('Free seconds') });
    this.#rewatch = made('select', '', named('Watching again'));
    this.#rewatch.append(
      made('option', 'costs again', { value: 'paid' }),
      made('option', 'is free', { value: 'free' }),
    );
    const heading = made('th', '', { scope: 'row' });
    heading.append(item.name, made('div', KINDS[item.kind], { class: 'small' }));
    const cell = (label: string, ...content: (Node | string)[]): HTMLElement => {
      const place = made('td', '', { 'data-label': label });
      place.append(...content);
      return place;
    };
    this.element.append(
      heading,
      cell('$ per MB', this.#price),
      this.#minute,
      cell('Free seconds', this.#preview ?? '–'),
      cell('Watching again', this.#rewatch),
    );
    const last = made('td');
    last.append(this.#save, ' ', this.#said);
    this.element.append(last);
    this.#save.setAttribute('aria-label', `Save the price of ${item.name}`);
    this.#save.addEventListener('click', () => void this.#store());
    for (const field of [this.#price, this.#preview, this.#rewatch]) {
      field?.addEventListener('input', () => this.#judge());
      field?.addEventListener('keydown', (event) => {
        if ((event as KeyboardEvent).key === 'Enter') void this.#store();
      });
    }
    this.#take(item);
  }

  show(item: CatalogItem): void {
    if (Date.now() < this.#settled) return;
    if (!this.#changed()) this.#take(item);
    else this.#item = { ...item, price_per_mb: this.#item.price_per_mb, rewatch: this.#item.rewatch };
  }

  #take(item: CatalogItem): void {
    this.#item = item;
    if (this.#price.value !== item.price_per_mb) this.#price.value = item.price_per_mb;
    const preview = String(Math.round(item.preview_seconds ?? 0));
    if (this.#preview && this.#preview.value !== preview) this.#preview.value = preview;
    if (this.#rewatch.value !== item.rewatch) this.#rewatch.value = item.rewatch;
    this.#judge();
  }

  /** The fields that differ from the server's. */
  #changed(): Record<string, string | number> | null {
    const { price_per_mb, preview_seconds, rewatch } = this.#item;
    const changed: Record<string, string | number> = {};
    if (this.#price.value.trim() !== price_per_mb) changed.price_per_mb = this.#price.value.trim();
    if (this.#preview && Number(this.#preview.value) !== Math.round(preview_seconds ?? 0)) {
      changed.preview_seconds = Number(this.#preview.value);
    }
    if (this.#rewatch.value !== rewatch) changed.rewatch = this.#rewatch.value;
    return Object.keys(changed).length > 0 ? changed : null;
  }

  #judge(): void {
    const fine = this.#price.checkValidity() && (this.#preview?.checkValidity() ?? true);
    this.#save.disabled = !fine || this.#changed() === null;
    this.#save.classList.toggle('button-quiet', this.#save.disabled);
    say(this.#minute, this.#perMinute());
  }

  /** What a minute (of a file: all of it) costs at the price that stands there. */
  #perMinute(): string {
    const wanted = amount(this.#price.value);
    if (wanted === 0n) return 'free';
    const cost = wanted === null ? null : this.#at(wanted);
    if (cost === null) return '–';
    const about = wanted === amount(this.#item.price_per_mb) ? '' : 'about ';
    return `${about}${price(cost)}${this.#item.kind === 'object' ? ' in all' : ''}`;
  }

  /** What a minute would cost at another price, as far as that can be told from what it does. */
  #at(wanted: bigint): bigint | null {
    const { price_per_minute: minute, price_whole: whole, price_per_mb: now, kind } = this.#item;
    const [old, cost] = [amount(now), amount((kind === 'object' ? whole : minute) ?? '')];
    return old && cost !== null ? ceilDiv(cost * wanted, old) : null;
  }

  async #store(): Promise<void> {
    const changed = this.#changed();
    if (!changed || this.#save.disabled) return;
    this.#save.disabled = true;
    say(this.#said, '');
    try {
      const stored = await ask<CatalogItem>(`/api/v1/items/${this.#slug}`, { method: 'PATCH', body: changed });
      const wanted = amount(stored.price_per_mb);
      const cost = wanted === null ? null : this.#at(wanted);
      const shown = cost === null ? {} : { price_per_minute: formatAmount(cost), price_whole: formatAmount(cost) };
      this.#settled = Date.now() + SETTLES;
      this.#take({
        ...this.#item,
        ...shown,
        price_per_mb: stored.price_per_mb,
        rewatch: stored.rewatch,
        ...(stored.preview_seconds === undefined ? {} : { preview_seconds: stored.preview_seconds }),
      });
      say(this.#save, 'Saved');
      setTimeout(() => say(this.#save, 'Save'), 2000);
    } catch (error) {
      say(this.#said, error instanceof ApiError ? error.message : 'That did not work.');
      this.#judge();
    }
  }
}

function amount(text: string): bigint | null {
  try {
    return parseAmount(text);
  } catch {
    return null;
  }
}
