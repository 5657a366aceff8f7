import { parseAmount } from '../../lib/money';
import type { Hex, ChannelOffer } from '../../lib/x402/types';

/** A network on which this server is paid, and its token. */
export interface Network {
  network: string;
  chain_id: number;
  name: string;
  asset: Hex;
  symbol: string;
  decimals: number;
  rpc_url: string | null;
  faucet_url: string | null;
}

export interface Rendition {
  name: string;
  bandwidth: number;
  average_bandwidth: number;
  width: number | null;
  height: number | null;
  price_per_minute: string;
  price_whole: string | null;
}

/** An item's price list, `pricing.json`. */
export interface PriceList {
  slug: string;
  name: string;
  kind: 'title' | 'stream' | 'object';
  price_per_mb: string;
  price_per_minute?: string | null;
  price_whole?: string;
  preview_seconds?: number;
  duration_seconds?: number;
  bytes?: number;
  pay_to: string;
  renditions: Rendition[];
  accepts: (Omit<ChannelOffer, 'amount' | 'scheme'> & { scheme: string })[];
}

export interface OnAirStatus {
  state: 'idle' | 'on_air' | 'waiting' | 'ended';
  viewers_paying: number;
}

/** The requests of the watch page to its server. */
export class Server {
  readonly pricingUrl: string;
  readonly mediaUrl: string;

  constructor(
    readonly slug: string,
    readonly kind: string,
  ) {
    const base = kind === 'object' ? `/objects/${slug}` : `/hls/${slug}`;
    this.pricingUrl = new URL(`${base}/pricing.json`, location.href).href;
    this.mediaUrl = new URL(kind === 'object' ? base : `${base}/index.m3u8`, location.href).href;
  }

  async pricing(): Promise<PriceList> {
    return json<PriceList>(this.pricingUrl);
  }

  async networks(): Promise<Network[]> {
    return (await json<{ networks: Network[] }>('/api/v1/site')).networks;
  }

  /** The message code for a server that is not ready; `undefined` where it is. */
  async ailment(): Promise<'unreachable' | 'facilitator' | 'setup' | undefined> {
    const answer = await fetch('/readyz', { cache: 'no-store' }).catch(() => undefined);
    if (!answer) return 'unreachable';
    if (answer.ok) return undefined;
    const said = (await answer.json().catch(() => ({}))) as { problems?: Record<string, string> };
    return said.problems?.facilitator ? 'facilitator' : 'setup';
  }

  async status(): Promise<OnAirStatus> {
    return json<OnAirStatus>(`/api/v1/streams/${this.slug}`);
  }
}

/** What a minute costs at most, in atomic units; 0 where nobody knows yet. */
export function perMinute(pricing: PriceList): bigint {
  return parseAmount(pricing.price_per_minute ?? '0');
}

/** What is deposited at least, in atomic units; 0 where no channel is offered. */
export function depositOf(pricing: PriceList): bigint {
  const offer = pricing.accepts.find(({ scheme }) => scheme === 'batch-settlement');
  return BigInt(offer?.extra.minDeposit ?? '0');
}

async function json<T>(url: string): Promise<T> {
  const answer = await fetch(url, { cache: 'no-cache' });
  if (!answer.ok) throw new Error(`${url} answered ${answer.status}`);
  return (await answer.json()) as T;
}
