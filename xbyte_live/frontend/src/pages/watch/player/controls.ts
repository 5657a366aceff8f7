import { byId, elementOf, fill } from '../../dom';

const QUIET_AFTER = 3_000; // milliseconds without a pointer moving
const STEP = 5; // seconds
const LOUDER = 0.1;

/** What the controls do, besides what they can do to the media by themselves. */
export interface Deeds {
  toggle(): void;
  seekBy(seconds: number): void;
  goLive(): void;
}

/** Buttons and keys of the player. */
export class Controls {
  readonly #stage = byId('stage');
  readonly #toggle = byId('toggle');
  readonly #mute = byId('mute');
  readonly #volume = elementOf(HTMLInputElement, 'volume');
  readonly #fullscreen = byId('fullscreen');
  #quietAt = 0;
  #woken = false; // the pointer went down while the controls were hidden

  constructor(
    private readonly media: HTMLVideoElement,
    private readonly deeds: Deeds,
  ) {
    this.#toggle.addEventListener('click', () => deeds.toggle());
    this.#mute.addEventListener('click', () => (media.muted = !media.muted));
    this.#volume.addEventListener('input', () => {
      media.volume = Number(this.#volume.value);
      media.muted = media.volume === 0;
    });
    this.#fullscreen.addEventListener('click', () => void this.#full());
    byId('go-live').addEventListener('click', () => deeds.goLive());
    this.#stage.addEventListener('pointerdown', ({ pointerType }) => {
      this.#woken = pointerType === 'touch' && this.#stage.hasAttribute('data-quiet');
    });
    media.addEventListener('click', () => {
      if (!this.#woken) deeds.toggle(); // a tap shows the controls first
    });
    media.addEventListener('dblclick', () => void this.#full());
    for (const event of ['play', 'pause', 'playing', 'volumechange']) {
      media.addEventListener(event, () => this.#show());
    }
    document.addEventListener('fullscreenchange', () => this.#show());
    document.addEventListener('keydown', (event) => {
      if (this.#isHere(event.target) && !isForAnother(event)) this.#key(event);
    });
    for (const event of ['pointermove', 'pointerdown', 'keydown', 'focusin']) {
      this.#stage.addEventListener(event, () => this.#wake());
    }
    setInterval(() => this.#settle(), 500);
    this.#show();
  }

  #show(): void {
    const { media } = this;
    const playing = !media.paused;
    this.#stage.dataset.state = playing ? 'playing' : 'paused';
    this.#toggle.setAttribute('aria-label', playing ? 'Pause' : 'Play');
    this.#mute.setAttribute('aria-pressed', String(media.muted));
    this.#volume.value = String(media.muted ? 0 : media.volume);
    this.#volume.setAttribute('aria-valuetext', `${Math.round(Number(this.#volume.value) * 100)} %`);
    this.#fullscreen.setAttribute('aria-pressed', String(document.fullscreenElement !== null));
    fill(this.#volume);
    this.#wake();
  }

  #wake(): void {
    this.#quietAt = performance.now() + QUIET_AFTER;
    this.#stage.removeAttribute('data-quiet');
  }

  #settle(): void {
    if (!this.media.paused && performance.now() > this.#quietAt) {
      this.#stage.setAttribute('data-quiet', '');
    }
  }

  async #full(): Promise<void> {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await this.#stage.requestFullscreen();
    } catch {
      (this.media as { webkitEnterFullscreen?: () => void }).webkitEnterFullscreen?.();
    }
  }

  /** Whether a key is pressed in the player; elsewhere it scrolls the page, as it does anywhere. */
  #isHere(target: EventTarget | null): boolean {
    const inside = target instanceof Node && this.#stage.contains(target);
    return inside || document.fullscreenElement === this.#stage;
  }

  #key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const deed = this.#deedOf(event.key);
    if (!deed) return;
    event.preventDefault();
    this.#wake();
    deed();
  }

  #deedOf(key: string): (() => void) | undefined {
    const { media, deeds } = this;
    const deedOf: Record<string, () => void> = {
      ' ': () => deeds.toggle(),
      k: () => deeds.toggle(),
      m: () => (media.muted = !media.muted),
      f: () => void this.#full(),
      l: () => deeds.goLive(),
      ArrowLeft: () => deeds.seekBy(-STEP),
      ArrowRight: () => deeds.seekBy(STEP),
      ArrowUp: () => (media.volume = Math.min(1, media.volume + LOUDER)),
      ArrowDown: () => (media.volume = Math.max(0, media.volume - LOUDER)),
    };
    return deedOf[key];
  }
}

/** Whether a key is meant for what has the focus: a button, a field, the question. */
function isForAnother(event: KeyboardEvent): boolean {
  const target = event.target instanceof Element ? event.target : undefined;
  if (document.querySelector('dialog[open]')) return true;
  if (target?.closest('select, textarea, summary, [role="region"]')) return true;
  const input = target?.closest('input');
  if (input) return event.key.length > 1 || input.type !== 'range';
  return event.key === ' ' && target?.closest('button, a') !== null && target !== document.body;
}
