import { isDeepStrictEqual } from 'node:util';
import { recoverAddress } from 'viem/utils';
import {
  AMOUNT_MISMATCH,
  BUSY,
  CHANNEL_NOT_FOUND,
  DEPOSIT_EXPIRED,
  EXCEEDS_BALANCE,
} from '../../src/lib/x402/codes';
import { amountFor } from '../../src/lib/money';
import { channelIdOf, depositData, hashOf, voucherDigest } from '../../src/lib/x402/typed_data';
import type { ChannelConfig, Hex, ChannelOffer } from '../../src/lib/x402/types';
import { decodeHeader, encodeHeader } from '../../src/lib/x402/wire';

export const CHAIN = 84532;
export const NETWORK = `eip155:${CHAIN}`;
export const ASSET: Hex = '0x036CbD53842c5426634e7929541eC2318f3dCF7e';
export const PAYEE: Hex = '0x209693bc6afc0c5328ba36faf03c514ef312287c';
export const BASE = 'http://127.0.0.1:8402';

interface Account {
  charged: bigint;
  signed: bigint;
  signature: Hex;
  balance: bigint;
  deposits: Set<Hex>;
  deliveries: Map<bigint, string>;
}

interface Payload {
  type: 'deposit' | 'voucher' | 'refund';
  channelConfig: ChannelConfig;
  voucher: { channelId: Hex; maxClaimableAmount: string; signature: Hex };
  deposit?: {
    amount: string;
    authorization: {
      erc3009Authorization: { validBefore: string; salt: Hex; signature: Hex };
    };
  };
}

/**
 * What may go wrong, one for each request with a payment: `drop` (no answer, not charged),
 * `charge+drop`, `long` (charged, and the body is much longer), `short` (charged, a byte is missing), `503`, `charge+503`, `hang` and `charge+hang` (until aborted), `busy`, `break`
 * (charged, and the body breaks off), `stall` (charged, and the body stops half way), `overcharge`, `steal` (charged, and the 402 claims more than
 * was signed), `refuse:CODE`.
 */
export type Fault = string;

/** A server that sells by channel, as strict as a real one, with faults on order. */
export class Shop {
  price = 1_048_576n; // a unit a byte
  minDeposit = 10_000n;
  validFor = 300; // seconds
  /** Its clock, in milliseconds, where it looks at it. */
  now?: () => number;
  payTo: Hex = PAYEE;
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly accounts = new Map<Hex, Account>();
  readonly faults: Fault[] = [];
  readonly seen: { path: string; payment: boolean; identity: string }[] = [];
  readonly charges: { path: string; amount: bigint }[] = [];
  retryAfter = '0';
  /** How many pieces of bodies were asked for. */
  sent = 0;
  rewatchFree = false;
  /** Nothing is sold any more, but channels are still known at `/channels/{id}`. */
  closed = false;
  /** Called when a request with a payment has come, before it is judged. */
  arrived: () => void = () => undefined;

  add(path: string, size: number): string {
    this.files.set(path, new Uint8Array(size).fill(size % 251));
    return BASE + path;
  }

  get charged(): bigint {
    return this.charges.reduce((sum, charge) => sum + charge.amount, 0n);
  }

  get paid(): number {
    return this.seen.filter((request) => request.payment).length;
  }

  /** How many different vouchers were shown. */
  get vouchers(): number {
    return new Set(this.seen.filter((r) => r.payment).map((r) => r.identity)).size;
  }

  /** The retry window has passed. */
  forget(): void {
    for (const account of this.accounts.values()) account.deliveries.clear();
  }

  /** It lost its ledger; deposits lie in the channels still. */
  loseLedger(): void {
    for (const account of this.accounts.values()) {
      account.charged = account.signed = 0n;
      account.signature = '0x';
      account.deliveries.clear();
    }
  }

