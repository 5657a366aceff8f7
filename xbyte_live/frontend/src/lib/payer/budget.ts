import type { Budget } from './types';

const MINUTE = 60_000; // milliseconds

/** A limit that is reached; `resumesAt` (ms) is when it ends by itself. */
export interface Limit {
  limit: 'total' | 'minute' | 'deposit';
  needed: bigint;
  spent: bigint;
  cap: bigint;
  resumesAt?: number;
}

/** A limit of the budget was reached. */
export class LimitReached extends Error {
  constructor(readonly limit: Limit) {
    super(`the limit of the budget (${limit.limit}) is reached`);
  }
}

interface Moment {
  at: number;
  amount: bigint;
}

/**
 * The amounts that were signed and charged, against a budget.
 *
 * Each signed amount counts, delivered or not: servers may claim it.
 */
export class Spending {
  budget: Budget;
  /** The sum of all charges, in atomic units. */
  spent = 0n;
  /** The highest price that its owner agreed to, in atomic units per MB. */
  maxPerMb: bigint | undefined;
  #signed = 0n;
  #stakes: Moment[] = [];
  #charges: Moment[] = [];

  constructor(budget: Budget, maxPerMb?: bigint) {
    this.budget = budget;
    this.maxPerMb = maxPerMb;
  }

  /** The amount that may still be signed. */
  get left(): bigint {
    return this.budget.total > this.#signed ? this.budget.total - this.#signed : 0n;
  }

  /** The limit that keeps `stake` more from being signed, if one does. */
  check(stake: bigint, now: number): Limit | undefined {
    const { total, perMinute } = this.budget;
    if (stake > this.left) {
      return { limit: 'total', needed: stake, spent: this.#signed, cap: total };
    }
    if (perMinute === undefined || stake === 0n) return undefined;
    this.#stakes = lately(this.#stakes, now);
    const spent = sum(this.#stakes);
    let over = spent + stake - perMinute;
    if (over <= 0n) return undefined;
    const limit: Limit = { limit: 'minute', needed: stake, spent, cap: perMinute };
    for (const moment of this.#stakes) {
      over -= moment.amount;
      if (over <= 0n) return { ...limit, resumesAt: moment.at + MINUTE };
    }
    return limit;
  }

  /** Count `stake` as signed; the returned call takes that back, where it never left. */
  take(stake: bigint, now: number): () => void {
    const moment = { at: now, amount: stake };
    this.#signed += stake;
    if (stake > 0n) this.#stakes.push(moment);
    if (this.#stakes.length > 4096) this.#stakes = this.#stakes.slice(-2048);
    return () => {
      this.#signed -= stake;
      this.#stakes = this.#stakes.filter((other) => other !== moment);
    };
  }

  /** Count a charge. */
  charged(amount: bigint, now: number): void {
    this.spent += amount;
    this.#charges.push({ at: now, amount });
    if (this.#charges.length > 4096) this.#charges = this.#charges.slice(-2048);
  }

  /** The sum of the charges within the last 60 seconds. */
  perMinute(now: number): bigint {
    return sum(lately(this.#charges, now));
  }
}

/** Those of the last 60 seconds; what lies in the future since the clock was set back is of now. */
function lately(moments: readonly Moment[], now: number): Moment[] {
  for (const moment of moments) moment.at = Math.min(moment.at, now);
  return moments.filter((moment) => moment.at > now - MINUTE);
}

function sum(moments: readonly Moment[]): bigint {
  return moments.reduce((total, moment) => total + moment.amount, 0n);
}
