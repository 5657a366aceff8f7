import { byId, elementOf, made, say } from '../dom';
import { clock, round } from '../words';
import {
  ask,
  ApiError,
  type Feed,
  type Figures,
  type StreamKey,
  type Publishing,
  type StreamStatus,
} from './api';
import { confirm } from './confirm';
import { ago, plural } from './periods';

const STATES: Record<StreamStatus['state'], string> = {
  idle: 'Never on air yet',
  on_air: 'Live',
  waiting: 'Waiting for its publisher',
  ended: 'Off air',
};

/** The streams: how they are doing, and what publishers need. */
export class Streams {
  readonly #place = byId('streams');
  readonly #cards = new Map<string, StreamCard>();

  constructor(changed: () => void) {
    const form = elementOf(HTMLFormElement, 'stream-form');
    const button = elementOf(HTMLButtonElement, 'new-stream');
    button.addEventListener('click', () => {
      form.hidden = !form.hidden;
      button.setAttribute('aria-expanded', String(!form.hidden));
      if (!form.hidden) form.querySelector('input')?.focus();
    });
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#make(form, button, changed);
    });
  }

  show({ streams, items }: Figures): void {
    byId('no-streams').hidden = streams.length > 0;
    for (const [slug, card] of this.#cards) {
      if (!streams.some((stream) => stream.slug === slug)) {
        card.element.remove();
        this.#cards.delete(slug);
      }
    }
    for (const stream of streams) {
      let card = this.#cards.get(stream.slug);
      if (!card) {
        card = new StreamCard(stream);
        this.#cards.set(stream.slug, card);
        this.#place.append(card.element);
      }
      const selling = items.find((item) => item.slug === stream.slug);
      card.show(stream, selling?.payers ?? 0, BigInt(selling?.amount ?? 0));
    }
  }

  async #make(form: HTMLFormElement, button: HTMLElement, changed: () => void): Promise<void> {
    const given = new FormData(form);
    const text = (name: string): string => {
      const value = given.get(name);
      return typeof value === 'string' ? value.trim() : '';
    };
    say(byId('stream-error'), '');
    try {
      const made = await ask<Publishing>('/api/v1/streams', {
        method: 'POST',
        body: {
          slug: text('slug'),
          ...(text('name') ? { name: text('name') } : {}),
          ...(text('price_per_mb') ? { price_per_mb: text('price_per_mb') } : {}),
          ...(text('preview_seconds') ? { preview_seconds: Number(text('preview_seconds')) } : {}),
          record: given.has('record'),
        },
      });
      form.reset();
      form.hidden = true;
      button.setAttribute('aria-expanded', 'false');
      const card = new StreamCard({
        slug: made.slug,
        name: made.slug,
        state: 'idle',
        connected: false,
        on_air_for_s: null,
        recording: false,
        pulled: false,
        feed: null,
      });
      this.#cards.set(made.slug, card);
      this.#place.append(card.element);
      card.welcome(made);
      changed();
    } catch (error) {
      say(byId('stream-error'), error instanceof ApiError ? error.message : 'That did not work.');
    }
  }
}

class StreamCard {
  readonly element: HTMLElement;
  readonly #slug: string;
  readonly #name = made('h3');
  readonly #state = made('span', '', { class: 'badge' });
  readonly #facts = made('dl', '', { class: 'st-facts' });
  readonly #warnings = made('ul', '', { class: 'st-warnings', 'aria-label': 'Warnings' });
  readonly #details = made('details', '', { class: 'st-publish' });
  readonly #inside = made('div');
  readonly #error = made('p', '', { class: 'st-error', role: 'alert' });
  #facing = '';
  #warned = '';

