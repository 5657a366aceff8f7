/** A request that the server refused, with the reason for people. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

export interface Earned {
  deliveries: number;
  bytes: number;
  amount: string;
}

export interface Earnings {
  from: number;
  to: number;
  step: number;
  total: Earned;
  series: (Earned & { at: number })[];
  items: (Earned & { slug: string })[];
  other_items: Earned;
}

export interface Moment {
  plays: number;
  bytes: number;
  amount: string;
}

export interface Moments {
  slug: string;
  duration_seconds: number;
  moments: (Moment & { start_seconds: number; duration_seconds: number })[];
  elsewhere: Moment;
}

export interface Payers {
  count: number;
  payers: (Earned & { payer: string; first_at: number; last_at: number })[];
}

export interface Payee {
  scheme: string;
  network: string;
  pay_to: string;
  charged: string;
  held: string;
  unclaimed: string;
  claimed: string;
  settled: string;
  waiting: string;
  in_doubt: string;
  owed: string;
  archived: string;
}

export interface CatalogItem {
  slug: string;
  name: string;
  kind: 'title' | 'stream' | 'object';
  price_per_mb: string;
  price_per_minute?: string | null;
  price_whole?: string;
  preview_seconds?: number;
  rewatch: 'paid' | 'free';
}

export interface Feed {
  bit_rate?: number;
  width?: number | null;
  height?: number | null;
  frame_rate?: number | null;
  keyframe_interval_s?: number | null;
  segments?: number;
  segments_lost?: number;
  packets_late?: number;
  packets_dropped?: number;
  restarts?: number;
  codecs?: string;
  warnings?: { code?: string; text: string }[];
}

export interface StreamStatus {
  slug: string;
  name: string;
  state: 'idle' | 'on_air' | 'waiting' | 'ended';
  connected: boolean;
  on_air_for_s: number | null;
  recording: boolean;
  pulled: boolean;
  feed: Feed | null;
}

export interface Figures {
  window_s: number;
  total: Earned & { payers: number };
  items: (Earned & { slug: string; payers: number })[];
  streams: StreamStatus[];
}

export interface StreamKey {
  id: number;
  hint: string;
  created_at: number;
  expires_at: number | null;
  used_at: number | null;
}

export interface Publishing {
  slug: string;
  rtmp_url: string | null;
  keyframe_interval_s: number;
  keys?: StreamKey[];
  stream_key?: string;
}

/** Ask the server; throws `ApiError` for anything but what was asked. */
export async function ask<T>(
  path: string,
  { method = 'GET', body, query }: { method?: string; body?: object; query?: Record<string, string> } = {},
): Promise<T> {
  const url = query ? `${path}?${new URLSearchParams(query).toString()}` : path;
  let answer: Response;
  try {
    answer = await fetch(url, {
      method,
      credentials: 'same-origin',
      cache: 'no-cache', // prices may be cached for viewers, not for who changes them
      ...(body ? { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : {}),
    });
  } catch {
    throw new ApiError(0, 'The server does not answer. It is asked again shortly.');
  }
  if (answer.ok) return (await answer.json()) as T;
  throw new ApiError(answer.status, await reason(answer));
}

async function reason(answer: Response): Promise<string> {
  try {
    const { message } = (await answer.json()) as { message?: string };
    if (message) return `${message.slice(0, 1).toUpperCase()}${message.slice(1)}.`.replace(/\.\.$/, '.');
  } catch {
    // no JSON: a proxy in between answered
  }
  return `The server answered ${answer.status}. It is asked again shortly.`;
}
