import { discard, unreachable } from '../http';
import type { HttpClient } from '../payer/http_retry';
import type { ChainReader } from '../wallets/rpc';
import { CHANNEL_OFFERS, isChannelOffer } from '../x402/channel_offers';
import { readRefund } from '../x402/channel_wire';
import {
  AMOUNT_MISMATCH,
  BELOW_CLAIMED,
  BUSY,
  CHANNEL_NOT_FOUND,
  REFUND_NOTHING,
} from '../x402/codes';
import { PaymentError } from '../x402/errors';
import type { ChannelOffer, Hex } from '../x402/types';
import { readChallenge, retryAfter, type Challenge } from '../x402/wire';
import { emptied, reconciled, refundable, refunded, returnable, type Channel } from './channel';
import { ChannelLock } from './lock';
import { proofOf } from './proof';
import type { ReceiptBook } from './receipts';
import { recover } from './recovery';
import type { ChannelSigner } from './signer';
import type { ChannelStore } from './store';
import type { Refund } from './types';

const TRIES = 6;

/** Which channels to refund: those of a payer or, without one, all; or those that are named. */
export interface RefundFilter {
  payer?: Hex | undefined;
  named?: readonly Hex[] | undefined;
  url?: string | undefined;
}

/** Refunds of channels, asked of their servers. */
export class Refunds {
  constructor(
    private readonly store: ChannelStore,
    private readonly signer: ChannelSigner,
    private readonly chain: ChainReader,
    private readonly receipts: ReceiptBook,
    private readonly http: HttpClient,
    private readonly now: () => number,
  ) {}

  /** Refund what was not charged; throws `PaymentError` when that fails for all there is. */
  async refundAll({ payer, named, url }: RefundFilter): Promise<Refund[]> {
    const channels = (await this.store.channels()).filter(
      (channel) =>
        (named?.includes(channel.channelId) ?? isOf(channel, payer)) &&
        returnable(channel, Infinity) > 0n,
    );
    const refunds: Refund[] = [];
    const failures: unknown[] = [];
    for (const channel of channels) {
      const lock = await ChannelLock.take(this.store, channel);
      try {
        await this.#look(lock);
        const { returned = 0n } = lock.channel;
        const again = named !== undefined && returned > 0n;
        if (!again && refundable(lock.channel) === 0n) continue;
        const refund = await this.#refund(lock, placesOf(lock.channel, url));
        if (refund) refunds.push(refund);
      } catch (error) {
        failures.push(error);
      } finally {
        lock.release();
      }
    }
    if (refunds.length === 0 && failures.length > 0) throw failures[0];
    return refunds;
  }

