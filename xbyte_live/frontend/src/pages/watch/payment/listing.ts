import { KNOWN_ASSETS } from '../../../lib/x402/assets';
import type { Asked } from '../../../lib/x402/errors';
import { amountFor, formatAmount, MIB, most, parseAmount } from '../../../lib/money';
import type { Asset } from '../../../lib/x402/types';
import { price, size } from '../../words';
import { usualCap } from './cap_sliders';
import { depositOf, perMinute, type Network, type PriceList, type Server } from '../server';

/** The question to a viewer before the first charge. */
export interface PriceQuestion {
  heading: string;
  /** A sentence about the free part, if there was one. */
  free: string;
  figure: string;
  unit: string;
  text: string;
  perMinute: bigint;
  cap: bigint;
  deposit: bigint;
}

/** The item of the page: its price list, and the network on which it is paid. */
export class Listing {
  /** Where its channels are, if that is known here. */
  readonly network: Network | undefined;
  #asked = 0n; // atomic units per MB, for what is listed already

  private constructor(
    private readonly server: Server,
    private known: PriceList,
    private readonly networks: readonly Network[],
  ) {
    this.network = networks.find(({ network }) =>
      known.accepts.some((offer) => offer.scheme === 'batch-settlement' && offer.network === network),
    );
  }

  static async of(server: Server): Promise<Listing> {
    const [pricing, networks] = await Promise.all([server.pricing(), server.networks()]);
    return new Listing(server, pricing, networks);
  }

  /** Read the price of now; what is listed already may be dearer, as what was asked for it says. */
  async renew(asking?: Asked): Promise<void> {
    this.known = await this.server.pricing();
    const mayBeDearer = asking && !this.isFile;
    this.#asked = mayBeDearer && !covers(this.#listed, asking) ? perMbOf(asking) : 0n;
  }

  get pricing(): PriceList {
    return this.known;
  }

  get isFile(): boolean {
    return this.known.kind === 'object';
  }

  get isFree(): boolean {
    return this.perMb === 0n;
  }

  /** What a MB costs at most, in atomic units. */
  get perMb(): bigint {
    return most(this.#listed, this.#asked);
  }

  /** What a minute costs at most; 0 where nobody knows. */
  get perMinute(): bigint {
    const listed = this.#listed;
    return listed === 0n ? 0n : (perMinute(this.known) * this.perMb) / listed;
  }

  /** About what a minute costs, or for a file the whole. */
  get price(): bigint {
    return this.isFile ? parseAmount(this.known.price_whole ?? '0') : this.perMinute;
  }

  /** Half an hour of it, or a file as a whole. */
  get usualCap(): bigint {
    return this.isFile ? this.price : usualCap(this.price);
  }

  get deposit(): bigint {
    return depositOf(this.known);
  }

  /** The tokens to pay in: the well-known ones, and those of this server. */
  get assets(): Asset[] {
    const own = this.networks.flatMap(({ network, asset, symbol, decimals }) => {
      const offer = this.known.accepts.find((each) => each.network === network);
      if (!offer) return [];
      const { name, version } = offer.extra;
      return [{ network, address: asset, name, version, decimals, symbol }];
    });
    return [...own, ...KNOWN_ASSETS];
  }

  get rpcUrls(): Record<string, string> {
    const urls = this.networks.flatMap(({ network, rpc_url }) => (rpc_url ? [[network, rpc_url]] : []));
    return Object.fromEntries(urls) as Record<string, string>;
  }

  /** The question before the first charge; `before` is the price a MB that was agreed to earlier. */
  question(cap: bigint, before: string | undefined): PriceQuestion {
    const { known: pricing, isFile, price: cost } = this;
    const perMb = formatAmount(this.perMb);
    const later = this.#asked > this.#listed ? ` Later parts cost $${pricing.price_per_mb}.` : '';
    const free = pricing.preview_seconds ?? 0;
    return {
      heading: isFile ? `Buy ${pricing.name}?` : free ? 'Go on watching?' : 'Pay as you play?',
      free: before
        ? `It was $${before} a MB when you agreed. Nothing was charged at the new price.`
        : free
          ? 'The free part ends here. Nothing has been charged so far.'
          : '',
      figure: cost > 0n ? price(cost) : `$${perMb}`,
      unit: isFile
        ? `for ${size(pricing.bytes ?? 0)}`
        : cost > 0n
          ? 'a minute, about'
          : 'a MB of 1,048,576 bytes',
      text: isFile
        ? 'You pay once, for the bytes that are delivered.'
        : `$${perMb} a MB: each segment is paid when it is delivered, and never more than ` +
          `that.${later} Stop, and it stops.`,
      perMinute: isFile ? 0n : cost,
      cap,
      deposit: this.deposit,
    };
  }

  get #listed(): bigint {
    return parseAmount(this.known.price_per_mb);
  }
}

/** Whether a price per MB covers the amount asked for. */
function covers(perMb: bigint, { amount, bytes = 0 }: Asked): boolean {
  return amountFor(bytes, perMb) >= amount;
}

/** The highest price a MB at which bytes cost no more than that, in atomic units; 0 if unknown. */
export function perMbOf({ amount, bytes = 0 }: Asked): bigint {
  return bytes > 0 ? (amount * MIB) / BigInt(bytes) : 0n;
}
