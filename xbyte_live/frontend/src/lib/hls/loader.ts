import type {
  FragmentLoaderContext,
  HlsConfig,
  Loader,
  LoaderCallbacks,
  LoaderConfiguration,
  LoaderStats,
} from 'hls.js';
import type { Payer } from '../payer/payer';
import type { PaidRequest } from '../payer/types';
import { PaymentError } from '../x402/errors';
import { ChunkRelay } from './relay';
import { FragmentStats } from './stats';
import { aheadOf, pricingUrlOf } from './tags';

const TRY_AGAIN = 503; // what hls.js tries again after a while

export interface LoaderOptions {
  /** URL of the item's `pricing.json` (default: beside the multivariant playlist). */
  pricing?: string;
  /** The highest price to pay, in atomic units per MB, if the payer has no lower one. */
  maxPerMb?: bigint;
}

type Context = FragmentLoaderContext;

/** Loads fragments for hls.js, paying for each by what its playlist says it costs. */
export class XByteLoader implements Loader<Context> {
  context: Context | null = null;
  stats: LoaderStats = new FragmentStats();
  readonly #payer: Payer;
  readonly #options: LoaderOptions;
  #callbacks: LoaderCallbacks<Context> | null = null;
  #aborting = new AbortController();
  #response: Response | null = null;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(payer: Payer, options: LoaderOptions = {}) {
    this.#payer = payer;
    this.#options = options;
  }

  load(context: Context, config: LoaderConfiguration, callbacks: LoaderCallbacks<Context>): void {
    this.context = context;
    this.#callbacks = callbacks;
    void this.#load(context, config);
  }

  abort(): void {
    this.#stop();
    const callbacks = this.#callbacks;
    if (this.context) callbacks?.onAbort?.(this.stats, this.context, this.#response);
  }

  destroy(): void {
    this.#callbacks = null;
    this.#stop();
    this.context = null;
    this.#response = null;
  }

  getCacheAge(): number | null {
    const age = this.getResponseHeader('age');
    return age === null ? null : Number.parseFloat(age);
  }

  getResponseHeader(name: string): string | null {
    return this.#response?.headers.get(name) ?? null;
  }

  #stop(): void {
    clearTimeout(this.#timer);
    if (this.stats.loading.end) return;
    this.stats.aborted = true;
    this.#aborting.abort();
  }

  async #load(context: Context, config: LoaderConfiguration): Promise<void> {
    const { stats } = this;
    const relay = new ChunkRelay(config.highWaterMark, (data) =>
      this.#callbacks?.onProgress?.(stats, context, data, this.#response),
    );
    const live = this.#callbacks?.onProgress ? relay : undefined;
    try {
      const paid = await this.#payer.fetchPaid(context.url, this.#request(context, config, live));
      clearTimeout(this.#timer);
      if (stats.aborted) return;
      stats.loading.end = Math.max(performance.now(), stats.loading.first);
      stats.loaded = stats.total = paid.bytes.byteLength;
      const data = live?.end(paid.bytes) ?? paid.bytes;
      const answer = { url: context.url, data, code: paid.status };
      this.#callbacks?.onSuccess(answer, stats, context, this.#response);
    } catch (error) {
      clearTimeout(this.#timer);
      if (stats.aborted) return;
      const text = error instanceof Error ? error.message : String(error);
      this.#callbacks?.onError({ code: codeOf(error), text }, context, this.#response, stats);
    }
  }

  #request(context: Context, config: LoaderConfiguration, live: ChunkRelay | undefined): PaidRequest {
    const { stats } = this;
    const { url, frag, part, rangeStart, rangeEnd } = context;
    const range = rangeEnd ? `bytes=${rangeStart ?? 0}-${rangeEnd - 1}` : undefined;
    const ahead = range || part ? undefined : aheadOf(frag.tagList);
    const { pricing = pricingUrlOf(url), maxPerMb } = this.#options;
    return {
      signal: this.#aborting.signal,
      ...(range && { range }),
      ...(ahead && { ahead }),
      ...(pricing && { pricing }),
      ...(maxPerMb !== undefined && { maxPerMb }),
      onStart: () => {
        clearTimeout(this.#timer);
        stats.loading.start = performance.now();
        stats.loading.first = stats.loaded = 0;
        live?.restart();
      },
      onWait: () => (stats.loading.start = 0),
      onHeaders: (response, total) => {
        this.#response = response;
        stats.loading.first = Math.max(performance.now(), stats.loading.start);
        stats.total = total;
        const { maxLoadTimeMs } = config.loadPolicy;
        if (Number.isFinite(maxLoadTimeMs)) this.#limit(context, maxLoadTimeMs);
      },
      onProgress: (loaded, total, chunk) => {
        stats.loaded = loaded;
        stats.total = Math.max(total, loaded);
        live?.add(chunk);
      },
    };
  }

  #limit(context: Context, within: number): void {
    this.#timer = setTimeout(() => {
      const callbacks = this.#callbacks;
      this.#stop();
      callbacks?.onTimeout(this.stats, context, this.#response);
    }, within);
  }
}

/** The fragment loader of a payer: `new Hls({ fLoader: xbyteLoader(payer) })`. */
export function xbyteLoader(
  payer: Payer,
  options: LoaderOptions = {},
): new (config: HlsConfig) => XByteLoader {
  return class extends XByteLoader {
    constructor() {
      super(payer, options);
    }
  };
}

function codeOf(error: unknown): number {
  if (!(error instanceof PaymentError)) return 0;
  return error.status || (error.retryable ? TRY_AGAIN : 402);
}
