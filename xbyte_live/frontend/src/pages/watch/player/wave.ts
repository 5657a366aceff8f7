import { Events, type default as Hls } from 'hls.js';

import { elementOf } from '../../dom';

const BARS = 160;
const RATE = 22_050;

/**
 * The waveform of music, of what was bought: each segment is decoded when it arrives, and until
 * then only a dot stands for it.
 */
export class Wave {
  readonly #canvas = elementOf(HTMLCanvasElement, 'wave');
  readonly #peaks = new Float32Array(BARS);
  readonly #decoder = new OfflineAudioContext(1, 1, RATE);
  #head = new Uint8Array(0);
  #loudest = 0.05;
  #at = 0;

  constructor(
    hls: Hls,
    private readonly duration: number,
    go: (time: number) => void,
  ) {
    this.#canvas.hidden = false;
    hls.on(Events.BUFFER_APPENDING, (_, { type, data, frag }) => {
      if (type === 'audio') void this.#take(data, frag.start);
    });
    this.#canvas.addEventListener('click', (event) => {
      go((event.offsetX / this.#canvas.clientWidth) * this.duration);
    });
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
  }

  show(at: number): void {
    this.#at = at;
    this.#draw();
  }

  async #take(data: Uint8Array, start: number): Promise<void> {
    if (isHead(data)) {
      this.#head = data.slice();
      return;
    }
    const whole = new Uint8Array(this.#head.length + data.length);
    whole.set(this.#head);
    whole.set(data, this.#head.length);
    try {
      this.#measure(await this.#decoder.decodeAudioData(whole.buffer), start);
    } catch {
      return; // a browser that does not decode fragments shows the progress alone
    }
    this.#draw();
  }

  #measure(sound: AudioBuffer, start: number): void {
    const samples = sound.getChannelData(0);
    const perBar = (this.duration / BARS) * sound.sampleRate;
    const offset = start * sound.sampleRate;
    for (const [index, sample] of samples.entries()) {
      const bar = Math.floor((offset + index) / perBar);
      const loud = Math.abs(sample);
      if (bar < BARS && loud > (this.#peaks[bar] ?? 0)) this.#peaks[bar] = loud;
      if (loud > this.#loudest) this.#loudest = loud;
    }
  }

  #draw(): void {
    const canvas = this.#canvas;
    const pen = canvas.getContext('2d');
    if (!pen || canvas.clientWidth === 0) return;
    canvas.width = Math.round(canvas.clientWidth * devicePixelRatio);
    canvas.height = Math.round(canvas.clientHeight * devicePixelRatio);
    const step = canvas.width / BARS;
    const wide = Math.max(2, step * 0.6);
    const middle = canvas.height / 2;
    const played = (this.#at / this.duration) * BARS;
    for (const [bar, peak] of this.#peaks.entries()) {
      const tall = Math.max(wide, (peak / this.#loudest) * canvas.height * 0.95);
      pen.fillStyle = bar < played ? '#3ccb95' : `rgb(255 255 255 / ${peak > 0 ? 85 : 30}%)`;
      pen.beginPath();
      pen.roundRect(bar * step, middle - tall / 2, wide, tall, wide / 2);
      pen.fill();
    }
  }
}

/** Whether these are the boxes before the media: `ftyp` comes first. */
function isHead(data: Uint8Array): boolean {
  return String.fromCharCode(...data.subarray(4, 8)) === 'ftyp';
}
