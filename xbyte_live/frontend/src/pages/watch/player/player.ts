import Hls, { Events, type ErrorData, type Fragment } from 'hls.js';

import { capLevels } from '../../../lib/hls/levels';
import { xbyteLoader } from '../../../lib/hls/loader';
import { parseAmount } from '../../../lib/money';
import type { Payer } from '../../../lib/payer/payer';
import { byId, elementOf, say } from '../../dom';
import { clock } from '../../words';
import { Controls } from './controls';
import { failureOf, isMendable, type PlaybackFailure } from './failure';
import { levelCap } from './level_cap';
import { Qualities } from './qualities';
import { Recent } from './recent';
import type { PriceList, Server } from '../server';
import { PIECES, Timeline, type Span } from './timeline';
import { Wave } from './wave';

const AHEAD = 12; // seconds that are bought before they are played
const KEPT = 180; // seconds that may be played again without buying them again
const AT_EDGE = 4; // seconds behind the place where live is played, which still count as live
const DRY = 0.5; // seconds of media that are as good as none

/** The events of the player. */
export interface PlayerListener {
  /** Nothing is left to play until more is bought. */
  bufferEmpty(): void;
  playing(): void;
  ended(): void;
  /** The browser wants a click first. */
  refused(): void;
  failed(code: PlaybackFailure): void;
  rate(perMinute: bigint): void;
}

/** Plays one title or stream. */
export class Player {
  readonly media = elementOf(HTMLVideoElement, 'media');
  readonly #hls: Hls;
  readonly #timeline: Timeline;
  readonly #qualities: Qualities;
  readonly #wave: Wave | undefined;
  readonly #live: boolean;
  readonly #paidFor = new Recent<string>(PIECES);
  #mended = false;
  #halted = false;
  #started = false;

