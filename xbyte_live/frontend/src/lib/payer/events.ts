import { PaymentError } from '../x402/errors';
import type { PayerEvents } from './types';

/** Dispatches the events of a payer to those who listen to it. */
export class EventDispatcher {
  constructor(private readonly target: EventTarget) {}

  /** Dispatch an event; false if a listener prevented what comes next. */
  dispatch<K extends keyof PayerEvents>(type: K, detail: PayerEvents[K]): boolean {
    return this.target.dispatchEvent(new CustomEvent(type, { detail, cancelable: true }));
  }

  /** Dispatch an `error`, if it is one of a payment. */
  report(error: unknown): void {
    if (!(error instanceof PaymentError)) return;
    const { code, message, retryable, asked, channelId } = error;
    const about = { ...(asked && { asked }), ...(channelId && { channelId }) };
    this.dispatch('error', { code, message, retryable, ...about });
  }
}
