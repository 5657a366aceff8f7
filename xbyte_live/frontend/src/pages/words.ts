const DOLLAR = 1_000_000n;
const MB = 1_048_576;

/** An amount to the last unit: `$0.004389`. */
export function exact(amount: bigint): string {
  const whole = (amount / DOLLAR).toLocaleString('en');
  return `$${whole}.${(amount % DOLLAR).toString().padStart(6, '0')}`;
}

/** A price for reading, rounded up, in no more digits than it needs. */
export function price(amount: bigint): string {
  if (amount === 0n) return '$0';
  const [step, digits] =
    amount < 100n ? [1n, 6] : amount < DOLLAR ? [100n, 4] : ([10_000n, 2] as const);
  const rounded = ((amount + step - 1n) / step) * step;
  const whole = (rounded / DOLLAR).toLocaleString('en');
  return `$${whole}.${(rounded % DOLLAR).toString().padStart(6, '0').slice(0, digits)}`;
}

/** A round sum, such as a cap: `$0.25`, `$0.001`. */
export function round(amount: bigint): string {
  const fraction = (amount % DOLLAR).toString().padStart(6, '0').replace(/0+$/, '').padEnd(2, '0');
  return `$${(amount / DOLLAR).toLocaleString('en')}.${fraction}`;
}

/** What somebody has, in whole cents, rounded down. */
export function cents(amount: bigint): string {
  const whole = (amount / DOLLAR).toLocaleString('en');
  return `$${whole}.${((amount % DOLLAR) / 10_000n).toString().padStart(2, '0')}`;
}

/** Bytes in MB of 1,048,576. */
export function size(bytes: number): string {
  const mb = bytes / MB;
  if (mb === 0) return '0 MB';
  if (mb < 1) return `${Math.max(1, Math.round(bytes / 1024))} kB`;
  return `${mb.toFixed(mb < 100 ? 1 : 0)} MB`;
}

/** `4:05` or `1:04:05`. */
export function clock(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const rest = s.toString().padStart(2, '0');
  return h > 0 ? `${h}:${m.toString().padStart(2, '0')}:${rest}` : `${m}:${rest}`;
}

/** How long `amount` lasts at `perMinute`: `about 34 minutes`. */
export function lasting(amount: bigint, perMinute: bigint): string {
  if (perMinute <= 0n) return '';
  const seconds = Number((amount * 60n) / perMinute);
  if (seconds < 10) return 'a few seconds';
  if (seconds < 90) return `about ${seconds} seconds`;
  if (seconds < 5400) return `about ${Math.round(seconds / 60)} minutes`;
  return `about ${(seconds / 3600).toFixed(seconds < 36_000 ? 1 : 0)} hours`;
}

/** When something comes by itself: `in 12 s`. */
export function inSeconds(milliseconds: number): string {
  const seconds = Math.ceil(milliseconds / 1000);
  return seconds > 0 ? `in ${seconds} s` : 'now';
}

/** `0x3C44…93BC` */
export function short(address: string): string {
  return `${address.slice(0, 6)}…${address.slice(-4)}`;
}
