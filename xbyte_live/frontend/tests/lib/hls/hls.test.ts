import { beforeAll, describe, expect, it } from 'vitest';
import type Hls from 'hls.js';
import type { HlsConfig, LevelLoadedData, LoaderCallbacks, LoaderContext } from 'hls.js';
import { xbyteLoader } from '../../../src/lib/hls/loader';
import { aheadOf } from '../../../src/lib/hls/tags';
import type { Payer } from '../../../src/lib/payer/payer';
import { setUp, type Setup } from '../../support/payers';

const PLAYLIST = `#EXTM3U
#EXT-X-VERSION:3
#EXT-X-TARGETDURATION:2
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-XBYTE-SEGMENT:BYTES=1000,AMOUNT=0
#EXTINF:2.000000,
0.ts
#EXT-X-XBYTE-SEGMENT:BYTES=2000,AMOUNT=7
#EXT-X-DISCONTINUITY
#EXTINF:2.000000,
1.ts
#EXT-X-ENDLIST
`;

const QUOTED = { ahead: { bytes: 10, amount: 10n } };

class Playlists {
  context = null;
  stats = { loading: { start: 1, first: 1, end: 1 }, parsing: {}, buffering: {} };
  constructor(readonly text = PLAYLIST) {}
  load(context: LoaderContext, _: unknown, callbacks: LoaderCallbacks<LoaderContext>): void {
    const answer = { url: context.url, data: this.text, code: 200 };
    setTimeout(() => callbacks.onSuccess(answer, this.stats as never, context, null));
  }
  abort(): void {
    /* nothing is under way */
  }
  destroy(): void {
    /* nothing is held */
  }
}

const playlists = (text?: string): unknown =>
  class extends Playlists {
    constructor() {
      super(text);
    }
  };

/** hls.js loads the first fragment through a payer until it gives up: how it ended. */
async function play(payer: Payer, size: number, amount = size): Promise<{ errors: number; code: number }> {
  const text = PLAYLIST.replace('BYTES=1000,AMOUNT=0', `BYTES=${size},AMOUNT=${amount}`);
  const { fragLoadPolicy } = Player.DefaultConfig;
  const retry = { maxNumRetry: 6, retryDelayMs: 1, maxRetryDelayMs: 1 };
  const config: Partial<HlsConfig> = {
    pLoader: playlists(text) as never,
    fLoader: xbyteLoader(payer),
    enableWorker: false,
    startFragPrefetch: true,
    fragLoadPolicy: { default: { ...fragLoadPolicy.default, errorRetry: retry } },
  };
  const hls = new Player(config);
  let errors = 0;
  const ended = new Promise<number>((resolve) => {
    hls.on(Player.Events.ERROR, (_, { fatal, response, details }) => {
      if (details === Player.ErrorDetails.FRAG_LOAD_ERROR) errors += 1;
      if (fatal) resolve(response?.code ?? 0);
    });
    hls.on(Player.Events.FRAG_LOADED, () => resolve(200));
  });
  hls.loadSource('http://127.0.0.1:8402/hls/a/source/index.m3u8');
  const code = await ended;
  hls.destroy();
  return { errors, code };
}

let Player: typeof Hls;

beforeAll(async () => {
  Object.assign(globalThis, { self: globalThis, location: new URL('http://127.0.0.1/') });
  Player = (await import('hls.js')).default;
});

it('finds the price of a fragment where hls.js keeps tags it does not know', async () => {
  const hls = new Player({ pLoader: playlists() as never, enableWorker: false });
  const loaded = new Promise<LevelLoadedData>((resolve) => {
    hls.on(Player.Events.LEVEL_LOADED, (_, data) => resolve(data));
  });
  hls.loadSource('http://127.0.0.1/hls/a/source/index.m3u8');
  const { details } = await loaded;
  expect(details.fragments.map((frag) => aheadOf(frag.tagList))).toEqual([
    { bytes: 1000, amount: 0n },
    { bytes: 2000, amount: 7n },
  ]);
  hls.destroy();
});

describe('hls.js tries again, and nothing is paid for twice', () => {
  const sold = (size: number): Setup & { url: string } => {
    const all = setUp();
    return { ...all, url: all.shop.add('/hls/a/source/0.ts', size) };
  };

  it('where other bytes came than were quoted', async () => {
    const { shop, payer, of, store } = sold(1000);
    expect(await play(payer, 1001, 1000)).toEqual({ errors: 7, code: 402 });
    expect(of('error')[0]).toMatchObject({ code: 'bad-delivery' });
    expect(shop.charges).toHaveLength(1);
    expect(shop.vouchers).toBe(1);
    expect(shop.paid).toBe(2);
    expect((await store.channels())[0]?.fault).toContain('1000 bytes where 1001');
    expect(of('error').at(-1)).toMatchObject({ code: 'misdelivered' });
  });

  it('where a byte was missing the first time', async () => {
    const { shop, payer, store } = sold(1000);
    shop.faults.push('short');
    expect(await play(payer, 1000)).toEqual({ errors: 1, code: 200 });
    expect(shop.vouchers).toBe(1);
    expect(payer.spent).toBe(1000n);
    shop.faults.push('short');
    await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 10), QUOTED).catch(() => undefined);
    expect((await payer.fetchPaid(shop.add('/hls/a/source/1.ts', 10), QUOTED)).status).toBe(200);
    expect((await store.channels())[0]?.fault).toBe('');
    expect(shop.charged).toBe(1010n);
  });

  it('where the server charges, breaks off, and has forgotten it', async () => {
    const { shop, payer, store } = sold(1000);
    shop.faults.push('break', '', 'break', '', 'break', '', 'break', '');
    shop.arrived = () => shop.forget();
    expect(await play(payer, 1000)).toEqual({ errors: 7, code: 402 });
    expect(shop.charges).toHaveLength(2);
    expect((await store.channels())[0]?.fault).toContain('does not hand them over');
  });

  it('where the server asks for more than the playlist said', async () => {
    const { shop, payer, of } = sold(1000);
    shop.price *= 2n;
    expect(await play(payer, 1000)).toEqual({ errors: 7, code: 402 });
    expect(of('error').every(({ code }) => code === 'price-raised')).toBe(true);
    expect(shop.charged).toBe(0n);
  });

  it('where the playlist asks for more than was agreed to', async () => {
    const { shop, payer, of } = sold(1000);
    payer.maxPerMb = shop.price / 2n;
    expect(await play(payer, 1000)).toEqual({ errors: 7, code: 402 });
    expect(of('error')).toHaveLength(7);
    expect(shop.paid).toBe(0);
  });

  it('where the server does not answer for long', async () => {
    const { shop, payer } = sold(1000);
    shop.faults.push(...Array.from({ length: 11 }, () => 'charge+drop'));
    expect(await play(payer, 1000)).toEqual({ errors: 2, code: 200 });
    expect(shop.vouchers).toBe(1);
    expect(payer.spent).toBe(1000n);
  });
});
