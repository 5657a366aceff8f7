import {
  caught,
  confirmed,
  faultOf,
  forgiven,
  isDepositing,
  isOpen,
  misdelivered,
  refused,
  superseded,
  type Channel,
  type DepositOrder,
  type OpenVoucher,
} from './channel';
import { EXPIRY_MARGIN } from './deposits';
import { ChannelLock } from './lock';
import { proofOf } from './proof';
import { recover } from './recovery';
import { lengthOf, lost, wrongClock } from '../http';
import { LimitReached } from '../payer/budget';
import type { EventDispatcher } from '../payer/events';
import { stillOffered } from '../payer/offers';
import type {
  DeliveryRequest,
  NextStep,
  PaymentContext,
  PaymentScheme,
  SchemePayment,
} from '../payer/scheme';
import type { ChainReader } from '../wallets/rpc';
import { CHANNEL_OFFERS, isChannelOffer } from '../x402/channel_offers';
import { readCharge } from '../x402/channel_wire';
import { BUSY, DEPOSIT_BELOW_MINIMUM, DEPOSIT_EXPIRED } from '../x402/codes';
import { PaymentError } from '../x402/errors';
import type { ChannelOffer, Hex, Offer } from '../x402/types';
import type { Challenge, OfferRule } from '../x402/wire';
import type { ReceiptBook } from './receipts';
import type { ChannelSigner } from './signer';
import type { ChannelStore, KeptPayment } from './store';
import type { Receipt } from './types';

export const RETRY_WINDOW = 120_000; // milliseconds a server re-serves for the same payment
const MOST_VOUCHERS = 4; // that are signed for one delivery, none of them charged

/** The scheme `batch-settlement`: vouchers of payment channels. */
export class BatchSettlement implements PaymentScheme {
  readonly rule: OfferRule = CHANNEL_OFFERS;

  constructor(
    readonly store: ChannelStore,
    readonly signer: ChannelSigner,
    readonly chain: ChainReader,
    readonly receipts: ReceiptBook,
    readonly events: EventDispatcher,
    readonly now: () => number,
  ) {}

  start(delivery: DeliveryRequest): VoucherPayment {
    return new VoucherPayment(this, delivery);
  }

  /** Pay a server again that twice in a row delivered what was not paid for, or all such. */
  async trustAgain(channelId?: Hex): Promise<void> {
    for (const channel of await this.store.channels()) {
      if (channelId !== undefined && channel.channelId !== channelId) continue;
      if (forgiven(channel) === channel) continue;
      const lock = await ChannelLock.take(this.store, channel);
      try {
        await lock.keep(forgiven(lock.channel), undefined, true);
      } finally {
        lock.release();
      }
    }
  }
}

/** The vouchers for one delivery, of which at most one is charged. */
class VoucherPayment implements SchemePayment {
  readonly #scheme: BatchSettlement;
  readonly #delivery: DeliveryRequest;
  #offer: ChannelOffer | undefined;
  #lock: ChannelLock | undefined;
  #payment: KeptPayment | undefined;
  #receipt: Receipt | undefined;
  #refusals = 0;
  #expired = false; // a deposit was, and another one was signed

  constructor(scheme: BatchSettlement, delivery: DeliveryRequest) {
    this.#scheme = scheme;
    this.#delivery = delivery;
  }

  get header(): string | undefined {
    return this.#payment?.header;
  }

  get receipt(): Receipt | undefined {
    return this.#receipt;
  }

