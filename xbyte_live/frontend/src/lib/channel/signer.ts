import { LimitReached, type Limit, type Spending } from '../payer/budget';
import type { DeliveryRequest, PaymentContext } from '../payer/scheme';
import type { WalletAccount } from '../wallets/account';
import { loadSigningKey, type SigningKey } from '../wallets/keys';
import { assetOf } from '../x402/assets';
import { PaymentError } from '../x402/errors';
import { chainIdOf, channelIdOf, voucherDigest } from '../x402/typed_data';
import type { Asset, ChannelConfig, ChannelOffer, Hex } from '../x402/types';
import { encodeHeader } from '../x402/wire';
import {
  faultOf,
  newChannel,
  presented,
  stakeOf,
  withoutExpired,
  type Channel,
  type DepositOrder,
} from './channel';
import { depositWire, type Deposits } from './deposits';
import type { ChannelLock } from './lock';
import type { ChannelStore, KeptPayment } from './store';

// The same for good: with the session key it makes channels of this browser alone.
const SALT: Hex = `0x${'xbyte-hls'
  .split('')
  .map((char) => char.charCodeAt(0).toString(16))
  .join('')
  .padEnd(64, '0')}`;

/** Signs vouchers, with a deposit where one is due. */
export class ChannelSigner {
  readonly #keys = new Map<Hex, Promise<SigningKey>>();

  constructor(
    readonly deposits: Deposits,
    private readonly store: ChannelStore,
    private readonly spending: Spending,
    private readonly account: WalletAccount,
    private readonly assets: readonly Asset[],
    private readonly now: () => number,
  ) {}

  /** The best of these offers and the channel that pays it, as it is before a lock is taken. */
  async choose(offers: readonly ChannelOffer[]): Promise<{ offer: ChannelOffer; channel: Channel }> {
    const wallet = this.account.require();
    const payer = await this.account.of(wallet);
    const key = await this.#key(payer);
    const chain = offers.length > 1 ? await wallet.chainId().catch(() => 0) : 0;
    const ways = await Promise.all(
      offers.map(async (offer) => {
        const fresh = channelFor(offer, payer, key.address);
        const channel = (await this.store.channel(fresh.channelId)) ?? fresh;
        const onChain = chainIdOf(offer.network) === chain;
        const rank = channel.balance > channel.charged ? 0 : onChain ? 1 : 2;
        return { offer, channel, rank };
      }),
    );
    ways.sort((a, b) => a.rank - b.rank);
    const [best] = ways;
    if (!best) throw new PaymentError('no-way-to-pay', 'this server cannot be paid');
    return { offer: best.offer, channel: best.channel };
  }

  /** What keeps a payment from being signed, if its channel is as it was last seen. */
  limit(offer: ChannelOffer, channel: Channel): Limit | undefined {
    return this.spending.check(stakeOf(channel, BigInt(offer.amount)), this.now());
  }

  /**
   * Sign for one delivery in the channel's turn, with a deposit where one is due; on return it is
   * kept. Throws `LimitReached`, and `PaymentError` where the wallet does not do its part.
   */
  async sign(
    lock: ChannelLock,
    offer: ChannelOffer,
    wanted: DeliveryRequest,
    context: PaymentContext,
    signal?: AbortSignal,
  ): Promise<KeptPayment> {
    const before = withoutExpired(lock.channel, Math.floor(this.now() / 1000));
    const fault = faultOf(before);
    if (fault) throw fault;
    this.#require(offer, before);
    const wallet = this.account.require();
    const { channel, deposit } = await this.deposits.due(lock, before, offer, wallet, signal);
    signal?.throwIfAborted();
    this.#require(offer, channel); // the wallet may have taken its time
    // At once: a purchase through another channel shall find that this one has taken its part.
    const giveBack = this.spending.take(stakeOf(channel, BigInt(offer.amount)), this.now());
    try {
      const payment = await this.#payment(channel, offer, wanted, context, deposit);
      const { identity, ceiling, amount } = payment;
      const { url, bytes, range } = wanted;
      const open = {
        identity,
        ceiling,
        amount,
        deposit: payment.deposit,
        url,
        bytes,
        ...(range !== undefined && { range }),
      };
      await lock.keep(presented(channel, open, deposit), payment, deposit !== undefined);
      return payment;
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** The header of a refund of all that was not charged. */
  async refund(channel: Channel, offer: ChannelOffer, context: PaymentContext): Promise<string> {
    const key = await this.#key(channel.config.payer);
    const digest = voucherDigest(channel.channelId, channel.charged, chainIdOf(channel.network));
    return encodeHeader({
      x402Version: 2,
      accepted: offer,
      payload: {
        type: 'refund',
        channelConfig: channel.config,
        voucher: {
          channelId: channel.channelId,
          maxClaimableAmount: channel.charged.toString(),
          signature: await key.sign(digest),
        },
      },
      ...context,
    });
  }

  async #payment(
    channel: Channel,
    offer: ChannelOffer,
    { resource }: DeliveryRequest,
    context: PaymentContext,
    deposit: DepositOrder | undefined,
  ): Promise<KeptPayment> {
    const amount = BigInt(offer.amount);
    const ceiling = channel.charged + amount;
    const key = await this.#key(channel.config.payer);
    const digest = voucherDigest(channel.channelId, ceiling, chainIdOf(offer.network));
    const voucher = {
      channelId: channel.channelId,
      maxClaimableAmount: ceiling.toString(),
      signature: await key.sign(digest),
    };
    return {
      resource,
      channelId: channel.channelId,
      identity: `${channel.channelId}:${channel.serial}`,
      header: encodeHeader({
        x402Version: 2,
        accepted: offer,
        payload: {
          type: deposit ? 'deposit' : 'voucher',
          channelConfig: channel.config,
          voucher,
          ...(deposit && { deposit: depositWire(deposit) }),
        },
        ...context,
      }),
      terms: offer,
      amount,
      ceiling,
      deposit: deposit?.amount ?? 0n,
      at: this.now(),
      charged: false,
    };
  }

  #require(offer: ChannelOffer, channel: Channel): void {
    if (!assetOf(offer, this.assets)) {
      throw new PaymentError('no-way-to-pay', 'the server wants a token not allowed here');
    }
    const limit = this.limit(offer, channel);
    if (limit) throw new LimitReached(limit);
  }

  async #key(payer: Hex): Promise<SigningKey> {
    let key = this.#keys.get(payer);
    if (!key) {
      key = loadSigningKey(this.store, `session:${payer}`);
      this.#keys.set(payer, key);
      key.catch(() => this.#keys.delete(payer));
    }
    return key;
  }
}

function channelFor(offer: ChannelOffer, payer: Hex, session: Hex): Channel {
  const lower = (address: Hex): Hex => address.toLowerCase() as Hex;
  const config: ChannelConfig = {
    payer,
    payerAuthorizer: session,
    receiver: lower(offer.payTo),
    receiverAuthorizer: lower(offer.extra.receiverAuthorizer),
    token: lower(offer.asset),
    withdrawDelay: offer.extra.withdrawDelay,
    salt: SALT,
  };
  const channelId = channelIdOf(config, chainIdOf(offer.network)).toLowerCase() as Hex;
  return newChannel(channelId, offer.network, config);
}
