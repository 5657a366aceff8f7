import { byId, elementOf, fill } from '../../dom';
import { clock } from '../../words';

/** From where to where one may go, in seconds of the media. */
export interface Span {
  start: number;
  end: number;
}

interface Piece extends Span {
  paid: boolean;
}

const BOUGHT = '#3ccb95';
const FREE = '#fff';
export const PIECES = 5_000; // remembered at most

/** The bar one seeks with; it shows which parts were bought. */
export class Timeline {
  readonly #seek = elementOf(HTMLInputElement, 'seek');
  readonly #canvas = elementOf(HTMLCanvasElement, 'bought');
  readonly #clock = byId('clock');
  #pieces: Piece[] = [];
  #span: Span = { start: 0, end: 0 };
  #at = 0;
  #held = false;

  constructor(
    private readonly live: boolean,
    go: (time: number) => void,
  ) {
    this.#seek.addEventListener('input', () => {
      this.#held = true;
      this.#write(Number(this.#seek.value));
    });
    this.#seek.addEventListener('change', () => {
      this.#held = false;
      go(Number(this.#seek.value));
    });
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
  }

  /** A segment has arrived. */
  add(piece: Piece): void {
    this.#pieces.push(piece);
    if (this.#pieces.length > PIECES) this.#pieces.shift();
    this.#draw();
  }

  show(at: number, span: Span): void {
    this.#at = at;
    this.#span = span;
    this.#seek.min = String(span.start);
    this.#seek.max = String(span.end);
    if (!this.#held) {
      this.#seek.value = String(at);
      this.#write(at);
    }
    this.#draw();
  }

  #write(at: number): void {
    const { start, end } = this.#span;
    fill(this.#seek);
    const behind = end - at;
    const text = this.live
      ? behind < 1
        ? 'live'
        : `-${clock(behind)}`
      : `${clock(at)} / ${clock(end)}`;
    if (this.#clock.textContent !== text) this.#clock.textContent = text;
    this.#seek.setAttribute(
      'aria-valuetext',
      this.live
        ? `${clock(behind)} behind live, of ${clock(end - start)}`
        : `${clock(at)} of ${clock(end)}`,
    );
  }

  #draw(): void {
    const canvas = this.#canvas;
    const [width, height] = [canvas.clientWidth * devicePixelRatio, canvas.clientHeight * devicePixelRatio];
    const pen = canvas.getContext('2d');
    const { start, end } = this.#span;
    if (!pen || width === 0 || end <= start) return;
    if (canvas.width !== Math.round(width)) canvas.width = Math.round(width);
    if (canvas.height !== Math.round(height)) canvas.height = Math.round(height);
    pen.clearRect(0, 0, canvas.width, canvas.height);
    const place = (time: number): number => ((time - start) / (end - start)) * canvas.width;
    const paint = (from: number, to: number, alpha: number): void => {
      const left = Math.max(0, place(from));
      pen.globalAlpha = alpha;
      if (to > from) pen.fillRect(left, 0, place(to) - left, canvas.height);
    };
    for (const piece of this.#pieces) {
      if (piece.end <= start) continue;
      const played = Math.min(Math.max(this.#at, piece.start), piece.end);
      pen.fillStyle = piece.paid ? BOUGHT : FREE;
      paint(piece.start, played, 1);
      paint(played, piece.end, 0.45);
    }
  }
}