  constructor(stream: StreamStatus) {
    this.#slug = stream.slug;
    this.element = made('article', '', { class: 'st-stream', id: `stream-${stream.slug}` });
    const head = made('div', '', { class: 'st-stream-head' });
    head.append(this.#name, this.#state, made('a', 'Watch', { href: `/watch/${stream.slug}` }));
    say(this.#name, stream.name);
    this.#details.append(made('summary', 'Keys and OBS settings'), this.#inside, this.#error);
    this.#details.addEventListener('toggle', () => {
      if (this.#details.open && !this.#inside.hasChildNodes()) void this.#load();
    });
    this.element.append(head, this.#facts, this.#warnings, this.#details);
    this.#details.hidden = stream.pulled;
  }

  show(stream: StreamStatus, payers: number, lately: bigint): void {
    say(this.#name, stream.name);
    const live = stream.state === 'on_air';
    this.#state.classList.toggle('badge-live', live);
    if (this.#state.dataset.state !== stream.state) {
      this.#state.dataset.state = stream.state;
      this.#state.replaceChildren(...(live ? [made('span', '', { class: 'dot' })] : []), STATES[stream.state]);
    }
    const told = facts(stream, payers, lately);
    const facing = told.map(([name]) => name).join('|');
    if (facing !== this.#facing) {
      this.#facing = facing;
      this.#facts.replaceChildren(...told.map(([name, value]) => pair(name, value)));
    } else {
      this.#facts.querySelectorAll('dd').forEach((place, index) => say(place, told[index]?.[1] ?? ''));
    }
    const warnings = live ? (stream.feed?.warnings ?? []).map((warning) => warning.text) : [];
    const warned = warnings.join('\n');
    if (warned === this.#warned) return;
    this.#warned = warned;
    this.#warnings.replaceChildren(...warnings.map((text) => made('li', sentence(text))));
  }

  /** A stream that was just made: its key is to be seen at once. */
  welcome(publishing: Publishing): void {
    this.#details.open = true;
    this.#fill({ ...publishing, keys: [] });
    void this.#load(publishing.stream_key);
    this.element.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  }

  async #load(fresh?: string): Promise<void> {
    await this.#try(async () => {
      const found = await ask<Publishing>(`/api/v1/streams/${this.#slug}/keys`);
      this.#fill(fresh ? { ...found, stream_key: fresh } : found);
    });
  }

  #fill({ rtmp_url, keyframe_interval_s, keys = [], stream_key }: Publishing): void {
    const settings = made('dl', '', { class: 'st-secret' });
    if (rtmp_url) {
      settings.append(made('dt', 'Server (OBS: Settings, Stream, Service “Custom…”)'), ...copied(rtmp_url, 'server'));
    } else {
      settings.append(made('dt', 'This server takes no publishers: its rtmp_port is 0.'));
    }
    const parts: HTMLElement[] = [settings];
    if (stream_key) {
      const box = made('div', '', { class: 'st-fresh', role: 'status' });
      const secret = made('dl', '', { class: 'st-secret' });
      secret.append(made('dt', 'Stream key'), ...copied(stream_key, 'stream key'));
      box.append(secret, made('p', 'Copy it now: it is shown this once, and kept nowhere.', { class: 'small' }));
      parts.push(box);
    }
    parts.push(made('p', `In OBS, under Output: keyframe interval ${keyframe_interval_s} s.`, { class: 'small' }));
    const list = made('ul', '', { class: 'st-keys', 'aria-label': 'Keys' });
    list.append(...keys.map((key) => this.#keyRow(key)));
    const actions = made('div', '', { class: 'st-buttons' });
    actions.append(
      action('Add a key', async () => this.#change('', 'POST')),
      action('Replace all keys', async () => this.#replace()),
    );
    this.#inside.replaceChildren(...parts, list, actions);
  }

  #keyRow(key: StreamKey): HTMLElement {
    const row = made('li');
    const used = key.used_at === null ? 'never used' : `used ${ago(key.used_at)}`;
    const until = key.expires_at === null ? '' : `, good until ${new Date(key.expires_at * 1000).toLocaleString('en')}`;
    const revoke = action('Revoke', async () => this.#revoke(key));
    revoke.setAttribute('aria-label', `Revoke the key that ends in ${key.hint}`);
    row.append(made('span', `Key …${key.hint}, ${used}${until}`), revoke);
    return row;
  }

  async #revoke(key: StreamKey): Promise<void> {
    const sure = await confirm(
      `Revoke the key …${key.hint}?`,
      'Whoever is on air with it is cut off, and it never works again.',
      'Revoke it',
    );
    if (!sure) return;
    await this.#try(async () => {
      await ask(`/api/v1/streams/${this.#slug}/keys/${key.id}`, { method: 'DELETE' });
      await this.#load();
    });
  }

  async #replace(): Promise<void> {
    const sure = await confirm(
      'Replace all keys?',
      'Every key of this stream stops working, and a new one is made. Whoever is on air is cut off.',
      'Replace them',
    );
    if (sure) await this.#change('/rotate', 'POST');
  }

