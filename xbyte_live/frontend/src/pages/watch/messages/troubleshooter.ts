import type { Asked, PaymentErrorCode } from '../../../lib/x402/errors';
import type { Payer } from '../../../lib/payer/payer';
import type { PayerEvents } from '../../../lib/payer/types';
import { byId } from '../../dom';
import type { Consent } from '../payment/consent';
import type { PlaybackFailure } from '../player/failure';
import type { Item } from '../item';
import type { SpendLimits } from '../payment/spend_limits';
import type { Notice, WayOut } from './notice';
import type { Listing } from '../payment/listing';
import { byHand, fill, isUnknown, type WalletPanel } from '../payment/wallet_panel';
import type { Server } from '../server';

const PATIENCE = 5_000; // milliseconds without anything to play until one asks why

/** Chooses the notice for an error, and the buttons that help against it. */
export class Troubleshooter {
  #emptySince = Infinity; // milliseconds

  constructor(
    private readonly server: Server,
    private readonly listing: Listing,
    private readonly payer: Payer,
    private readonly item: Item,
    private readonly panel: WalletPanel,
    private readonly limits: SpendLimits,
    private readonly consent: Consent,
    private readonly notice: Notice,
  ) {}

  /** Show an error of the payer. */
  payerFailed({ code, message, retryable, asked }: PayerEvents['error']): void {
    if (!this.consent.stands && code === 'no-wallet') {
      this.consent.due();
      return;
    }
    if (code === 'http' && !this.listing.isFile) return; // the player tells what that means for it
    byId('spinner').hidden = true;
    this.panel.undo();
    if (isForGood(code, retryable)) this.item.halt();
    const ways = this.#waysOut(code, retryable, asked);
    const { network } = this.listing;
    const text = code === 'unknown-network' && network ? byHand(network) : message;
    this.notice.showPayers(code, ways, text);
    if (code === 'pending' || code === 'unreachable') {
      void this.server.ailment().then((found) => {
        if (found && this.notice.code === code) this.notice.showPayers(found, ways);
      });
    }
  }

  /** Show a failure of the player, unless an error of the payer explains it. */
  playerFailed(code: PlaybackFailure): void {
    byId('spinner').hidden = true;
    if (this.notice.isPayers) return;
    const lasts = code === 'unplayable' || code === 'unsupported';
    this.notice.show(code, lasts ? [] : [this.#again]);
  }

  /** Ask the server why nothing has come for long, where no notice explains it. */
  checkSilence(paused: boolean): void {
    const { limits, payer, notice } = this;
    const told = limits.reached || payer.waiting !== undefined || notice.code !== '';
    const now = performance.now();
    if (told || !this.consent.stands || paused) this.#emptySince = Infinity;
    else if (this.#emptySince === Infinity) this.#emptySince = now;
    else if (now - this.#emptySince > PATIENCE) {
      this.#emptySince = Infinity;
      void this.#diagnose();
    }
  }

  /** It plays again: take notices away that are over. */
  clear(): void {
    this.#emptySince = Infinity;
    this.notice.clear('unreachable', 'gone', 'setup', 'offair', 'pending', 'facilitator');
  }

  async #diagnose(): Promise<void> {
    const code = await this.server.ailment();
    if (code && !this.notice.code) this.notice.show(code, [this.#again]);
  }

  get #again(): WayOut {
    return { label: 'Try again', act: () => this.#retry() };
  }

  #retry(): void {
    this.notice.clear();
    this.payer.resume();
    this.item.retry();
  }

  #waysOut(code: PaymentErrorCode, retryable: boolean, asked?: Asked): WayOut[] {
    const ways: WayOut[] = [];
    const remedy = remedyOf(code, retryable);
    const { network } = this.listing;
    const { wallet } = this.payer;
    const again = (): void => {
      this.notice.clear();
      if (remedy === 'deposit') this.payer.topUp();
      this.#retry();
    };
    /** Try again once something is done, or say the same again, or why it cannot be done. */
    const after = (done: Promise<void>): void =>
      void done.then(again, (error: unknown) => {
        if (isUnknown(error)) this.payerFailed(error);
        else this.notice.showPayers(code, this.#waysOut(code, retryable));
      });
    if (code === 'insufficient-funds' && network?.faucet_url && wallet) {
      ways.push({ label: 'Get test money', act: () => after(fill(wallet, network)) });
    }
    if (code === 'wrong-network' && network && wallet) {
      ways.push({
        label: `Switch to ${network.name}`,
        act: () => after(wallet.switchChain(network.chain_id)),
      });
    } else if (remedy === 'trust') {
      const trusted = async (): Promise<void> => this.payer.trustAgain();
      ways.push({ label: 'Try it once more', act: () => after(trusted()) });
    } else if (remedy === 'new-price') {
      ways.push({ label: 'See the new price', act: () => void this.consent.askAnew(asked) });
    } else if (remedy !== 'none') {
      ways.push({ label: code === 'wallet-changed' ? 'Pay from that one' : 'Try again', act: again });
    }
    if (WALLETS.has(code)) {
      ways.push({ label: 'Another wallet', act: () => this.consent.askAgain() });
    }
    if (DEPOSITS.has(code) && this.payer.waiting === undefined) {
      // what is in the channel plays on
      ways.push({ label: 'Leave it', act: () => this.notice.clear() });
    }
    return ways;
  }
}

/** The remedy against an error of the payer. */
export type Remedy = 'deposit' | 'again' | 'new-price' | 'trust' | 'none';

/** Error codes of a wallet that does not deposit. */
export const DEPOSITS: ReadonlySet<PaymentErrorCode> = new Set([
  'topup-needed',
  'insufficient-funds',
  'wallet-rejected',
  'wallet-failed',
  'wrong-network',
  'unknown-network',
]);
const FOR_GOOD: ReadonlySet<PaymentErrorCode> = new Set([
  'price-raised',
  'overcharged',
  'misdelivered',
  'no-way-to-pay',
  'refused',
  'storage',
]);

const WALLETS: ReadonlySet<PaymentErrorCode> = new Set([
  'no-wallet',
  'wallet-rejected',
  'wallet-failed',
  'wallet-changed',
  'wrong-network',
  'unknown-network',
  'insufficient-funds',
]);

/** A deposit is ordered again only where none was signed: one that was refused is still good. */
export function remedyOf(code: PaymentErrorCode, retryable: boolean): Remedy {
  if (code === 'price-raised') return 'new-price';
  if (code === 'misdelivered') return 'trust';
  if (!retryable) return 'none';
  return DEPOSITS.has(code) ? 'deposit' : 'again';
}

/** Whether each further purchase would fail alike, until something has changed. */
export function isForGood(code: PaymentErrorCode, retryable: boolean): boolean {
  return !retryable && FOR_GOOD.has(code);
}