  async resume(signal?: AbortSignal): Promise<boolean> {
    const { store, now } = this.#scheme;
    const kept = await store.payment(this.#delivery.resource);
    if (kept?.terms.scheme !== this.#scheme.rule.scheme) return false;
    const channel = await store.channel(kept.channelId);
    if (!channel || now() > kept.at + RETRY_WINDOW || channel.gone.includes(kept.identity)) {
      await store.dropPayment(kept);
      return false;
    }
    this.#lock = await ChannelLock.take(store, channel, signal);
    const fault = faultOf(this.#lock.channel);
    if (fault?.code === 'misdelivered') throw fault; // what was paid for is there once it is forgiven
    if (this.#lock.channel.gone.includes(kept.identity) || fault) {
      await store.dropPayment(kept);
      this.release();
      return false;
    }
    this.#payment = kept;
    return true;
  }

  async prepare(offers: readonly Offer[], signal?: AbortSignal): Promise<void> {
    const { signer, store } = this.#scheme;
    const { offer, channel } = await signer.choose(offers.filter(isChannelOffer));
    const limit = signer.limit(offer, channel);
    if (limit) throw new LimitReached(limit);
    if (this.#lock?.channel.channelId !== channel.channelId) {
      this.release();
      this.#lock = await ChannelLock.take(store, channel, signal);
    }
    this.#offer = offer;
  }

  async sign(context: PaymentContext, signal?: AbortSignal): Promise<void> {
    if (!this.#lock || !this.#offer) throw new Error('nothing was chosen to be paid');
    const { signer, events } = this.#scheme;
    const payment = await signer.sign(this.#lock, this.#offer, this.#delivery, context, signal);
    if (signal?.aborted) {
      await this.#cancel(payment); // it never left
      signal.throwIfAborted();
    }
    this.#payment = payment;
    if (payment.deposit) events.dispatch('deposit', { amount: payment.deposit, state: 'sent' });
  }

  async refused(challenge: Challenge, presentedBefore: boolean): Promise<NextStep> {
    const payment = this.#payment;
    if (!payment) return { kind: 'sign', wait: 0 };
    if (challenge.error === BUSY) return { kind: 'present' };
    const { store, chain, receipts } = this.#scheme;
    const lock = await this.#ownLock(payment);
    this.#payment = undefined;
    if (!isOpen(lock.channel, payment.identity)) {
      await store.dropPayment(payment);
      if (payment.charged) throw await this.#misdelivered(payment, lost());
      return { kind: 'sign', wait: 0 };
    }
    const proof = await proofOf(challenge, lock.channel, chain);
    const { identity } = payment;
    const order = payment.deposit ? lock.channel.deposit : undefined;
    const recovery = await this.#learn(lock, (channel) =>
      recover(channel, { ...proof, identity, presentedBefore }),
    );
    await lock.keep(recovery.channel);
    const { charged } = recovery;
    if (charged) receipts.add(lock.channel, charged, { charged: charged.amount });
    if (recovery.verdict === 'charged') {
      await store.dropPayment(payment);
      throw await this.#misdelivered(payment, lost());
    }
    const wait = order && (await this.#renewedAfter(lock, payment, order, challenge));
    const again = recovery.verdict === 'again' || wait !== undefined;
    const expired = order && challenge.error === DEPOSIT_EXPIRED && wait === undefined;
    const hopeless = presentedBefore || stillOffered(challenge, payment.terms);
    if (expired || (!again && hopeless) || ++this.#refusals >= MOST_VOUCHERS) {
      if (!presentedBefore) await store.dropPayment(payment);
      if (expired) throw wrongClock();
      const code = challenge.error || 'payment_required';
      const what = payment.deposit ? 'deposit' : 'voucher';
      throw new PaymentError(
        'refused',
        `the server refused a ${what} (${code}) and charged nothing`,
        payment.deposit > 0n || isDepositing(lock.channel),
        402,
      );
    }
    await store.dropPayment(payment);
    return { kind: 'sign', wait: wait ?? 0 };
  }

  /** Have the server's account of its charge checked, before more is signed for it. */
  async confirm(response: Response): Promise<boolean> {
    const payment = this.#payment;
    if (!payment) return false;
    const lock = await this.#ownLock(payment);
    const charge = readCharge(response.headers);
    const open = lock.channel.open.find((voucher) => voucher.identity === payment.identity);
    if (open && charge) {
      const channel = await this.#learn(lock, (before) =>
        confirmed(before, payment.identity, charge),
      );
      this.#payment = { ...payment, charged: true };
      await lock.keep(channel, this.#payment);
      const voucher: OpenVoucher = { ...open, bytes: open.bytes || lengthOf(response) };
      this.#receipt = this.#scheme.receipts.add(lock.channel, voucher, charge);
    }
    return charge !== undefined;
  }

  async cancel(): Promise<void> {
    if (this.#payment) await this.#cancel(this.#payment);
  }

  async delivered(): Promise<void> {
    const payment = this.#payment;
    if (!payment) return;
    const channel = await this.#scheme.store.channel(payment.channelId);
    if (!channel?.wrong) return;
    const lock = await this.#ownLock(payment);
    if (!lock.channel.fault) await lock.keep({ ...lock.channel, wrong: 0 });
    this.release();
  }

  async misdelivered(error: PaymentError): Promise<void> {
    if (this.#payment) await this.#misdelivered(this.#payment, error);
  }

  async forget(): Promise<void> {
    if (this.#payment) await this.#scheme.store.dropPayment(this.#payment);
  }

  release(): void {
    this.#lock?.release();
    this.#lock = undefined;
  }

  /** How long to wait (ms) before another deposit would be taken; `undefined` if none would. */
  async #renewedAfter(
    lock: ChannelLock,
    payment: KeptPayment,
    order: DepositOrder,
    challenge: Challenge,
  ): Promise<number | undefined> {
    const { signer, now } = this.#scheme;
    if (challenge.error === DEPOSIT_BELOW_MINIMUM) {
      const { channelId, terms } = payment;
      const offers = challenge.offers.filter(isChannelOffer);
      const asked = offers.find(({ asset }) => asset === terms.asset) ?? terms;
      if (!signer.deposits.raiseFloor(channelId, order, asked)) return undefined;
      await lock.keep(superseded(lock.channel), undefined, true);
      return 0;
    }
    const left = order.validBefore * 1000 - now();
    if (challenge.error !== DEPOSIT_EXPIRED || left > EXPIRY_MARGIN * 1000) return undefined;
    if (this.#expired) return undefined;
    this.#expired = true;
    return Math.max(0, left); // servers want it to be good for a little longer
  }

  /**
   * Other bytes came than were paid for. The payment stays good for the right ones, and nothing is
   * signed to a server that does so twice in a row, however often its caller tries again.
   */
  async #misdelivered(payment: KeptPayment, error: PaymentError): Promise<PaymentError> {
    const lock = await this.#ownLock(payment);
    const channel = misdelivered(lock.channel, error.message);
    await lock.keep(channel, undefined, channel.fault !== '');
    return error;
  }

  async #cancel(payment: KeptPayment): Promise<void> {
    const lock = await this.#ownLock(payment);
    if (isOpen(lock.channel, payment.identity)) {
      await lock.keep(refused(lock.channel, payment.identity));
    }
    await this.#scheme.store.dropPayment(payment);
  }

  async #ownLock(payment: KeptPayment): Promise<ChannelLock> {
    const { store } = this.#scheme;
    if (this.#lock) return this.#lock;
    const channel = await store.channel(payment.channelId);
    if (!channel) throw new PaymentError('storage', 'the channel is not kept any more');
    this.#lock = await ChannelLock.take(store, channel);
    return this.#lock;
  }

  /** Learn from a server; one that is caught at claiming too much is never paid again. */
  async #learn<T>(lock: ChannelLock, learn: (channel: Channel) => T): Promise<T> {
    try {
      return learn(lock.channel);
    } catch (error) {
      if (error instanceof PaymentError && error.code === 'overcharged') {
        await lock.keep(caught(lock.channel, error.message), undefined, true);
        throw faultOf(lock.channel) ?? error;
      }
      throw error;
    }
  }
}