  readonly fetch: typeof fetch = async (input, init = {}) => {
    const url = new URL(input instanceof Request ? input.url : input);
    const headers = new Headers(init.headers);
    const payment = decodeHeader(headers.get('payment-signature'));
    init.signal?.throwIfAborted();
    const range = headers.get('range');
    const file = this.#slice(this.files.get(url.pathname), range);
    const path = range ? `${url.pathname}#${range}` : url.pathname;
    const payload = payment?.payload as Payload | undefined;
    this.seen.push({
      path,
      payment: payment !== undefined,
      identity: payload?.voucher.signature ?? '',
    });
    if (url.pathname.endsWith('pricing.json')) {
      return new Response(JSON.stringify({ accepts: [this.terms(1n)] }));
    }
    const channel = /^\/channels\/(0x[0-9a-f]{64})$/.exec(url.pathname)?.[1] as Hex | undefined;
    if (channel && this.accounts.has(channel)) {
      if (payload?.type !== 'refund') return this.#ask(1n, 'payment_required');
      const answer = await this.#take(path, 1n, payment?.accepted as ChannelOffer, payload);
      return typeof answer === 'string' ? this.#ask(1n, answer, payload) : answer.response;
    }
    if (this.closed) return new Response(null, { status: 410 });
    if (!file) return new Response(null, { status: 404 });
    const amount = amountFor(file.byteLength, this.price);
    if (amount === 0n) return this.#bytes(file, range);
    if (this.rewatchFree && headers.get('xbyte-receipt') === `receipt:${path}`) {
      return this.#bytes(file, range);
    }
    if (!payment || !payload) return this.#ask(amount, 'payment_required');
    this.arrived();
    const fault = this.faults.shift() ?? '';
    if (fault === 'drop') throw new TypeError('network');
    if (fault === 'hang') return hang(init.signal);
    if (fault === '503') return this.#pending();
    if (fault === 'busy') return this.#ask(amount, BUSY);
    if (fault.startsWith('refuse:')) return this.#ask(amount, fault.slice(7));
    const answer = await this.#take(path, amount, payment.accepted as ChannelOffer, payload);
    if (fault === 'charge+drop') throw new TypeError('network');
    if (fault === 'charge+hang') return hang(init.signal);
    if (fault === 'charge+503') return this.#pending();
    if (typeof answer === 'string') return this.#ask(amount, answer, payload);
    if (payload.type === 'refund') return answer.response;
    return this.#bytes(file, range, answer.header(fault, path), fault);
  };

  terms(amount: bigint): ChannelOffer {
    return {
      scheme: 'batch-settlement',
      network: NETWORK,
      asset: ASSET,
      amount: amount.toString(),
      payTo: this.payTo,
      maxTimeoutSeconds: this.validFor,
      extra: {
        name: 'USDC',
        version: '2',
        receiverAuthorizer: '0x00000000000000000000000000000000000000aa',
        withdrawDelay: 900,
        minDeposit: this.minDeposit.toString(),
      },
    };
  }

