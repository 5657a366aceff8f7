const FIRST = 65_536; // bytes made room for where nobody says how many come

/** The bytes of an answer while they come: held once, and no more of them than may come. */
export class Body {
  readonly #most: number;
  #held: Uint8Array<ArrayBuffer>;
  #length = 0;

  /** `expected` is 0 where it is not known. */
  constructor(expected: number, most: number) {
    this.#most = most;
    this.#held = new Uint8Array(Math.min(expected, most));
  }

  get length(): number {
    return this.#length;
  }

  /** False, and nothing is added, where that is more than may come. */
  add(chunk: Uint8Array): boolean {
    const end = this.#length + chunk.byteLength;
    if (end > this.#most) return false;
    if (end > this.#held.byteLength) this.#grow(end);
    this.#held.set(chunk, this.#length);
    this.#length = end;
    return true;
  }

  bytes(): ArrayBuffer {
    const { buffer, byteLength } = this.#held;
    return byteLength === this.#length ? buffer : buffer.slice(0, this.#length);
  }

  #grow(needed: number): void {
    const size = Math.min(this.#most, Math.max(needed, FIRST, 2 * this.#held.byteLength));
    const held = new Uint8Array(size);
    held.set(this.#held.subarray(0, this.#length));
    this.#held = held;
  }
}
