import { expect, it } from 'vitest';
import type { LevelLoadedData, LoaderCallbacks, LoaderContext } from 'hls.js';
import { aheadOf } from '../src/lib/loader';

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

class Playlists {
  context = null;
  stats = { loading: { start: 1, first: 1, end: 1 }, parsing: {}, buffering: {} };
  load(context: LoaderContext, _: unknown, callbacks: LoaderCallbacks<LoaderContext>): void {
    const answer = { url: context.url, data: PLAYLIST, code: 200 };
    setTimeout(() => callbacks.onSuccess(answer, this.stats as never, context, null));
  }
  abort(): void {
    /* nothing is under way */
  }
  destroy(): void {
    /* nothing is held */
  }
}

it('finds the price of a fragment where hls.js keeps tags it does not know', async () => {
  Object.assign(globalThis, { self: globalThis, location: new URL('http://127.0.0.1/') });
  const { default: Hls } = await import('hls.js');
  const hls = new Hls({ pLoader: Playlists as never, enableWorker: false });
  const loaded = new Promise<LevelLoadedData>((resolve) => {
    hls.on(Hls.Events.LEVEL_LOADED, (_, data) => resolve(data));
  });
  hls.loadSource('http://127.0.0.1/hls/a/source/index.m3u8');
  const { details } = await loaded;
  expect(details.fragments.map((frag) => aheadOf(frag.tagList))).toEqual([
    { bytes: 1000, amount: 0n },
    { bytes: 2000, amount: 7n },
  ]);
  hls.destroy();
});
