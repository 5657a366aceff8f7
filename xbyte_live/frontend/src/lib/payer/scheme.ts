import type { Receipt } from '../channel/types';
import type { PaymentError } from '../x402/errors';
import type { Offer } from '../x402/types';
import type { Challenge, OfferRule } from '../x402/wire';

/** The bytes that a payment is for: `resource` is their URL, and range if any. */
export interface DeliveryRequest {
  resource: string;
  url: string;
  range?: string;
  /** 0 where it is not known. */
  bytes: number;
}

/** What a 402 adds to the payment that answers it. */
export interface PaymentContext {
  resource?: object;
  extensions?: object;
}

/** A payment scheme of x402 as a payer knows it. */
export interface PaymentScheme {
  /** Its name, and which of its offers can be believed. */
  readonly rule: OfferRule;
  /** Begin to pay for one delivery; nothing is signed by that. */
  start(delivery: DeliveryRequest): SchemePayment;
}

/** What to do after a 402 to a payment: present it again, or sign another one after `wait` ms. */
export type NextStep = { kind: 'present' } | { kind: 'sign'; wait: number };

/** The payments by one scheme for one delivery, of which at most one is charged. */
export interface SchemePayment {
  /** What `PAYMENT-SIGNATURE` is to be; `undefined` while nothing is signed. */
  readonly header: string | undefined;
  /** The receipt of the charge, once its server has confirmed it. */
  readonly receipt: Receipt | undefined;
  /** Take over what an earlier request for the same bytes left open; false if it left nothing. */
  resume(signal?: AbortSignal): Promise<boolean>;
  /**
   * Choose one of these offers, all of this scheme, and wait for the right to sign for it. Throws
   * `LimitReached`, and `PaymentError` where none can be paid.
   */
  prepare(offers: readonly Offer[], signal?: AbortSignal): Promise<void>;
  /** Sign for the chosen offer; what is signed is kept before this returns. */
  sign(context: PaymentContext, signal?: AbortSignal): Promise<void>;
  /** Learn from a 402; throws `PaymentError` where signing again would not help. */
  refused(challenge: Challenge, presentedBefore: boolean): Promise<NextStep>;
  /** Learn from an answer with the bytes; false if it tells of no charge. */
  confirm(response: Response): Promise<boolean>;
  /** It was not taken, or never left. */
  cancel(): Promise<void>;
  /** The bytes that were paid for came. */
  delivered(): Promise<void>;
  /** Other bytes came: `error` is what is thrown for it. */
  misdelivered(error: PaymentError): Promise<void>;
  /** Its caller has the bytes: nothing is kept of it. */
  forget(): Promise<void>;
  /** Give up the right to sign. */
  release(): void;
}
