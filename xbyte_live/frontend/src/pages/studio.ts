import { byId, elementOf, made, say } from './dom';
import {
  ask,
  ApiError,
  type CatalogItem,
  type Earnings,
  type Figures,
  type Moments,
  type Payee,
  type Payers,
} from './studio/api';
import { Backoff } from './studio/backoff';
import { TimeChart, type Measure } from './studio/chart';
import { HeatMap } from './studio/heat';
import { showFigures, showItems, showMoments, showPayers, showSeries, showSettlement, showTotals } from './studio/money';
import { periodOf, wordsOf, type Name } from './studio/periods';
import { Prices } from './studio/prices';
import { Streams } from './studio/streams';

const SOON = 1_000; // milliseconds after money came in
const ANYWAY = 60_000;

/** The studio: shows the figures of the server, and loads them again after each sale. */
class Studio {
  readonly #chart = new TimeChart(byId('chart'), byId('chart-reading'));
  readonly #heat = new HeatMap(
    byId('heat'),
    elementOf(HTMLCanvasElement, 'heat-canvas'),
    byId('heat-axis'),
    byId('heat-reading'),
  );
  readonly #streams = new Streams(() => void this.refresh());
  readonly #prices = new Prices();
  readonly #select = elementOf(HTMLSelectElement, 'moments-item');
  #names = new Map<string, string>();
  #chosen: string | null = null;
  #period: Name = 'day';
  #measure: Measure = 'amount';
  #earnings: Earnings | null = null;
  #events: EventSource | null = null;
  readonly #asks = new Backoff(SOON);
  readonly #follows = new Backoff(SOON);
  #due: ReturnType<typeof setTimeout> | undefined;
  #asking = false;

  constructor() {
    each('period', (value) => {
      this.#period = value as Name;
      void this.refresh();
    });
    each('measure', (value) => {
      this.#measure = value as Measure;
      this.#draw();
    });
    this.#select.addEventListener('change', () => this.#choose(this.#select.value));
    byId('log-out').addEventListener('click', () => void this.#leave());
    elementOf(HTMLFormElement, 'export-form').addEventListener('submit', (event) => void download(event));
    elementOf(HTMLFormElement, 'login-form').addEventListener('submit', (event) => {
      event.preventDefault();
      const token = elementOf(HTMLInputElement, 'token');
      void this.#enter({ token: token.value.trim() });
      token.value = '';
    });
    setInterval(() => {
      if (!document.hidden && this.#events) void this.refresh();
    }, ANYWAY);
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden && this.#events) void this.refresh();
    });
  }

  /** Log in by the link, if this is one, and show what there is. */
  async start(): Promise<void> {
    const code = new URLSearchParams(location.hash.slice(1)).get('code');
    if (code) {
      history.replaceState(null, '', location.pathname);
      await this.#enter({ code });
      return;
    }
    try {
      const { logged_in: inside } = await ask<{ logged_in: boolean }>('/studio/login');
      if (inside) await this.refresh();
      else this.#outside();
    } catch (error) {
      this.#refused(error);
    }
  }

  /** Load everything that is shown. */
  async refresh(): Promise<void> {
    clearTimeout(this.#due);
    this.#due = undefined;
    if (this.#asking) {
      this.#soon();
      return;
    }
    this.#asking = true;
    const period = periodOf(this.#period);
    const between = { from: String(period.from), to: String(period.to) };
    try {
      const [earnings, payers, { payees }, { items }] = await Promise.all([
        ask<Earnings>('/api/v1/earnings', { query: { ...between, step: String(period.step) } }),
        ask<Payers>('/api/v1/payers', { query: { ...between, limit: '100' } }),
        ask<{ payees: Payee[] }>('/api/v1/settlement'),
        ask<{ items: CatalogItem[] }>('/api/v1/catalog'),
      ]);
      this.#inside();
      this.#earnings = earnings;
      this.#names = new Map(items.map((item) => [item.slug, item.name]));
      this.#offer(items, earnings);
      showTotals(earnings, wordsOf(this.#period));
      showSeries(earnings, period);
      showPayers(payers);
      showSettlement(payees);
      this.#prices.show(items);
      this.#draw();
      await this.#moments();
      this.#asks.reset();
      problem('');
    } catch (error) {
      this.#refused(error);
    } finally {
      this.#asking = false;
    }
  }

  #draw(): void {
    if (!this.#earnings) return;
    const { from, to, step } = this.#earnings;
    this.#chart.show(this.#earnings, { from, to, step, utc: step === 86_400 }, this.#measure);
    showItems(this.#earnings, this.#names, this.#chosen, (slug) => this.#choose(slug));
  }

  /** What can be chosen for the heat map: what has a timeline, what earned most first. */
  #offer(items: CatalogItem[], earnings: Earnings): void {
    const rank = new Map(earnings.items.map((item, index) => [item.slug, index]));
    const timed = items
      .filter((item) => item.kind !== 'object')
      .sort((a, b) => (rank.get(a.slug) ?? Infinity) - (rank.get(b.slug) ?? Infinity) || 0);
    const titlesFirst = timed.find((item) => item.kind === 'title' && rank.has(item.slug)) ?? timed[0];
    if (!timed.some((item) => item.slug === this.#chosen)) this.#chosen = titlesFirst?.slug ?? null;
    const known = [...this.#select.options].map((option) => option.value).sort();
    const wanted = timed.map((item) => item.slug).sort();
    if (known.join() !== wanted.join()) {
      this.#select.replaceChildren(...timed.map((item) => made('option', item.name, { value: item.slug })));
    }
    this.#select.value = this.#chosen ?? '';
  }

  #choose(slug: string): void {
    if (![...this.#select.options].some((option) => option.value === slug)) return;
    this.#chosen = slug;
    this.#select.value = slug;
    this.#draw();
    void this.#moments().catch((error: unknown) => this.#refused(error));
  }

  async #moments(): Promise<void> {
    const slug = this.#chosen;
    if (!slug) {
      this.#heat.show({ moments: [] });
      return;
    }
    const { from, to } = periodOf(this.#period);
    const query = { from: String(from), to: String(to) };
    const found = await ask<Moments>(`/api/v1/earnings/${slug}/moments`, { query });
    if (slug !== this.#chosen) return;
    this.#heat.show(found);
    showMoments(found);
  }

  #follow(): void {
    if (this.#events) return;
    const events = new EventSource('/api/v1/events');
    this.#events = events;
    events.addEventListener('open', () => live('on', 'Live'));
    events.addEventListener('figures', (event: MessageEvent<string>) => {
      live('on', 'Live');
      this.#follows.reset();
      const figures = JSON.parse(event.data) as Figures;
      showFigures(figures);
      this.#streams.show(figures);
      if (figures.total.deliveries > 0) this.#soon();
    });
    events.addEventListener('error', () => {
      live('off', 'Not connected');
      if (this.#events !== events) return;
      events.close(); // it would ask again at the same pace for ever
      this.#events = null;
      this.#in(this.#follows.wait());
    });
  }

  #soon(): void {
    if (this.#due === undefined) this.#in(SOON);
  }

  #in(wait: number): void {
    clearTimeout(this.#due);
    this.#due = setTimeout(() => void this.refresh(), wait);
  }

  #inside(): void {
    byId('login').hidden = true;
    byId('studio').hidden = false;
    this.#follow();
  }

  #outside(): void {
    this.#events?.close();
    this.#events = null;
    byId('studio').hidden = true;
    byId('login').hidden = false;
  }

  async #enter(pass: { code: string } | { token: string }): Promise<void> {
    try {
      await ask('/studio/login', { method: 'POST', body: pass });
      say(byId('login-error'), '');
      await this.refresh();
    } catch (error) {
      this.#outside();
      say(byId('login-error'), words(error));
    }
  }

  async #leave(): Promise<void> {
    try {
      await ask('/studio/logout', { method: 'POST' });
      this.#outside();
    } catch (error) {
      problem(words(error));
    }
  }

  #refused(error: unknown): void {
    if (error instanceof ApiError && error.status === 401) {
      this.#outside();
      return;
    }
    if (!(error instanceof ApiError)) throw error;
    byId('studio').hidden = false;
    problem(error.message);
    this.#in(this.#asks.wait());
  }
}

/** Fetch the file first, so that a refusal is said here and not shown as a page. */
async function download(event: SubmitEvent): Promise<void> {
  event.preventDefault();
  const form = event.currentTarget as HTMLFormElement;
  const button = event.submitter as HTMLButtonElement;
  const query = new URLSearchParams();
  for (const [name, value] of new FormData(form, button)) {
    if (typeof value === 'string') query.set(name, value);
  }
  button.disabled = true;
  say(byId('export-error'), '');
  try {
    const answer = await fetch(`/api/v1/export?${query.toString()}`);
    if (!answer.ok) {
      const { message } = (await answer.json()) as { message: string };
      throw new ApiError(answer.status, message);
    }
    const url = URL.createObjectURL(await answer.blob());
    const name = `earnings ${query.get('from') ?? ''} ${query.get('to') ?? ''}.${query.get('format') ?? 'csv'}`;
    made('a', '', { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
  } catch (error) {
    say(byId('export-error'), words(error));
  } finally {
    button.disabled = false;
  }
}

function each(name: string, take: (value: string) => void): void {
  for (const input of document.querySelectorAll<HTMLInputElement>(`input[name="${name}"]`)) {
    input.addEventListener('change', () => {
      if (input.checked) take(input.value);
    });
    if (input.defaultChecked) input.checked = true;
  }
}

function live(state: string, text: string): void {
  byId('live').dataset.state = state;
  say(byId('live-text'), text);
}

function problem(text: string): void {
  const place = byId('problem');
  say(place, text);
  place.hidden = !text;
}

function words(error: unknown): string {
  return error instanceof ApiError ? error.message : 'That did not work. Try again.';
}

/** The days of this month so far, which is what bookkeeping mostly asks for. */
function proposeDays(): void {
  const now = new Date();
  const day = (date: Date): string => date.toISOString().slice(0, 10);
  const first = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), 1));
  const tomorrow = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth(), now.getUTCDate() + 1));
  for (const [name, date] of [['from', first], ['to', tomorrow]] as const) {
    const field = document.querySelector<HTMLInputElement>(`#export-form [name="${name}"]`);
    if (field && !field.value) field.value = day(date);
  }
}

proposeDays();
void new Studio().start();
