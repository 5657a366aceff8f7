import { size } from '../words';

export type Name = 'hour' | 'day' | 'week' | 'month' | 'quarter';

export interface Period {
  from: number;
  to: number;
  step: number;
  utc: boolean;
}

const MINUTE = 60;
const HOUR = 3600;
const DAY = 86_400;

const LENGTHS: Record<Name, { length: number; step: number; words: string }> = {
  hour: { length: HOUR, step: MINUTE, words: 'in the last hour' },
  day: { length: DAY, step: HOUR / 2, words: 'in the last 24 hours' },
  week: { length: 7 * DAY, step: 4 * HOUR, words: 'in the last 7 days' },
  month: { length: 30 * DAY, step: DAY, words: 'in the last 30 days' },
  quarter: { length: 90 * DAY, step: DAY, words: 'in the last 90 days' },
};

/** Seconds from and to, ending with the step that is under way; days are UTC, as the books are. */
export function periodOf(name: Name, now = Date.now() / 1000): Period {
  const { length, step } = LENGTHS[name];
  const to = (Math.floor(now / step) + 1) * step;
  return { from: to - length, to, step, utc: step === DAY };
}

export function wordsOf(name: Name): string {
  return LENGTHS[name].words;
}

/** When a step begins: `14:30`, `Tue 14:00`, `12 Nov`. */
export function stepName(at: number, { step, utc }: Period): string {
  const date = new Date(at * 1000);
  const zone = utc ? { timeZone: 'UTC' } : {};
  if (utc) return date.toLocaleDateString('en', { day: 'numeric', month: 'short', ...zone });
  const time = date.toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  return step < HOUR ? time : `${date.toLocaleDateString('en', { weekday: 'short' })} ${time}`;
}

/** How long ago: `just now`, `4 min ago`, `12 Nov 2026`. */
export function ago(at: number, now = Date.now() / 1000): string {
  const seconds = Math.max(0, now - at);
  if (seconds < 90) return 'just now';
  if (seconds < HOUR) return `${Math.round(seconds / MINUTE)} min ago`;
  if (seconds < DAY) return `${Math.round(seconds / HOUR)} h ago`;
  return new Date(at * 1000).toLocaleDateString('en', { day: 'numeric', month: 'short', year: 'numeric' });
}

export function plural(count: number, word: string): string {
  return `${count.toLocaleString('en')} ${word}${count === 1 ? '' : 's'}`;
}

/** How many deliveries: `1 delivery`, `2 deliveries`. */
export function deliveries(count: number): string {
  return `${count.toLocaleString('en')} ${count === 1 ? 'delivery' : 'deliveries'}`;
}

/** Bytes, also many: `1.97 GB`. */
export function volume(bytes: number): string {
  const gb = bytes / 1024 ** 3;
  return gb < 1 ? size(bytes) : `${gb.toFixed(gb < 100 ? 2 : 0)} GB`;
}
