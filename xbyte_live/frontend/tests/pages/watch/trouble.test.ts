import { afterEach, beforeEach, expect, test, vi } from 'vitest';

import type { PaymentErrorCode } from '../../../src/lib/x402/errors';
import { Notice } from '../../../src/pages/watch/messages/notice';
import { Troubleshooter } from '../../../src/pages/watch/messages/troubleshooter';

type Parts = ConstructorParameters<typeof Troubleshooter>;

/** As much of a page as a notice needs. */
class Stage {
  readonly #found = new Map<string, object>();

  getElementById(id: string): object {
    const found = this.#found.get(id) ?? this.createElement();
    this.#found.set(id, found);
    return found;
  }

  createElement(): object {
    return {
      dataset: {},
      hidden: true,
      textContent: '',
      addEventListener: () => undefined,
      setAttribute: () => undefined,
      replaceChildren: () => undefined,
    };
  }
}

let notice: Notice;
let ailment: string | undefined;
let halted: number;

/** Troubleshooter on a page that pays. */
function troubled(): Troubleshooter {
  const parts = {
    server: { ailment: async () => Promise.resolve(ailment) },
    listing: { isFile: false },
    payer: { waiting: undefined },
    item: { halt: () => (halted += 1) },
    panel: { undo: () => undefined },
    limits: { reached: false },
    consent: { stands: true },
  };
  const { server, listing, payer, item, panel, limits, consent } = parts;
  const all = [server, listing, payer, item, panel, limits, consent, notice];
  return new Troubleshooter(...(all as unknown as Parts));
}

const payers = (code: PaymentErrorCode, retryable = true) => ({ code, message: '', retryable });

beforeEach(() => {
  vi.stubGlobal('document', new Stage());
  notice = new Notice();
  ailment = undefined;
  halted = 0;
});
afterEach(() => vi.unstubAllGlobals());

test.each(['pending', 'unreachable', 'bad-delivery', 'charged-before', 'overcharged'] as const)(
  'what the payer says of %s stays when hls.js gives up for it',
  (code) => {
    const trouble = troubled();
    trouble.payerFailed(payers(code));
    for (const fatal of ['unreachable', 'unplayable'] as const) {
      trouble.playerFailed(fatal);
      expect(notice.code).toBe(code);
    }
  },
);

test('what the server says of its ailment stays, too', async () => {
  ailment = 'facilitator';
  const trouble = troubled();
  trouble.payerFailed(payers('pending'));
  await vi.waitFor(() => expect(notice.code).toBe('facilitator'));
  trouble.playerFailed('unreachable');
  expect(notice.code).toBe('facilitator');
});

test('what hls.js gives up for by itself is said', () => {
  const trouble = troubled();
  trouble.playerFailed('unplayable');
  expect(notice.code).toBe('unplayable');
  notice.show('cap'); // that is no cause of it
  trouble.playerFailed('gone');
  expect(notice.code).toBe('gone');
  trouble.payerFailed(payers('pending'));
  trouble.clear(); // it played since
  trouble.playerFailed('unreachable');
  expect(notice.code).toBe('unreachable');
});

test('segments that are gone are for the player to tell of', () => {
  const trouble = troubled();
  trouble.payerFailed(payers('http', false));
  expect(notice.code).toBe('');
});

test('nothing more is bought where it would fail alike', () => {
  const trouble = troubled();
  trouble.payerFailed(payers('pending'));
  expect(halted).toBe(0);
  trouble.payerFailed(payers('price-raised', false));
  expect(halted).toBe(1);
});