  /** Compare a refund that its server told of with the chain, where a node is known. */
  async #look(lock: ChannelLock): Promise<void> {
    if (!lock.channel.returned) return;
    const found = await this.chain.channel(lock.channel);
    if (found) await lock.keep(reconciled(lock.channel, found.balance), undefined, true);
  }

  async #refund(lock: ChannelLock, urls: readonly string[]): Promise<Refund | undefined> {
    let silent = false;
    for (const url of urls) {
      const response = await this.#send(url, {});
      silent ||= !response;
      if (response) await discard(response);
      if (response?.status !== 402) continue;
      const challenge = readChallenge(response.headers, [CHANNEL_OFFERS]);
      const offer = challenge.offers.filter(isChannelOffer).find((one) => pays(one, lock.channel));
      if (offer) return this.#ask(lock, url, offer, challenge);
    }
    if (silent) throw unreachable();
    throw new PaymentError('refused', 'nothing this channel pays for is on sale here any more');
  }

  async #ask(
    lock: ChannelLock,
    url: string,
    offer: ChannelOffer,
    { resource, extensions }: Challenge,
  ): Promise<Refund | undefined> {
    const context = { ...(resource && { resource }), ...(extensions && { extensions }) };
    const until = performance.now() + this.http.patience.pending;
    for (let tries = 0; tries < TRIES; ) {
      const header = await this.signer.refund(lock.channel, offer, context);
      const headers = { 'payment-signature': header };
      const response = await this.#send(url, { headers, redirect: 'error' });
      const refund = response && readRefund(response.headers);
      if (refund) {
        await discard(response);
        if (refund.amount > returnable(lock.channel, this.now() / 1000)) {
          const what = `the server says that it gave back ${refund.amount}, which was not there`;
          throw new PaymentError('refused', what);
        }
        const next = refunded(lock.channel, refund.amount);
        await lock.keep(next, undefined, true);
        const found = await this.chain.channel(next);
        if (found && found.balance <= next.balance) await lock.keep({ ...next, returned: 0n });
        return { channelId: lock.channel.channelId, ...refund };
      }
      const wait = await this.#judge(lock, response);
      if (wait === 'nothing') return undefined;
      if (wait === 0) tries += 1;
      else if (performance.now() + wait > until) break;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    throw new PaymentError('pending', 'the server has not given it back yet; ask again', true);
  }

  /** Ask once; no answer is `undefined`. */
  async #send(url: string, init: RequestInit): Promise<Response | undefined> {
    const { fetch: get, patience } = this.http;
    const signal = AbortSignal.timeout(patience.firstByte);
    return get(url, { ...init, cache: 'no-store', signal }).catch(() => undefined);
  }

  /** How long to wait (ms) before the next try: 0 once the channel was mended. */
  async #judge(lock: ChannelLock, response: Response | undefined): Promise<number | 'nothing'> {
    if (!response) return 1000;
    await discard(response);
    if (response.status !== 402) {
      if (response.status < 500 && response.status !== 429) {
        const what = `the server answered ${response.status} to a refund`;
        throw new PaymentError('refused', what, false, response.status);
      }
      return 1000 * Math.max(1, retryAfter(response.headers) ?? 1);
    }
    const challenge = readChallenge(response.headers, [CHANNEL_OFFERS]);
    if (challenge.error === BUSY) return 1000;
    if (challenge.error === REFUND_NOTHING || challenge.error === CHANNEL_NOT_FOUND) {
      const found = await this.chain.channel(lock.channel);
      const denied = found ? found.balance > lock.channel.charged : challenge.error !== REFUND_NOTHING;
      if (!denied) {
        const { charged: balance } = lock.channel;
        const returned = found ? 0n : returnable(lock.channel, Infinity);
        await lock.keep({ ...emptied(lock.channel), balance, returned });
        return 'nothing';
      }
    }
    if (challenge.error !== AMOUNT_MISMATCH && challenge.error !== BELOW_CLAIMED) {
      throw new PaymentError('refused', `the server does not refund (${challenge.error})`);
    }
    await this.#mend(lock, challenge);
    return 0;
  }

  async #mend(lock: ChannelLock, challenge: Challenge): Promise<void> {
    const proof = await proofOf(challenge, lock.channel, this.chain);
    const outcome = recover(lock.channel, { ...proof, identity: '', presentedBefore: false });
    if (outcome.verdict === 'refused') {
      throw new PaymentError('refused', `the server does not refund (${challenge.error})`);
    }
    await lock.keep(outcome.channel);
    if (outcome.charged) {
      const taken = { charged: outcome.charged.amount };
      this.receipts.add(outcome.channel, outcome.charged, taken);
    }
  }
}

/** URLs to ask at: what was bought last, then `/channels/{id}` of each server. */
function placesOf({ channelId, urls }: Channel, url: string | undefined): string[] {
  const bought = url === undefined ? urls : [url];
  const origins = new Set([...bought, ...urls].map((each) => new URL(each).origin));
  return [...bought, ...[...origins].map((origin) => `${origin}/channels/${channelId}`)];
}

/** Whether a channel is of that payer, where one is named. */
function isOf({ config }: Channel, payer: Hex | undefined): boolean {
  return payer === undefined || config.payer === payer.toLowerCase();
}

function pays(offer: ChannelOffer, { config, network }: Channel): boolean {
  return (
    offer.network === network &&
    offer.asset.toLowerCase() === config.token &&
    offer.payTo.toLowerCase() === config.receiver &&
    offer.extra.receiverAuthorizer.toLowerCase() === config.receiverAuthorizer &&
    offer.extra.withdrawDelay === config.withdrawDelay
  );
}
