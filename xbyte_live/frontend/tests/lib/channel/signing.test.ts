import { generatePrivateKey } from 'viem/accounts';
import { expect, it } from 'vitest';
import { SigningKey } from '../../../src/lib/wallets/keys';
import { voucherDigest } from '../../../src/lib/x402/typed_data';
import type { Hex } from '../../../src/lib/x402/types';

const CHANNEL: Hex = `0x${'5a'.repeat(32)}`;
const ROUNDS = 300;
const BUDGET = 3; // milliseconds, the median

it.skipIf(!process.env.XBYTE_BENCH)('signs a voucher within its budget', async () => {
  const key = new SigningKey(generatePrivateKey());
  const times: number[] = [];
  for (let n = 0; n < ROUNDS + 50; n += 1) {
    const start = performance.now();
    await key.sign(voucherDigest(CHANNEL, BigInt(n), 84532));
    if (n >= 50) times.push(performance.now() - start);
  }
  times.sort((a, b) => a - b);
  const at = (part: number): string => (times[Math.floor(times.length * part)] ?? 0).toFixed(3);
  process.stdout.write(`voucher signing: median ${at(0.5)} ms, p95 ${at(0.95)} ms\n`);
  expect(Number(at(0.5))).toBeLessThan(BUDGET);
});
