import { PaymentError } from '../../../lib/x402/errors';
import type { Payer } from '../../../lib/payer/payer';
import { byId, say } from '../../dom';
import { Download, Replaced } from './download';
import type { Item } from '../item';
import type { Notice } from '../messages/notice';
import type { Listing } from './listing';
import { save } from './receipts';
import type { Server } from '../server';

/** A file that is bought as a whole and saved; once bought, it is saved again for nothing. */
export class Sale implements Item {
  readonly ahead = 0;
  readonly #download: Download;
  #file: Blob | undefined;
  #buying = false;

  constructor(
    private readonly server: Server,
    private readonly listing: Listing,
    payer: Payer,
    private readonly notice: Notice,
    private readonly startButton: HTMLButtonElement,
  ) {
    this.#download = new Download(
      async (url, request) => payer.fetchPaid(url, request),
      (loaded, whole) => this.#label(`${Math.floor((loaded / whole) * 100)} %`),
    );
  }

  get begun(): boolean {
    return this.#buying || this.#file !== undefined;
  }

  begin(): void {
    void this.#buy();
  }

  goOn(): void {
    void this.#buy();
  }

  retry(): void {
    void this.#buy();
  }

  pause(): void {
    // what is bought at the moment arrives
  }

  unpause(): void {
    // it waits for the payer alone
  }

  halt(): void {
    // there is no next piece after one that failed
  }

  reprice(): void {
    // it is read from the offer
  }

  async #buy(): Promise<void> {
    if (this.#buying) return;
    const { pricing } = this.listing;
    this.#buying = true;
    this.startButton.disabled = true;
    byId('spinner').hidden = false;
    try {
      this.#file ??= await this.#download.all({
        size: pricing.bytes ?? 0,
        pricePerMb: pricing.price_per_mb,
        priceWhole: pricing.price_whole ?? '0',
        url: this.server.mediaUrl,
        pricingUrl: this.server.pricingUrl,
      });
      save(this.#file, pricing.name);
      this.#label('Save again');
      this.notice.clear();
    } catch (error) {
      this.#unbought(error);
    } finally {
      this.#buying = false;
      this.startButton.disabled = false;
      byId('spinner').hidden = true;
    }
  }

  #unbought(error: unknown): void {
    this.#label('Buy');
    if (error instanceof Replaced) {
      const reload = { label: 'Load the page again', act: () => location.reload() };
      this.notice.showPayers('replaced', [reload]);
    } else if (!(error instanceof PaymentError)) {
      this.notice.failed(error, () => void this.#buy());
    } // else the payer has told of it
  }

  #label(text: string): void {
    say(byId('start-text'), text);
  }
}
