import type {
  Events,
  FragmentLoaderContext,
  HlsConfig,
  Loader,
  LoaderCallbacks,
  LoaderConfiguration,
  LoaderStats,
} from 'hls.js';
import { PaymentError } from '../x402/errors';
import { joined } from '../http';
import { costPerMinute, type Rate } from '../money';
import type { Payer } from '../payer/payer';
import type { Ahead, PaidRequest } from '../payer/types';

const TAG = 'EXT-X-XBYTE-SEGMENT';
const PARSED = 'hlsManifestParsed' as unknown as Events.MANIFEST_PARSED; // the library brings no hls.js
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
  stats: LoaderStats = new Stats();
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
    const feed = new Feed(config.highWaterMark, (data) =>
      this.#callbacks?.onProgress?.(stats, context, data, this.#response),
    );
    const live = this.#callbacks?.onProgress ? feed : undefined;
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

  #request(context: Context, config: LoaderConfiguration, live: Feed | undefined): PaidRequest {
    const { stats } = this;
    const { url, frag, part, rangeStart, rangeEnd } = context;
    const range = rangeEnd ? `bytes=${rangeStart ?? 0}-${rangeEnd - 1}` : undefined;
    const ahead = range || part ? undefined : aheadOf(frag.tagList);
    const { pricing = pricingOf(url), maxPerMb } = this.#options;
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

/** What is needed of an `Hls` to cap its levels. */
export interface LevelSource {
  readonly levels: readonly Rate[];
  autoLevelCapping: number;
  on(event: Events.MANIFEST_PARSED, listener: () => void): void;
  off(event: Events.MANIFEST_PARSED, listener: () => void): void;
}

/** The dearest of `levels`, cheapest first, that fits a budget for a minute; else the cheapest. */
export function affordableLevel(
  levels: readonly Rate[],
  perMinute: bigint | undefined,
  perMb: bigint,
): number {
  const fits = (level: Rate): boolean =>
    perMinute === undefined || costPerMinute(level, perMb) <= perMinute;
  return Math.max(0, levels.map(fits).lastIndexOf(true));
}

/**
 * Let hls.js choose by itself only levels whose cost fits the payer's budget for a minute.
 *
 * `perMb` is the price in atomic units. It follows the budget until the returned call. With
 * `capLevelToPlayerSize` hls.js sets the same limit itself, by the size of the picture.
 */
export function capLevels(hls: LevelSource, payer: Payer, perMb: bigint): () => void {
  const cap = (): void => {
    const level = affordableLevel(hls.levels, payer.budget.perMinute, perMb);
    hls.autoLevelCapping = level === hls.levels.length - 1 ? -1 : level;
  };
  hls.on(PARSED, cap);
  payer.addEventListener('budget', cap);
  cap();
  return () => {
    hls.off(PARSED, cap);
    payer.removeEventListener('budget', cap);
    hls.autoLevelCapping = -1;
  };
}

/** The offer in a fragment's tags (`#EXT-X-XBYTE-SEGMENT:BYTES=…,AMOUNT=…`). */
export function aheadOf(tags: readonly (readonly string[])[]): Ahead | undefined {
  const value = tags.find(([name]) => name === TAG)?.[1] ?? '';
  const bytes = /(?:^|,)BYTES=(\d{1,15})(?:,|$)/.exec(value)?.[1];
  const amount = /(?:^|,)AMOUNT=(\d{1,19})(?:,|$)/.exec(value)?.[1];
  if (bytes === undefined || amount === undefined) return undefined;
  return { bytes: Number(bytes), amount: BigInt(amount) };
}

/** Where the price list of a segment of an xByte Live server is. */
function pricingOf(url: string): string | undefined {
  const found = /^(.*\/hls\/[^/?#]+)\/[^/?#]+\/[^/?#]+$/.exec(url.replace(/[?#].*$/, ''));
  return found ? `${found[1]}/pricing.json` : undefined;
}

function codeOf(error: unknown): number {
  if (!(error instanceof PaymentError)) return 0;
  return error.status || (error.retryable ? TRY_AGAIN : 402);
}

/** Timings by which loading begins when the request leaves, not while it waits for money. */
class Stats implements LoaderStats {
  aborted = false;
  loaded = 0;
  retry = 0;
  total = 0;
  chunkCount = 0;
  bwEstimate = 0;
  loading = new Timing();
  parsing = { start: 0, end: 0 };
  buffering = { start: 0, first: 0, end: 0 };
}

class Timing {
  first = 0;
  end = 0;
  #start = 0;

  get start(): number {
    return this.#start || performance.now();
  }

  set start(at: number) {
    this.#start = at;
  }
}

/** Hands bytes on while they come, each once, though a body may begin anew. */
class Feed {
  readonly #enough: number;
  readonly #give: (data: ArrayBuffer) => void;
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #held = 0;
  #given = 0;
  #skip = 0;

  constructor(enough: number | undefined, give: (data: ArrayBuffer) => void) {
    this.#enough = enough ?? 0;
    this.#give = give;
  }

  restart(): void {
    this.#chunks = [];
    this.#held = 0;
    this.#skip = this.#given;
  }

  add(chunk: Uint8Array<ArrayBuffer>): void {
    const skipped = Math.min(this.#skip, chunk.byteLength);
    this.#skip -= skipped;
    if (skipped === chunk.byteLength) return;
    this.#chunks.push(chunk.subarray(skipped));
    this.#held += chunk.byteLength - skipped;
    if (this.#held >= this.#enough) this.#flush();
  }

  /** What hls.js still needs: nothing, where it was given all while it came. */
  end(bytes: ArrayBuffer): ArrayBuffer {
    if (!Number.isFinite(this.#enough)) {
      this.#give(bytes);
      return bytes;
    }
    if (this.#held) this.#flush();
    return new ArrayBuffer(0);
  }

  #flush(): void {
    this.#given += this.#held;
    this.#give(joined(this.#chunks, this.#held));
    this.#chunks = [];
    this.#held = 0;
  }
}