  constructor(
    private readonly server: Server,
    pricing: PriceList,
    payer: Payer,
    private readonly heard: PlayerListener,
  ) {
    this.#live = server.kind === 'stream';
    const perMb = parseAmount(pricing.price_per_mb);
    this.#hls = new Hls({
      fLoader: xbyteLoader(payer),
      autoStartLoad: false,
      maxBufferLength: AHEAD,
      maxMaxBufferLength: AHEAD,
      backBufferLength: KEPT,
      startLevel: -1,
      capLevelToPlayerSize: true, // of pictures alone
      capLevelController: levelCap(payer, perMb),
      maxLiveSyncPlaybackRate: 1.05,
    });
    this.#timeline = new Timeline(this.#live, (time) => this.seek(time));
    this.#qualities = new Qualities(this.#hls, pricing.renditions, (rate) => heard.rate(rate));
    const hasVideo = byId('watch').dataset.video === 'true';
    if (!hasVideo) capLevels(this.#hls, payer, perMb);
    if (!hasVideo && !this.#live && pricing.duration_seconds) {
      this.#wave = new Wave(this.#hls, pricing.duration_seconds, (time) => this.seek(time));
    }
    new Controls(this.media, {
      toggle: () => this.toggle(),
      seekBy: (seconds) => this.seek(this.media.currentTime + seconds),
      goLive: () => this.goLive(),
    });
    payer.addEventListener('spend', ({ detail }) => this.#paidFor.add(detail.url));
    this.#listen();
  }

  get started(): boolean {
    return this.#started;
  }

  /** Seconds of media at hand after what plays now. */
  get ahead(): number {
    const { buffered, currentTime } = this.media;
    for (let index = 0; index < buffered.length; index += 1) {
      if (buffered.start(index) - DRY <= currentTime && currentTime <= buffered.end(index)) {
        return buffered.end(index) - currentTime;
      }
    }
    return 0;
  }

  /** Begin: to be called while a click is handled, so that sound may play. */
  start(): void {
    if (!Hls.isSupported()) {
      this.heard.failed('unsupported');
      return;
    }
    if (!this.#started) {
      this.#started = true;
      this.#hls.loadSource(this.server.mediaUrl);
      this.#hls.attachMedia(this.media);
      this.#hls.once(Events.MANIFEST_PARSED, () => this.#hls.startLoad(-1));
    }
    this.media.play().catch((error: unknown) => {
      // it plays as soon as there is something, or where it needs a click first, not at all
      if (error instanceof DOMException && error.name === 'NotAllowedError') this.heard.refused();
    });
  }

  toggle(): void {
    if (!this.#started || this.media.paused) this.start();
    else this.media.pause();
  }

  seek(time: number): void {
    const { start, end } = this.#span();
    if (!this.#started || end <= start) return;
    const latest = this.#live ? (this.#hls.liveSyncPosition ?? end) : end - 0.1;
    this.media.currentTime = Math.min(Math.max(time, start), latest);
  }

  goLive(): void {
    if (!this.#live || !this.#started) return;
    const edge = this.#hls.liveSyncPosition;
    if (edge !== null && edge > this.media.currentTime) this.media.currentTime = edge;
    void this.media.play().catch(() => undefined);
  }

  /** Buy nothing more; what was bought plays on. */
  halt(): void {
    this.#halted = true;
    this.#hls.stopLoad();
  }

  /** Go on after `halt()`, by playlists that are read anew: the old ones hold the old prices. */
  goOn(): void {
    if (!this.#halted) return;
    this.#halted = false;
    for (const level of this.#hls.levels) level.details = undefined;
    this.#hls.startLoad(this.media.currentTime);
  }

  /** Show new prices. */
  reprice({ renditions }: PriceList): void {
    this.#qualities.reprice(renditions);
  }

  /** Look again for what could not be had. */
  retry(): void {
    this.#mended = false;
    if (this.#hls.levels.length === 0) this.#hls.loadSource(this.server.mediaUrl);
    this.#hls.startLoad(this.media.currentTime);
    void this.media.play().catch(() => undefined);
  }

  #listen(): void {
    const { media } = this;
    const hls = this.#hls;
    hls.on(Events.MANIFEST_PARSED, () => this.#qualities.offer());
    for (const event of [Events.LEVEL_SWITCHING, Events.LEVEL_SWITCHED] as const) {
      hls.on(event, () => this.#qualities.show());
    }
    hls.on(Events.FRAG_BUFFERED, (_, { frag }) => this.#arrived(frag));
    hls.on(Events.ERROR, (_, data) => this.#failed(data));
    for (const event of ['timeupdate', 'seeking', 'durationchange', 'progress']) {
      media.addEventListener(event, () => this.#show());
    }
    media.addEventListener('waiting', () => this.#waiting(true));
    media.addEventListener('stalled', () => this.#waiting(this.ahead < DRY));
    for (const event of ['playing', 'canplay', 'seeked']) {
      media.addEventListener(event, () => this.#waiting(this.ahead < DRY && !media.ended));
    }
    media.addEventListener('playing', () => {
      byId('stage').dataset.started = '';
      byId('stage').toggleAttribute('data-sound', media.videoWidth === 0);
      this.heard.playing();
    });
    media.addEventListener('ended', () => this.heard.ended());
    setInterval(() => this.#look(), 250);
  }

  #look(): void {
    if (!this.#started || this.media.ended) return;
    if (this.ahead < DRY) this.heard.bufferEmpty();
    if (this.#live) this.#showLatency();
  }

  #waiting(waits: boolean): void {
    byId('spinner').hidden = !waits || this.media.paused;
  }

  #arrived(frag: Fragment): void {
    if (frag.sn === 'initSegment') return;
    const paid = this.#paidFor.has(frag.url);
    this.#timeline.add({ start: frag.start, end: frag.start + frag.duration, paid });
    this.#show();
  }

  #span(): Span {
    const { media } = this;
    if (!this.#live) return { start: 0, end: Number.isFinite(media.duration) ? media.duration : 0 };
    const details = this.#hls.levels[this.#hls.currentLevel]?.details;
    const start = details?.fragments[0]?.start ?? 0;
    return { start, end: details?.edge ?? 0 };
  }

  #show(): void {
    const at = this.media.currentTime;
    this.#timeline.show(at, this.#span());
    this.#wave?.show(at);
  }

  #showLatency(): void {
    const sync = this.#hls.liveSyncPosition;
    const button = byId('go-live');
    const ended = this.#hls.levels[this.#hls.currentLevel]?.details?.live === false;
    button.hidden = ended;
    const late = byId('latency');
    late.hidden = ended || sync === null || this.media.played.length === 0;
    if (sync === null || ended) return;
    const atEdge = this.media.currentTime >= sync - AT_EDGE;
    button.toggleAttribute('data-edge', atEdge);
    say(byId('go-live-text'), atEdge ? 'Live' : 'Go to live');
    const { latency } = this.#hls;
    say(late, latency < 100 ? `${latency.toFixed(1)} s behind live` : `${clock(latency)} behind live`);
    late.dataset.seconds = latency.toFixed(1);
  }

  #failed(data: ErrorData): void {
    const status = data.response?.code ?? 0;
    if (status === 410) {
      this.heard.failed('gone');
      this.goLive();
      return;
    }
    if (!data.fatal) return;
    if (isMendable(data) && !this.#mended) {
      this.#mended = true;
      this.#hls.recoverMediaError();
      return;
    }
    const failure = failureOf(data);
    if (failure === 'unplayable') this.media.pause(); // it would wait for ever
    this.heard.failed(failure);
  }
}
