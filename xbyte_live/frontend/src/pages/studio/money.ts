import { byId, made, say } from '../dom';
import { clock, exact, short } from '../words';
import type { Earned, Earnings, Figures, Moments, Payee, Payers } from './api';
import { ago, deliveries, plural, stepName, volume, type Period } from './periods';
import { everyStep } from './chart';

const ROWS = 500; // rows of a table that anybody reads

/** Dollars and cents as they are read, the rest after them smaller: `$12.34` `5678`. */
export function figure(place: HTMLElement, amount: bigint): void {
  const text = exact(amount);
  if (place.dataset.amount === text) return;
  place.dataset.amount = text;
  place.replaceChildren(text.slice(0, -4), made('span', text.slice(-4), { class: 'cents' }));
}

export function showTotals({ total }: Earnings, when: string): void {
  say(byId('earned-when'), when);
  figure(byId('earned'), BigInt(total.amount));
  say(byId('earned-note'), `for ${deliveries(total.deliveries)}`);
  say(byId('sold'), volume(total.bytes));
  const perMb = total.bytes > 0 ? (BigInt(total.amount) * 1_048_576n) / BigInt(total.bytes) : 0n;
  say(byId('sold-note'), total.bytes > 0 ? `${exact(perMb)} a MB on average` : 'nothing yet');
}

export function showFigures({ total }: Figures): void {
  figure(byId('minute'), BigInt(total.amount));
  const paying = total.payers;
  say(byId('minute-note'), paying ? `${plural(paying, 'viewer')} paying, ${volume(total.bytes)}` : 'nobody is paying now');
}

export function showSeries(earnings: Earnings, period: Period): void {
  const rows = everyStep(earnings)
    .map((earned, index) => ({ earned, at: earnings.from + index * earnings.step }))
    .filter(({ earned }) => earned.deliveries > 0 || earned.amount !== '0')
    .reverse();
  fill('series', rows.slice(0, ROWS), ({ earned, at }) => [
    stepName(at, period),
    exact(BigInt(earned.amount)),
    volume(earned.bytes),
    earned.deliveries.toLocaleString('en'),
  ]);
}

export function showMoments({ moments, elsewhere }: Moments): void {
  const sold = moments.filter((moment) => moment.amount !== '0');
  fill('moments', sold.slice(0, ROWS), (moment) => [
    clock(moment.start_seconds),
    moment.plays.toLocaleString('en'),
    volume(moment.bytes),
    exact(BigInt(moment.amount)),
  ]);
  const rest = BigInt(elsewhere.amount);
  say(
    byId('heat-note'),
    'Every play counts: a moment that is rewound to earns again.' +
      (rest > 0n ? ` ${exact(rest)} more came from moments no longer listed.` : ''),
  );
}

export function showPayers({ count, payers }: Payers): void {
  say(byId('payer-count'), count.toLocaleString('en'));
  fill('payers', payers, (payer) => [
    made('span', short(payer.payer), { title: payer.payer }),
    ago(payer.last_at),
    exact(BigInt(payer.amount)),
  ]);
}

export function showItems(
  { items }: Earnings,
  names: Map<string, string>,
  chosen: string | null,
  choose: (slug: string) => void,
): void {
  const list = byId('items');
  const best = items.reduce((most, item) => (BigInt(item.amount) > most ? BigInt(item.amount) : most), 1n);
  const focused = document.activeElement?.getAttribute('data-slug');
  list.replaceChildren(
    ...items.map((item) => {
      const row = made('li');
      const button = made('button', '', {
        class: 'st-item',
        type: 'button',
        'data-slug': item.slug,
        'aria-pressed': String(item.slug === chosen),
      });
      button.append(
        made('span', item.slug ? (names.get(item.slug) ?? item.slug) : 'Debts that were paid', { class: 'st-item-name' }),
        made('span', exact(BigInt(item.amount))),
        made('span', deliveries(item.deliveries), { class: 'st-item-more' }),
        made('span', volume(item.bytes), { class: 'st-item-more' }),
        bar(item, best),
      );
      if (names.has(item.slug)) button.addEventListener('click', () => choose(item.slug));
      else button.disabled = true;
      row.append(button);
      return row;
    }),
  );
  if (items.length === 0) list.append(made('li', 'Nothing was sold in this time.', { class: 'small' }));
  if (focused) list.querySelector<HTMLElement>(`[data-slug="${CSS.escape(focused)}"]`)?.focus();
}

