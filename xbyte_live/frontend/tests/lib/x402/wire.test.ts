import { computeChannelId, signVoucher } from '@x402/evm/batch-settlement/client';
import { generatePrivateKey, privateKeyToAccount } from 'viem/accounts';
import { describe, expect, it } from 'vitest';
import { amountFor, costPerMinute, formatAmount, parseAmount } from '../../../src/lib/money';
import { itemOf } from '../../../src/lib/payer/offers';
import { SigningKey } from '../../../src/lib/wallets/keys';
import { channelIdOf, chainIdOf, voucherDigest } from '../../../src/lib/x402/typed_data';
import type { ChannelConfig } from '../../../src/lib/x402/types';
import { CHANNEL_OFFERS } from '../../../src/lib/x402/channel_offers';
import { readCharge } from '../../../src/lib/x402/channel_wire';
import {
  decodeHeader,
  encodeHeader,
  readChallenge,
  readPricing,
} from '../../../src/lib/x402/wire';
import { ASSET, NETWORK, PAYEE, Shop } from '../../support/shop';

const CONFIG: ChannelConfig = {
  payer: '0x1111111111111111111111111111111111111111',
  payerAuthorizer: '0x2222222222222222222222222222222222222222',
  receiver: PAYEE,
  receiverAuthorizer: '0x3333333333333333333333333333333333333333',
  token: ASSET,
  withdrawDelay: 86_400,
  salt: `0x${'ab'.repeat(32)}`,
};

describe('what the official client signs is what we sign', () => {
  it('for a channel', () => {
    expect(channelIdOf(CONFIG, 84532)).toBe(computeChannelId(CONFIG, NETWORK));
  });

  it('for a voucher', async () => {
    const secret = generatePrivateKey();
    const channelId = channelIdOf(CONFIG, 84532);
    const account = privateKeyToAccount(secret);
    const theirs = await signVoucher(account, channelId, '123456789', NETWORK);
    const ours = await new SigningKey(secret).sign(voucherDigest(channelId, 123_456_789n, 84532));
    expect(ours).toBe(theirs.signature);
  });
});

describe('headers', () => {
  it('hold any text', () => {
    const document = { a: 'ä → €', b: [1, null, { c: 'x' }] };
    expect(decodeHeader(encodeHeader(document))).toEqual(document);
  });

  it('that are nonsense are nothing', () => {
    for (const value of ['', '%%%', btoa('[1]'), btoa('{'), 'A'.repeat(70_000), null]) {
      expect(decodeHeader(value)).toBeUndefined();
    }
  });

  const challenge = (change: Record<string, unknown>, extra: Record<string, unknown> = {}) => {
    const terms = new Shop().terms(7n);
    const offer = { ...terms, ...change, extra: { ...terms.extra, ...extra } };
    const value = encodeHeader({ x402Version: 2, error: 'e', accepts: [offer] });
    return readChallenge(new Headers({ 'payment-required': value }), [CHANNEL_OFFERS]);
  };

  it('of a good offer give it as the server wrote it', () => {
    expect(challenge({}).offers).toEqual([new Shop().terms(7n)]);
  });

  it('of an offer that cannot be believed give none', () => {
    const zero = `0x${'0'.repeat(40)}`;
    const bad: [Record<string, unknown>, Record<string, unknown>?][] = [
      [{ scheme: 'exact' }],
      [{ network: 'solana:x' }],
      [{ payTo: zero }],
      [{ payTo: ASSET }],
      [{ amount: '-1' }],
      [{ amount: '0' }],
      [{ amount: 7 }],
      [{ amount: '1e3' }],
      [{ maxTimeoutSeconds: 0 }],
      [{}, { withdrawDelay: 60 }],
      [{}, { receiverAuthorizer: zero }],
      [{}, { assetTransferMethod: 'permit2' }],
      [{}, { name: 5 }],
      [{}, { minDeposit: 'lots' }],
      [{}, { minDeposit: '-1' }],
      [{}, { minDeposit: '1e9' }],
      [{}, { minDeposit: null }],
      [{}, { minDeposit: `${2n ** 63n}` }],
    ];
    for (const [change, extra] of bad) expect(challenge(change, extra).offers).toEqual([]);
  });

  it('that are no 402 of version 2 are refused', () => {
    expect(() => readChallenge(new Headers(), [CHANNEL_OFFERS])).toThrow('x402 version 2');
    const value = encodeHeader({ x402Version: 1, accepts: [] });
    expect(() => readChallenge(new Headers({ 'payment-required': value }), [CHANNEL_OFFERS])).toThrow();
  });

  it('of a price list need no amounts', () => {
    const { amount, ...terms } = new Shop().terms(7n);
    expect(amount).toBe('7');
    expect(readPricing({ accepts: [terms, { scheme: 'exact' }] }, [CHANNEL_OFFERS])).toHaveLength(1);
    expect(readPricing('x', [CHANNEL_OFFERS])).toEqual([]);
  });

  it('of an answer are read without trust', () => {
    const header = (document: unknown): Headers =>
      new Headers({ 'payment-response': encodeHeader(document) });
    const extra = { chargedAmount: '5', channelState: { channelId: 'x', balance: '1' } };
    expect(readCharge(header({ success: true, extra }))).toEqual({ charged: 5n });
    expect(readCharge(header({ success: false, extra }))).toBeUndefined();
    expect(readCharge(header({ success: true, extra: { chargedAmount: '-5' } }))).toBeUndefined();
    expect(readCharge(new Headers())).toBeUndefined();
  });
});

describe('money', () => {
  it('is rounded up to whole units, at least one', () => {
    expect(amountFor(1_048_576, 1000n)).toBe(1000n);
    expect(amountFor(1_048_577, 1000n)).toBe(1001n);
    expect(amountFor(1, 1n)).toBe(1n);
    expect(amountFor(5, 0n)).toBe(0n);
  });

  it('is read and written as decimals', () => {
    for (const text of ['0', '0.000001', '1.5', '20', '123456.654321']) {
      expect(formatAmount(parseAmount(text))).toBe(text);
    }
    expect(parseAmount('1.500000000')).toBe(1_500_000n);
    for (const text of ['', '-1', '1e3', '0.0000001', '.5', 'x']) {
      expect(() => parseAmount(text)).toThrow(RangeError);
    }
  });

  it('is what a minute of a rendition costs', () => {
    const level = { bitrate: 8_000_000, averageBitrate: 4_000_000 };
    expect(costPerMinute(level, 1000n)).toBe(amountFor(30_000_000, 1000n));
    expect(costPerMinute({ bitrate: 8_000_000, averageBitrate: 0 }, 1000n)).toBe(
      costPerMinute(8_000_000, 1000n),
    );
  });
});

it('knows networks and items by their names', () => {
  expect(chainIdOf('eip155:8453')).toBe(8453);
  expect(() => chainIdOf('solana:1')).toThrow(RangeError);
  expect(itemOf('http://h:1/hls/film/source/0.ts?x')).toBe('http://h:1/hls/film');
  expect(itemOf('http://h:1/objects/a')).toBe('http://h:1/objects/a');
});
