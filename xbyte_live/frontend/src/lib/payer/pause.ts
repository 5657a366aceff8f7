import type { PaymentError } from '../x402/errors';
import type { EventDispatcher } from './events';
import type { Waiting } from './types';

interface Reason {
  why: Waiting;
  error: PaymentError;
  until: Promise<void>;
  end: () => void;
}

/** Stops all purchases of a payer at a limit, or until the wallet's owner has done something. */
export class Pause {
  #reason: Reason | undefined;

  constructor(private readonly events: EventDispatcher) {}

  /** The reason of the pause; `undefined` while purchases go on. */
  get why(): Waiting | undefined {
    return this.#reason?.why;
  }

  get error(): PaymentError | undefined {
    return this.#reason?.error;
  }

  /** A promise that resolves when the pause ends. */
  get until(): Promise<void> | undefined {
    return this.#reason?.until;
  }

  /** Begin, unless it has; the returned call ends it, if it lasts still. */
  begin(why: Waiting, error: PaymentError): (() => void) | undefined {
    if (this.#reason) return undefined;
    let go = (): void => undefined;
    const until = new Promise<void>((resolve) => (go = resolve));
    const end = (): void => {
      if (this.#reason !== reason) return;
      this.#reason = undefined;
      go();
      this.events.dispatch('resume', { waited: why });
    };
    const reason: Reason = { why, error, until, end };
    this.#reason = reason;
    return end;
  }

  end(): void {
    this.#reason?.end();
  }
}
