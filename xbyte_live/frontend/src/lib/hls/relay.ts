import { joined } from '../http';

/** Hands on the chunks of a body while they come, each byte once, though it may begin anew. */
export class ChunkRelay {
  readonly #enough: number;
  readonly #give: (data: ArrayBuffer) => void;
  #chunks: Uint8Array<ArrayBuffer>[] = [];
  #held = 0;
  #given = 0;
  #skip = 0;

  constructor(enough: number | undefined, give: (data: ArrayBuffer) => void) {
    this.#enough = enough ?? 0;
    this.#give = give;
  }

  restart(): void {
    this.#chunks = [];
    this.#held = 0;
    this.#skip = this.#given;
  }

  add(chunk: Uint8Array<ArrayBuffer>): void {
    const skipped = Math.min(this.#skip, chunk.byteLength);
    this.#skip -= skipped;
    if (skipped === chunk.byteLength) return;
    this.#chunks.push(chunk.subarray(skipped));
    this.#held += chunk.byteLength - skipped;
    if (this.#held >= this.#enough) this.#flush();
  }

  /** The bytes that hls.js still needs: none, where it was given all of them before. */
  end(bytes: ArrayBuffer): ArrayBuffer {
    if (!Number.isFinite(this.#enough)) {
      this.#give(bytes);
      return bytes;
    }
    if (this.#held) this.#flush();
    return new ArrayBuffer(0);
  }

  #flush(): void {
    this.#given += this.#held;
    this.#give(joined(this.#chunks, this.#held));
    this.#chunks = [];
    this.#held = 0;
  }
}