  async #change(path: string, method: string): Promise<void> {
    await this.#try(async () => {
      const made = await ask<Publishing>(`/api/v1/streams/${this.#slug}/keys${path}`, { method });
      await this.#load(made.stream_key);
    });
  }

  async #try(work: () => Promise<void>): Promise<void> {
    say(this.#error, '');
    try {
      await work();
    } catch (error) {
      say(this.#error, error instanceof ApiError ? error.message : 'That did not work.');
    }
  }
}

function facts(stream: StreamStatus, payers: number, lately: bigint): [string, string][] {
  const told: [string, string][] = [];
  if (stream.on_air_for_s !== null) told.push(['On air for', clock(stream.on_air_for_s)]);
  if (stream.state === 'on_air') {
    told.push(['Paying now', plural(payers, 'viewer')], ['Last minute', round(lately)]);
    told.push(...health(stream.feed ?? {}));
  }
  if (stream.recording) told.push(['Recording', 'sold as a title after it ends']);
  if (stream.pulled) told.push(['Comes from', 'another server']);
  return told;
}

function health(feed: Feed): [string, string][] {
  const told: [string, string][] = [];
  if (feed.bit_rate) told.push(['Bit rate', `${(feed.bit_rate / 1e6).toFixed(2)} Mb/s`]);
  if (feed.width && feed.height) {
    const rate = feed.frame_rate ? `, ${Math.round(feed.frame_rate)} fps` : '';
    told.push(['Picture', `${feed.width}×${feed.height}${rate}`]);
  }
  if (feed.keyframe_interval_s) told.push(['Keyframe every', `${feed.keyframe_interval_s} s`]);
  const lost = (feed.segments_lost ?? 0) + (feed.packets_dropped ?? 0);
  told.push(['Lost', lost === 0 ? 'nothing' : `${plural(feed.segments_lost ?? 0, 'segment')}, ${plural(feed.packets_dropped ?? 0, 'packet')}`]);
  if (feed.restarts) told.push(['Restarts', String(feed.restarts)]);
  return told;
}

function pair(name: string, value: string): HTMLElement {
  const row = made('div');
  row.append(made('dt', name), made('dd', value));
  return row;
}

/** A text with a button that copies it. */
function copied(text: string, what: string): [HTMLElement, HTMLElement] {
  const place = made('dd');
  place.append(made('code', text));
  const button = action('Copy', async () => {
    // without https there is no clipboard
    const { clipboard } = navigator as Partial<Navigator>;
    const done = await clipboard?.writeText(text).then(
      () => true,
      () => false,
    );
    if (!done) getSelection()?.selectAllChildren(place);
    say(button, done ? 'Copied' : 'Press Ctrl+C');
    setTimeout(() => say(button, 'Copy'), 2000);
  });
  button.setAttribute('aria-label', `Copy the ${what}`);
  const side = made('dd');
  side.append(button);
  return [place, side];
}

function action(words: string, work: () => Promise<void>): HTMLButtonElement {
  const button = made('button', words, { class: 'button button-quiet button-small', type: 'button' });
  button.addEventListener('click', () => {
    button.disabled = true;
    void work().finally(() => {
      button.disabled = false;
    });
  });
  return button;
}

function sentence(text: string): string {
  return `${text.slice(0, 1).toUpperCase()}${text.slice(1)}`;
}
