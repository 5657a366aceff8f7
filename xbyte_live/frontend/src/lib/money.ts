/** What "1 MB" means in every price. */
export const MIB = 1_048_576n;

/** What bytes cost at a price in atomic units per MB: rounded up, at least 1, free at 0. */
export function amountFor(bytes: number | bigint, perMb: bigint): bigint {
  const size = BigInt(bytes);
  if (perMb === 0n || size === 0n) return 0n;
  const amount = ceilDiv(size * perMb, MIB);
  return amount > 1n ? amount : 1n;
}

/** A rendition as hls.js has it (`Level`), or its bits a second alone. */
export type Rate = number | { bitrate: number; averageBitrate?: number };

/** What a minute of a rendition costs about, in atomic units, by its average bitrate. */
export function costPerMinute(rendition: Rate, perMb: bigint): bigint {
  const { bitrate, averageBitrate = bitrate } =
    typeof rendition === 'number' ? { bitrate: rendition } : rendition;
  const rate = averageBitrate > 0 ? averageBitrate : bitrate;
  return amountFor(BigInt(Math.ceil((rate * 60) / 8)), perMb);
}

/** Atomic units of a decimal number such as `0.25`; throws `RangeError` for anything else. */
export function parseAmount(text: string, decimals = 6): bigint {
  const found = /^(\d{1,15})(?:\.(\d+))?$/.exec(text.trim());
  const fraction = (found?.[2] ?? '').replace(/0+$/, '');
  if (!found || fraction.length > decimals) {
    throw new RangeError(`${JSON.stringify(text)} is no amount with ${decimals} decimals`);
  }
  return BigInt(`${found[1]}${fraction.padEnd(decimals, '0')}`);
}

/** The decimal number of atomic units, with no needless zeros. */
export function formatAmount(amount: bigint, decimals = 6): string {
  const digits = (amount < 0n ? -amount : amount).toString().padStart(decimals + 1, '0');
  const whole = digits.slice(0, digits.length - decimals);
  const fraction = digits.slice(digits.length - decimals).replace(/0+$/, '');
  return `${amount < 0n ? '-' : ''}${whole}${fraction && `.${fraction}`}`;
}

export function ceilDiv(value: bigint, by: bigint): bigint {
  return (value + by - 1n) / by;
}

export function least(first: bigint, ...others: bigint[]): bigint {
  return others.reduce((a, b) => (b < a ? b : a), first);
}

export function most(first: bigint, ...others: bigint[]): bigint {
  return others.reduce((a, b) => (b > a ? b : a), first);
}
