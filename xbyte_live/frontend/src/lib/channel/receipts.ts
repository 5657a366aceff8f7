import type { Spending } from '../payer/budget';
import type { EventDispatcher } from '../payer/events';
import type { Charge } from '../x402/channel_wire';
import type { Channel, OpenVoucher } from './channel';
import type { Receipt } from './types';

const MOST_RECEIPTS = 20_000;

/** The receipts of what was charged; each counts against the budget and is told of. */
export class ReceiptBook {
  readonly #receipts: Receipt[] = [];

  constructor(
    private readonly spending: Spending,
    private readonly events: EventDispatcher,
    private readonly now: () => number,
  ) {}

  /** All receipts, the oldest first; the last 20,000. */
  get all(): readonly Receipt[] {
    return this.#receipts;
  }

  /** Make a receipt for the charge of a voucher; `channel` as it stands since. */
  add(channel: Channel, voucher: OpenVoucher, charge: Charge): Receipt {
    const receipt = receiptOf(channel, voucher, charge, this.now());
    this.count(receipt);
    if (voucher.deposit > 0n) {
      const { deposit: amount } = voucher;
      const { transaction } = receipt;
      this.events.dispatch('deposit', { amount, state: 'done', ...(transaction && { transaction }) });
    }
    return receipt;
  }

  /** Count a receipt, whatever it was paid with. */
  count(receipt: Receipt): void {
    const { amount, bytes, url } = receipt;
    const now = this.now();
    this.spending.charged(amount, now);
    this.#receipts.push(receipt);
    if (this.#receipts.length > MOST_RECEIPTS) this.#receipts.shift();
    const { spent: total } = this.spending;
    const perMinute = this.spending.perMinute(now);
    this.events.dispatch('spend', { amount, total, bytes, url, perMinute });
  }
}

function receiptOf(channel: Channel, voucher: OpenVoucher, charge: Charge, at: number): Receipt {
  return {
    url: voucher.url,
    ...(voucher.range !== undefined && { range: voucher.range }),
    bytes: voucher.bytes,
    amount: charge.charged,
    at,
    network: channel.network,
    asset: channel.config.token,
    payTo: channel.config.receiver,
    payer: channel.config.payer,
    channelId: channel.channelId,
    cumulative: channel.charged,
    ...(charge.transaction && { transaction: charge.transaction }),
  };
}
