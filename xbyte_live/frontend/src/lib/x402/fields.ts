import type { Hex } from './types';

const MAX_AMOUNT = 2n ** 63n - 1n;
export const ADDRESS = /^0x[0-9a-fA-F]{40}$/;
export const WORD = /^0x[0-9a-fA-F]{64}$/;
export const SIGNATURE = /^0x[0-9a-fA-F]{130}$/;

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Whether it is an address, and not that of nobody. */
export function isPayee(value: unknown): value is Hex {
  return matches(value, ADDRESS) && BigInt(value) !== 0n;
}

export function matches(value: unknown, pattern: RegExp): value is Hex {
  return typeof value === 'string' && pattern.test(value);
}

export function within(value: unknown, low: number, high: number): value is number {
  return Number.isInteger(value) && (value as number) >= low && (value as number) <= high;
}

/** A number of atomic units, in digits or as a safe integer; `undefined` for anything else. */
export function amountOf(value: unknown): bigint | undefined {
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value !== 'string' || !/^\d{1,19}$/.test(value)) return undefined;
  const found = BigInt(value);
  return found <= MAX_AMOUNT ? found : undefined;
}
