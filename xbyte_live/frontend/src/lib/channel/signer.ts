import type { WalletAccount } from '../wallets/account';
import { assetOf } from '../x402/assets';
import {
  stakeOf,
  faultOf,
  newChannel,
  presented,
  withoutExpired,
  type Channel,
  type DepositOrder,
} from './channel';
import { Deposits, depositWire, type Teller } from './deposits';
import { PaymentError } from '../x402/errors';
import { type SigningKey, loadSigningKey } from '../wallets/keys';
import { LimitReached, type Limit, type Spending } from '../payer/budget';
import { readChannel, type ChannelOnChain } from '../wallets/rpc';
import type { ChannelStore, KeptPayment } from './store';
import type { ChannelLock } from './lock';
import { chainIdOf, channelIdOf, voucherDigest } from '../x402/typed_data';
import type { Wallet } from '../wallets/wallet';
import type { Asset, ChannelConfig, Hex, ChannelOffer } from '../x402/types';
import { encodeHeader } from '../x402/wire';

// The same for good: with the session key it makes channels of this browser alone.
const SALT: Hex = `0x${'xbyte-hls'
  .split('')
  .map((char) => char.charCodeAt(0).toString(16))
  .join('')
  .padEnd(64, '0')}`;

/** What a delivery is, whatever it is paid with. */
export interface DeliveryRequest {
  resource: string;
  url: string;
  range?: string;
  bytes: number;
}

/** What a 402 adds to the payment that answers it. */
export interface PaymentContext {
  resource?: object;
  extensions?: object;
}

/** Signs vouchers, with a deposit where one is due. */
export class ChannelSigner {
  readonly deposits: Deposits;
  readonly #store: ChannelStore;
  readonly #spending: Spending;
  readonly #assets: readonly Asset[];
  readonly #teller: Teller;
  readonly #now: () => number;
  readonly #keys = new Map<Hex, Promise<SigningKey>>();
  readonly #account: WalletAccount;

  constructor(
    store: ChannelStore,
    spending: Spending,
    account: WalletAccount,
    assets: readonly Asset[],
    teller: Teller,
    now: () => number,
  ) {
    this.#store = store;
    this.#spending = spending;
    this.#account = account;
    this.#assets = assets;
    this.#teller = teller;
    this.#now = now;
    this.deposits = new Deposits(store, spending, account, teller, now);
  }

