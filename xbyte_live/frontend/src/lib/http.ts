import { PaymentError } from './x402/errors';

/** Close a response without reading its body. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => undefined);
}

/** The `Content-Length` of a response; 0 where it has none. */
export function lengthOf(response: Response): number {
  const value = response.headers.get('content-length') ?? '';
  return /^\d{1,15}$/.test(value) ? Number(value) : 0;
}

export function joined(chunks: readonly Uint8Array[], size: number): ArrayBuffer {
  const whole = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    whole.set(chunk, at);
    at += chunk.byteLength;
  }
  return whole.buffer;
}

export function httpError(response: Response): PaymentError {
  const { status } = response;
  return new PaymentError('http', `the server answered ${status}`, status >= 500, status);
}

export function unreachable(): PaymentError {
  return new PaymentError('unreachable', 'the server does not answer, or breaks off', true);
}

export function badDelivery(got: number | 'more', quoted: number): PaymentError {
  return new PaymentError(
    'bad-delivery',
    `the server handed over ${got} bytes where ${quoted} were quoted`,
  );
}

export function tooLarge(): PaymentError {
  return new PaymentError('too-large', 'that is more than a page can hold; buy it by ranges');
}

export function wrongClock(): PaymentError {
  const what = 'the clock of this device is wrong: for the server, a deposit that is valid has expired';
  return new PaymentError('wrong-clock', what, true, 402);
}

export function lost(): PaymentError {
  return new PaymentError(
    'charged-before',
    'the server charged these bytes before and does not hand them over again',
    true,
  );
}
