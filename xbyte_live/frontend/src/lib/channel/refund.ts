import { emptied, refundable, refunded, returnable, reconciled, type Channel } from './channel';
import {
  AMOUNT_MISMATCH,
  BELOW_CLAIMED,
  BUSY,
  CHANNEL_NOT_FOUND,
  REFUND_NOTHING,
} from '../x402/codes';
import { PaymentError } from '../x402/errors';
import { discard, unreachable } from '../http';
import { proofOf } from './proof';
import type { Means } from '../payer/purchase';
import { receiptOf } from './receipts';
import { recover } from './recovery';
import { ChannelLock } from './lock';
import type { Refund } from './types';
import type { Hex, ChannelOffer } from '../x402/types';
import { readChallenge, readRefund, retryAfter, type Challenge } from '../x402/wire';

const TRIES = 6;

/** Which channels to refund: those of a payer or, without one, all; or those that are named. */
export interface RefundFilter {
  payer?: Hex | undefined;
  named?: readonly Hex[] | undefined;
  url?: string | undefined;
}

/** Gets money back out of channels, by their servers. */
export class Refunds {
  readonly #means: Means;

  constructor(means: Means) {
    this.#means = means;
  }

  /** Refund what can be had back; throws `PaymentError` when that fails for all there is. */
  async refundAll({ payer, named, url }: RefundFilter): Promise<Refund[]> {
    const { store } = this.#means;
    const channels = (await store.channels()).filter(
      (channel) =>
        (named?.includes(channel.channelId) ?? isOf(channel, payer)) &&
        returnable(channel, Infinity) > 0n,
    );
    const refunds: Refund[] = [];
    const failures: unknown[] = [];
    for (const channel of channels) {
      const turn = await ChannelLock.take(store, channel);
      try {
        await this.#look(turn);
        const { returned = 0n } = turn.channel;
        const again = named !== undefined && returned > 0n;
        if (!again && refundable(turn.channel) === 0n) continue;
        const refund = await this.#refund(turn, placesOf(turn.channel, url));
        if (refund) refunds.push(refund);
      } catch (error) {
        failures.push(error);
      } finally {
        turn.release();
      }
    }
    if (refunds.length === 0 && failures.length > 0) throw failures[0];
    return refunds;
  }

