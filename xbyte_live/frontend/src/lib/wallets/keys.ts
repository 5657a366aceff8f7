import { generatePrivateKey, privateKeyToAddress, sign } from 'viem/accounts';
import { bytesToHex, hexToBytes } from 'viem/utils';
import { PaymentError } from '../x402/errors';
import type { ChannelStore, SealedKey } from '../channel/store';
import type { Hex } from '../x402/types';

/** A private key that signs silently. */
export class SigningKey {
  readonly address: Hex;
  readonly #secret: Hex;

  constructor(secret: Hex) {
    this.#secret = secret;
    this.address = privateKeyToAddress(secret).toLowerCase() as Hex;
  }

  /** r ‖ s ‖ v with a low s, v being 27 or 28. */
  async sign(digest: Hex): Promise<Hex> {
    return sign({ hash: digest, privateKey: this.#secret, to: 'hex' });
  }
}

/**
 * The key kept under a name, made if there is none.
 *
 * It lies encrypted with an AES-GCM key that no script can read out: secp256k1 keys cannot be
 * such keys themselves. Throws `PaymentError` (`storage`) where the page may keep nothing.
 */
export async function loadSigningKey(store: ChannelStore, name: string): Promise<SigningKey> {
  if (!(globalThis as { crypto?: Partial<Crypto> }).crypto?.subtle) {
    throw new PaymentError('storage', 'a page needs https (or localhost) to keep a key');
  }
  const known = await store.key(name);
  if (known) return open(known);
  const release = await store.lock(`key:${name}`);
  try {
    const made = (await store.key(name)) ?? (await make(store, name));
    return await open(made);
  } finally {
    release();
  }
}

async function make(store: ChannelStore, name: string): Promise<SealedKey> {
  const secret = generatePrivateKey();
  const wrap = await crypto.subtle.generateKey({ name: 'AES-GCM', length: 256 }, false, [
    'encrypt',
    'decrypt',
  ]);
  const iv = crypto.getRandomValues(new Uint8Array(12));
  const plain = Uint8Array.from(hexToBytes(secret));
  const sealed = await crypto.subtle.encrypt({ name: 'AES-GCM', iv }, wrap, plain);
  const key = { address: privateKeyToAddress(secret).toLowerCase() as Hex, iv, sealed, wrap };
  await store.keepKey(name, key);
  return key;
}

async function open(key: SealedKey): Promise<SigningKey> {
  try {
    const plain = await crypto.subtle.decrypt({ name: 'AES-GCM', iv: key.iv }, key.wrap, key.sealed);
    return new SigningKey(bytesToHex(new Uint8Array(plain)));
  } catch {
    throw new PaymentError('storage', `the key of ${key.address} cannot be read any more`);
  }
}