function bar(item: Earned, best: bigint): HTMLElement {
  const track = made('span', '', { class: 'st-bar' });
  const filled = made('i');
  filled.style.setProperty('--share', String(Number((BigInt(item.amount) * 1000n) / best) / 1000));
  track.append(filled);
  return track;
}

export function showSettlement(payees: Payee[]): void {
  const place = byId('settlement');
  byId('no-settlement').hidden = payees.length > 0;
  place.replaceChildren(...payees.map(payeeOf));
  const paidOut = payees.reduce((sum, payee) => sum + BigInt(payee.settled) + BigInt(payee.archived), 0n);
  const charged = payees.reduce((sum, payee) => sum + BigInt(payee.charged) + BigInt(payee.archived), 0n);
  figure(byId('paid-out'), paidOut);
  say(byId('paid-out-note'), `of ${exact(charged)} charged`);
}

function payeeOf(payee: Payee): HTMLElement {
  const amounts = flow(payee);
  const total = amounts.reduce((sum, [, , amount]) => sum + amount, 0n);
  const box = made('article', '', { class: 'st-payee' });
  const by = payee.scheme === 'exact' ? 'Paid one by one (exact)' : 'Paid through channels';
  const heading = made('h3', `${by} to ${short(payee.pay_to)}`, { title: `${payee.pay_to} on ${payee.network}` });
  const strip = made('div', '', { class: 'st-flow', 'aria-hidden': 'true' });
  for (const [name, , amount] of amounts) {
    const part = made('i', '', { class: `st-${name}` });
    part.style.setProperty('--share', total > 0n ? String(Number((amount * 10_000n) / total) / 10_000) : '0');
    if (amount > 0n) strip.append(part);
  }
  const facts = made('dl', '', { class: 'st-facts' });
  fact(facts, 'Charged', exact(BigInt(payee.charged) + BigInt(payee.archived)));
  for (const [name, words, amount] of amounts) fact(facts, words, exact(amount), name);
  const more: [string, string][] = [
    ['On its way', payee.scheme === 'exact' ? '0' : payee.waiting],
    ['In doubt', payee.in_doubt],
    ['Owed to you', payee.owed],
  ];
  for (const [words, amount] of more) if (amount !== '0') fact(facts, words, exact(BigInt(amount)));
  box.append(heading, strip, facts);
  return box;
}

/** Where the charged money is now, each unit in one place. */
function flow(payee: Payee): [string, string, bigint][] {
  const settled = BigInt(payee.settled) + BigInt(payee.archived);
  if (payee.scheme === 'exact') {
    return [
      ['settled', 'Paid out', settled],
      ['unclaimed', 'Being settled', BigInt(payee.charged) - BigInt(payee.settled)],
    ];
  }
  const claimed = BigInt(payee.claimed) - BigInt(payee.settled);
  return [
    ['settled', 'Paid out', settled],
    ['claimed', 'Claimed, to be paid out', claimed > 0n ? claimed : 0n],
    ['unclaimed', 'To be claimed', BigInt(payee.unclaimed)],
    ['held', 'Held for sessions', BigInt(payee.held)],
  ];
}

function fact(list: HTMLElement, name: string, value: string, colour = ''): void {
  const row = made('div');
  const term = made('dt', name);
  if (colour) term.prepend(made('span', '', { class: `st-key st-${colour}`, 'aria-hidden': 'true' }));
  row.append(term, made('dd', value));
  list.append(row);
}

/** Fill a table's body; the first cell of a row names it, those of numbers are flush right. */
function fill<T>(id: string, rows: T[], cells: (row: T) => (string | HTMLElement)[]): void {
  const body = byId(id);
  const numbers = [...(body.parentElement?.querySelectorAll('thead th') ?? [])].map((head) =>
    head.classList.contains('number'),
  );
  body.replaceChildren(
    ...rows.map((row) => {
      const line = made('tr');
      cells(row).forEach((cell, index) => {
        const place = index === 0 ? made('th', '', { scope: 'row' }) : made('td');
        if (numbers[index]) place.className = 'number';
        place.append(cell);
        line.append(place);
      });
      return line;
    }),
  );
  if (rows.length === 0) {
    const line = made('tr');
    line.append(made('td', 'Nothing yet.', { colspan: String(numbers.length), class: 'small' }));
    body.append(line);
  }
}