  /** The best of these offers and the channel that pays it, as it is before a turn is taken. */
  async choose(offers: readonly ChannelOffer[]): Promise<{ terms: ChannelOffer; channel: Channel }> {
    const wallet = this.#wallet();
    const payer = await this.#account.of(wallet);
    const key = await this.#key(payer);
    const chain = offers.length > 1 ? await wallet.chainId().catch(() => 0) : 0;
    const ways = await Promise.all(
      offers.map(async (terms) => {
        const fresh = channelFor(terms, payer, key.address);
        const channel = (await this.#store.channel(fresh.channelId)) ?? fresh;
        const onChain = chainIdOf(terms.network) === chain;
        const rank = channel.balance > channel.charged ? 0 : onChain ? 1 : 2;
        return { terms, channel, rank };
      }),
    );
    ways.sort((a, b) => a.rank - b.rank);
    const [best] = ways;
    if (!best) throw new PaymentError('no-way-to-pay', 'this server cannot be paid');
    return { terms: best.terms, channel: best.channel };
  }

  /** What keeps a payment from being signed, if its channel is as it was last seen. */
  limit(terms: ChannelOffer, channel: Channel): Limit | undefined {
    return this.#spending.check(stakeOf(channel, BigInt(terms.amount)), this.#now());
  }

  /**
   * Sign for one delivery in the channel's turn, with a deposit where one is due; on return it is
   * kept. Throws `LimitReached`, and `PaymentError` where the wallet does not do its part.
   */
  async sign(
    turn: ChannelLock,
    terms: ChannelOffer,
    wanted: DeliveryRequest,
    context: PaymentContext,
    signal?: AbortSignal,
  ): Promise<KeptPayment> {
    const before = withoutExpired(turn.channel, Math.floor(this.#now() / 1000));
    const fault = faultOf(before);
    if (fault) throw fault;
    this.#require(terms, before);
    const wallet = this.#wallet();
    const { channel, deposit } = await this.deposits.due(turn, before, terms, wallet, signal);
    signal?.throwIfAborted();
    this.#require(terms, channel); // the wallet may have taken its time
    // At once: a purchase through another channel shall find that this one has taken its part.
    const giveBack = this.#spending.take(stakeOf(channel, BigInt(terms.amount)), this.#now());
    try {
      const payment = await this.#payment(channel, terms, wanted, context, deposit);
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
      await turn.keep(presented(channel, open, deposit), payment, deposit !== undefined);
      return payment;
    } catch (error) {
      giveBack();
      throw error;
    }
  }

  /** How a channel stands on the chain, where a node is known and says so. */
  async onChain({ network, channelId }: Channel): Promise<ChannelOnChain | undefined> {
    const rpcUrl = this.#teller.rpcUrl(network);
    return rpcUrl ? readChannel(rpcUrl, channelId) : undefined;
  }

  /** The header of a refund of all that was not charged. */
  async refund(channel: Channel, terms: ChannelOffer, context: PaymentContext): Promise<string> {
    const key = await this.#key(channel.config.payer);
    const digest = voucherDigest(channel.channelId, channel.charged, chainIdOf(channel.network));
    return encodeHeader({
      x402Version: 2,
      accepted: terms,
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
    terms: ChannelOffer,
    { resource }: DeliveryRequest,
    context: PaymentContext,
    deposit: DepositOrder | undefined,
  ): Promise<KeptPayment> {
    const amount = BigInt(terms.amount);
    const ceiling = channel.charged + amount;
    const key = await this.#key(channel.config.payer);
    const digest = voucherDigest(channel.channelId, ceiling, chainIdOf(terms.network));
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
        accepted: terms,
        payload: {
          type: deposit ? 'deposit' : 'voucher',
          channelConfig: channel.config,
          voucher,
          ...(deposit && { deposit: depositWire(deposit) }),
        },
        ...context,
      }),
      terms,
      amount,
      ceiling,
      deposit: deposit?.amount ?? 0n,
      at: this.#now(),
      charged: false,
    };
  }

  #require(terms: ChannelOffer, channel: Channel): void {
    if (!assetOf(terms, this.#assets)) {
      throw new PaymentError('no-way-to-pay', 'the server wants a token not allowed here');
    }
    const limit = this.limit(terms, channel);
    if (limit) throw new LimitReached(limit);
  }

  #wallet(): Wallet {
    const wallet = this.#teller.wallet();
    if (!wallet) throw new PaymentError('no-wallet', 'there is no wallet to pay with', true);
    return wallet;
  }

  async #key(payer: Hex): Promise<SigningKey> {
    let key = this.#keys.get(payer);
    if (!key) {
      key = loadSigningKey(this.#store, `session:${payer}`);
      this.#keys.set(payer, key);
      key.catch(() => this.#keys.delete(payer));
    }
    return key;
  }
}

function channelFor(terms: ChannelOffer, payer: Hex, session: Hex): Channel {
  const lower = (address: Hex): Hex => address.toLowerCase() as Hex;
  const config: ChannelConfig = {
    payer,
    payerAuthorizer: session,
    receiver: lower(terms.payTo),
    receiverAuthorizer: lower(terms.extra.receiverAuthorizer),
    token: lower(terms.asset),
    withdrawDelay: terms.extra.withdrawDelay,
    salt: SALT,
  };
  const channelId = channelIdOf(config, chainIdOf(terms.network)).toLowerCase() as Hex;
  return newChannel(channelId, terms.network, config);
}
