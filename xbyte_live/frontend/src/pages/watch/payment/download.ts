import { amountFor, parseAmount } from '../../../lib/money';
import type { Ahead, PaidRequest, PaidResponse } from '../../../lib/payer/types';

/** Bytes bought at once: whole MBs, of which none costs more than it does in the whole. */
export const PIECE = 32 * 2 ** 20;

/** What a download needs to know of its file. */
export interface Sold {
  size: number;
  pricePerMb: string;
  priceWhole: string;
  url: string;
  pricingUrl: string;
}

type Fetch = (url: string, request: PaidRequest) => Promise<PaidResponse>;

/** The file is not the one any more of which the first part was bought. */
export class Replaced extends Error {}

/** Buys a file, a large one in pieces; what was bought is kept, and never bought again. */
export class Download {
  #pieces: Blob[] = [];
  #loaded = 0;
  #tag: string | null = null;
  #type = '';

  constructor(
    private readonly fetchPaid: Fetch,
    private readonly told: (loaded: number, size: number) => void,
  ) {}

  /** All of it; where that fails, what is missing is bought when it is asked for again. */
  async all(file: Sold): Promise<Blob> {
    const { size } = file;
    if (size <= PIECE) await this.#buy(file, { bytes: size, amount: parseAmount(file.priceWhole) });
    while (this.#loaded < size) await this.#next(file);
    return new Blob(this.#pieces, { type: this.#type });
  }

  async #next(file: Sold): Promise<void> {
    const [from, to] = [this.#loaded, Math.min(this.#loaded + PIECE, file.size)];
    const amount = amountFor(to - from, parseAmount(file.pricePerMb));
    await this.#buy(file, { bytes: to - from, amount }, `bytes=${from}-${to - 1}`);
  }

  async #buy({ size, url, pricingUrl }: Sold, ahead: Ahead, range?: string): Promise<void> {
    const from = this.#loaded;
    const paid = await this.fetchPaid(url, {
      ahead,
      ...(range && { range }),
      pricing: pricingUrl,
      onProgress: (loaded) => this.told(from + loaded, size),
    });
    const tag = paid.headers.get('etag');
    if (from > 0 && tag !== this.#tag) {
      [this.#pieces, this.#loaded] = [[], 0];
      throw new Replaced();
    }
    this.#tag = tag;
    this.#type = paid.headers.get('content-type') ?? 'application/octet-stream';
    this.#pieces.push(new Blob([paid.bytes]));
    this.#loaded += ahead.bytes;
  }
}