  /** What its server said went back is looked for on the chain, where a node is known. */
  async #look(turn: ChannelLock): Promise<void> {
    if (!turn.channel.returned) return;
    const found = await this.#means.till.onChain(turn.channel);
    if (found) await turn.keep(reconciled(turn.channel, found.balance), undefined, true);
  }

  async #refund(turn: ChannelLock, urls: readonly string[]): Promise<Refund | undefined> {
    let silent = false;
    for (const url of urls) {
      const response = await this.#send(url, {});
      silent ||= !response;
      if (response) await discard(response);
      if (response?.status !== 402) continue;
      const challenge = readChallenge(response.headers);
      const terms = challenge.offers.find((offer) => pays(offer, turn.channel));
      if (terms) return this.#ask(turn, url, terms, challenge);
    }
    if (silent) throw unreachable();
    throw new PaymentError('refused', 'nothing this channel pays for is on sale here any more');
  }

  async #ask(
    turn: ChannelLock,
    url: string,
    terms: ChannelOffer,
    { resource, extensions }: Challenge,
  ): Promise<Refund | undefined> {
    const context = { ...(resource && { resource }), ...(extensions && { extensions }) };
    const until = performance.now() + this.#means.patience.pending;
    for (let tries = 0; tries < TRIES; ) {
      const header = await this.#means.till.refund(turn.channel, terms, context);
      const headers = { 'payment-signature': header };
      const response = await this.#send(url, { headers, redirect: 'error' });
      const refund = response && readRefund(response.headers);
      if (refund) {
        await discard(response);
        if (refund.amount > returnable(turn.channel, this.#means.now() / 1000)) {
          const what = `the server says that it gave back ${refund.amount}, which was not there`;
          throw new PaymentError('refused', what);
        }
        const next = refunded(turn.channel, refund.amount);
        await turn.keep(next, undefined, true);
        const found = await this.#means.till.onChain(next);
        if (found && found.balance <= next.balance) await turn.keep({ ...next, returned: 0n });
        return { channelId: turn.channel.channelId, ...refund };
      }
      const wait = await this.#judge(turn, response);
      if (wait === 'nothing') return undefined;
      if (wait === 0) tries += 1;
      else if (performance.now() + wait > until) break;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
    throw new PaymentError('pending', 'the server has not given it back yet; ask again', true);
  }

  /** Ask once; no answer is `undefined`. */
  async #send(url: string, init: RequestInit): Promise<Response | undefined> {
    const { fetch: get, patience } = this.#means;
    const signal = AbortSignal.timeout(patience.firstByte);
    return get(url, { ...init, cache: 'no-store', signal }).catch(() => undefined);
  }

  /** How long to wait (ms) before the next try: 0 once the channel was mended. */
  async #judge(turn: ChannelLock, response: Response | undefined): Promise<number | 'nothing'> {
    if (!response) return 1000;
    await discard(response);
    if (response.status !== 402) {
      if (response.status < 500 && response.status !== 429) {
        const what = `the server answered ${response.status} to a refund`;
        throw new PaymentError('refused', what, false, response.status);
      }
      return 1000 * Math.max(1, retryAfter(response.headers) ?? 1);
    }
    const challenge = readChallenge(response.headers);
    if (challenge.error === BUSY) return 1000;
    if (challenge.error === REFUND_NOTHING || challenge.error === CHANNEL_NOT_FOUND) {
      const found = await this.#means.till.onChain(turn.channel);
      const denied = found ? found.balance > turn.channel.charged : challenge.error !== REFUND_NOTHING;
      if (!denied) {
        const { charged: balance } = turn.channel;
        const returned = found ? 0n : returnable(turn.channel, Infinity);
        await turn.keep({ ...emptied(turn.channel), balance, returned });
        return 'nothing';
      }
    }
    if (challenge.error !== AMOUNT_MISMATCH && challenge.error !== BELOW_CLAIMED) {
      throw new PaymentError('refused', `the server does not refund (${challenge.error})`);
    }
    await this.#mend(turn, challenge);
    return 0;
  }

  async #mend(turn: ChannelLock, challenge: Challenge): Promise<void> {
    const { till } = this.#means;
    const evidence = await proofOf(challenge, turn.channel, async (of) => till.onChain(of));
    const outcome = recover(turn.channel, { ...evidence, identity: '', presentedBefore: false });
    if (outcome.verdict === 'refused') {
      throw new PaymentError('refused', `the server does not refund (${challenge.error})`);
    }
    await turn.keep(outcome.channel);
    if (outcome.charged) {
      const taken = { charged: outcome.charged.amount };
      const receipt = receiptOf(outcome.channel, outcome.charged, taken, this.#means.now());
      this.#means.charged(receipt, outcome.charged.deposit);
    }
  }
}

/** Where to ask: by what was bought last, then where a server still knows its channels. */
function placesOf({ channelId, urls }: Channel, url: string | undefined): string[] {
  const bought = url === undefined ? urls : [url];
  const origins = new Set([...bought, ...urls].map((each) => new URL(each).origin));
  return [...bought, ...[...origins].map((origin) => `${origin}/channels/${channelId}`)];
}

/** Whether a channel is of that payer, where one is named. */
function isOf({ config }: Channel, payer: Hex | undefined): boolean {
  return payer === undefined || config.payer === payer.toLowerCase();
}

function pays(terms: ChannelOffer, { config, network }: Channel): boolean {
  return (
    terms.network === network &&
    terms.asset.toLowerCase() === config.token &&
    terms.payTo.toLowerCase() === config.receiver &&
    terms.extra.receiverAuthorizer.toLowerCase() === config.receiverAuthorizer &&
    terms.extra.withdrawDelay === config.withdrawDelay
  );
}
