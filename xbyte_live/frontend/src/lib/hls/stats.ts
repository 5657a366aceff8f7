import type { LoaderStats } from 'hls.js';

/** Timings by which loading begins when the request leaves, not while it waits for money. */
export class FragmentStats implements LoaderStats {
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