  async #take(path: string, amount: bigint, accepted: ChannelOffer, payload: Payload) {
    const { channelConfig: config, voucher } = payload;
    const id = voucher.channelId;
    const ceiling = BigInt(voucher.maxClaimableAmount);
    if (!isDeepStrictEqual(accepted, this.terms(amount))) {
      return 'invalid_payment_requirements';
    }
    if (channelIdOf(config, CHAIN) !== id) return 'channel_id_mismatch';
    const hash = voucherDigest(id, ceiling, CHAIN);
    const signer = await recoverAddress({ hash, signature: voucher.signature });
    if (signer.toLowerCase() !== config.payerAuthorizer) return 'voucher_signature';
    let account = this.accounts.get(id);
    if (payload.deposit) {
      account ??= {
        charged: 0n,
        signed: 0n,
        signature: '0x',
        balance: 0n,
        deposits: new Set(),
        deliveries: new Map(),
      };
      if (ceiling !== account.charged + amount && !account.deliveries.has(ceiling)) {
        return AMOUNT_MISMATCH;
      }
      const why = await this.#deposit(account, config, id, payload.deposit);
      if (why) return why;
      this.accounts.set(id, account);
    }
    if (!account) return CHANNEL_NOT_FOUND;
    if (payload.type === 'refund') {
      if (ceiling !== account.charged) return AMOUNT_MISMATCH;
      const rest = account.balance - account.charged;
      account.balance -= rest;
      const settled = { success: true, transaction: `0x${'ab'.repeat(32)}`, amount: `${rest}` };
      const headers = { 'payment-response': encodeHeader(settled) };
      return { response: new Response('{}', { headers }), header: () => '' };
    }
    const again = account.deliveries.get(ceiling) === path;
    if (!again) {
      if (ceiling !== account.charged + amount) return AMOUNT_MISMATCH;
      if (ceiling > account.balance) return EXCEEDS_BALANCE;
      account.charged = account.signed = ceiling;
      account.signature = voucher.signature;
      account.deliveries.set(ceiling, path);
      this.charges.push({ path, amount });
    }
    const { balance } = account;
    const header = (fault: Fault, of: string): string =>
      encodeHeader({
        success: true,
        transaction: payload.deposit ? `0x${'cd'.repeat(32)}` : '',
        extra: {
          chargedAmount: `${fault === 'overcharge' ? amount * 2n : amount}`,
          channelState: {
            channelId: id,
            balance: `${balance}`,
            totalClaimed: '0',
            chargedCumulativeAmount: `${ceiling}`,
          },
        },
        ...(this.rewatchFree && { extensions: { 'xbyte-receipt': { receipt: `receipt:${of}` } } }),
      });
    return { header, response: new Response() };
  }

  async #deposit(
    account: Account,
    config: ChannelConfig,
    channelId: Hex,
    deposit: NonNullable<Payload['deposit']>,
  ): Promise<string | undefined> {
    const { validBefore, salt, signature } = deposit.authorization.erc3009Authorization;
    if (account.deposits.has(salt)) return undefined;
    if (Number(validBefore) * 1000 < (this.now?.() ?? 0)) return DEPOSIT_EXPIRED;
    const amount = BigInt(deposit.amount);
    const data = depositData(
      { address: ASSET, name: 'USDC', version: '2', chainId: CHAIN },
      { payer: config.payer, channelId, amount, validBefore: Number(validBefore), salt },
    );
    const signer = await recoverAddress({ hash: hashOf(data), signature });
    if (signer.toLowerCase() !== config.payer) return 'deposit_signature';
    account.deposits.add(salt);
    account.balance += amount;
    return undefined;
  }

  #ask(amount: bigint, error: string, payload?: Payload): Response {
    const terms = this.terms(amount);
    const account = payload && this.accounts.get(payload.voucher.channelId);
    if (account && error === AMOUNT_MISMATCH) {
      terms.extra = {
        ...terms.extra,
        channelState: {
          channelId: payload.voucher.channelId,
          balance: `${account.balance}`,
          totalClaimed: '0',
          chargedCumulativeAmount: `${account.charged}`,
        },
        ...(account.signature !== '0x' && {
          voucherState: { signedMaxClaimable: `${account.signed}`, signature: account.signature },
        }),
      };
    }
    const document = { x402Version: 2, error, resource: { url: '…' }, accepts: [terms] };
    return new Response('{}', {
      status: 402,
      headers: { 'payment-required': encodeHeader(document) },
    });
  }

  #bytes(
    file: Uint8Array<ArrayBuffer>,
    range: string | null,
    paid?: string,
    fault: Fault = '',
  ): Response {
    const broken = fault === 'break' || fault === 'stall';
    if (fault === 'short') file = file.subarray(1);
    const headers = new Headers();
    if (fault !== 'long') headers.set('content-length', `${file.byteLength}`);
    if (paid) headers.set('payment-response', paid);
    const half = file.subarray(0, file.byteLength >> 1);
    const count = (): void => void (this.sent += 1);
    let pulls = 0;
    const body = new ReadableStream<Uint8Array>(
      {
        async pull(controller) {
          pulls += 1;
          count();
          if (pulls === 1 || (fault === 'long' && pulls < 50)) controller.enqueue(broken ? half : file);
          else if (fault === 'stall') await new Promise(() => undefined);
          else if (broken) controller.error(new TypeError('network'));
          else controller.close();
        },
      },
      { highWaterMark: 0 },
    );
    return new Response(body, { status: range ? 206 : 200, headers });
  }

  #pending(): Response {
    return new Response(null, { status: 503, headers: { 'retry-after': this.retryAfter } });
  }

  #slice(
    file: Uint8Array<ArrayBuffer> | undefined,
    range: string | null,
  ): Uint8Array<ArrayBuffer> | undefined {
    const found = /^bytes=(\d+)-(\d+)$/.exec(range ?? '');
    return found ? file?.subarray(Number(found[1]), Number(found[2]) + 1) : file;
  }
}

async function hang(signal: AbortSignal | null | undefined): Promise<never> {
  return new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(new DOMException('aborted', 'AbortError')));
  });
}
