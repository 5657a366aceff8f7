import type { Receipt } from '../../../lib/channel/types';
import { byId, elementOf, made, say } from '../../dom';
import { exact, size } from '../../words';

const ROWS = 200; // shown at most; exports have all that are kept

/** The list of what was bought, and its export. */
export class Receipts {
  readonly #rows = byId('receipt-rows');
  readonly #count = byId('receipt-count');
  readonly #leftOut = byId('receipts-left-out');
  readonly #csv = elementOf(HTMLButtonElement, 'export-csv');
  readonly #json = elementOf(HTMLButtonElement, 'export-json');
  #newest: Receipt | undefined;

  constructor(
    private readonly slug: string,
    private readonly all: () => readonly Receipt[],
  ) {
    this.#csv.addEventListener('click', () => this.#save('csv', 'text/csv', asCsv(this.all())));
    this.#json.addEventListener('click', () =>
      this.#save('json', 'application/json', asJson(this.all())),
    );
  }

  /** Show what has been added; `count` are all there ever were. */
  show(count: number): void {
    const all = this.all();
    for (const receipt of after(this.#newest, all).slice(-ROWS)) this.#rows.prepend(row(receipt));
    this.#newest = all.at(-1);
    while (this.#rows.childElementCount > ROWS) this.#rows.lastElementChild?.remove();
    say(this.#count, count.toLocaleString('en'));
    say(this.#leftOut, leftOut(count, all.length));
    this.#leftOut.hidden = count <= all.length;
    this.#csv.disabled = this.#json.disabled = all.length === 0;
  }

  #save(ending: string, type: string, text: string): void {
    save(new Blob([text], { type }), `${this.slug}-receipts.${ending}`);
  }
}

/** What came after one of them: all, where that is forgotten by now. */
export function after<T>(known: T | undefined, all: readonly T[]): readonly T[] {
  return known === undefined ? all : all.slice(all.lastIndexOf(known) + 1);
}

/** What exports do not hold of `count` receipts where so many are kept; nothing if all. */
export function leftOut(count: number, kept: number): string {
  if (count <= kept) return '';
  const [older, last] = [count - kept, kept].map((each) => each.toLocaleString('en'));
  return `The last ${last} are kept and exported; ${older} before them are left out.`;
}

/** Hand a file to whoever reads the page. */
export function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  made('a', '', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** `segment 12, source`, or the path where it is no segment. */
export function nameOf(receipt: Receipt): string {
  const path = new URL(receipt.url, location.href).pathname;
  const found = /\/([^/]+)\/(\d+)\.ts$/.exec(path);
  const range = receipt.range ? `, ${receipt.range.replace('=', ' ')}` : '';
  return found ? `segment ${found[2]}, ${found[1]}${range}` : `${path}${range}`;
}

function row(receipt: Receipt): HTMLTableRowElement {
  const line = made('tr', '', { 'data-amount': receipt.amount.toString() });
  const at = new Date(receipt.at);
  line.append(
    made('td', at.toLocaleTimeString([], { timeStyle: 'medium', hourCycle: 'h23' })),
    made('td', nameOf(receipt)),
    made('td', size(receipt.bytes), { class: 'number' }),
    made('td', exact(receipt.amount), { class: 'number' }),
  );
  return line;
}

const COLUMNS = [
  'time',
  'url',
  'range',
  'bytes',
  'amount',
  'network',
  'asset',
  'pay_to',
  'payer',
  'channel',
  'cumulative',
  'transaction',
] as const;

function fields(receipt: Receipt): Record<(typeof COLUMNS)[number], string | number> {
  return {
    time: new Date(receipt.at).toISOString(),
    url: receipt.url,
    range: receipt.range ?? '',
    bytes: receipt.bytes,
    amount: receipt.amount.toString(),
    network: receipt.network,
    asset: receipt.asset,
    pay_to: receipt.payTo,
    payer: receipt.payer,
    channel: receipt.channelId,
    cumulative: receipt.cumulative.toString(),
    transaction: receipt.transaction ?? '',
  };
}

/** RFC 4180, amounts in atomic units. */
export function asCsv(receipts: readonly Receipt[]): string {
  const lines = receipts.map((receipt) => {
    const values = fields(receipt);
    return COLUMNS.map((name) => `"${String(values[name]).replaceAll('"', '""')}"`).join(',');
  });
  return `${[COLUMNS.join(','), ...lines].join('\r\n')}\r\n`;
}

/** The same as a list of objects. */
export function asJson(receipts: readonly Receipt[]): string {
  return `${JSON.stringify(receipts.map(fields), null, 2)}\n`;
}
