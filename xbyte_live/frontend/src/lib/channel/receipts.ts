import type { Channel, OpenVoucher } from './channel';
import type { Receipt } from './types';
import type { Charge } from '../x402/wire';

/** What a voucher was charged for; `channel` as it stands since, `at` in ms since 1970. */
export function receiptOf(channel: Channel, voucher: OpenVoucher, taken: Charge, at: number): Receipt {
  return {
    url: voucher.url,
    ...(voucher.range !== undefined && { range: voucher.range }),
    bytes: voucher.bytes,
    amount: taken.charged,
    at,
    network: channel.network,
    asset: channel.config.token,
    payTo: channel.config.receiver,
    payer: channel.config.payer,
    channelId: channel.channelId,
    cumulative: channel.charged,
    ...(taken.transaction && { transaction: taken.transaction }),
  };
}
