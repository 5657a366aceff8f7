const LONGEST = 30_000; // milliseconds

/** How long to wait before asking again: longer after each failure in a row. */
export class Backoff {
  #next: number;

  constructor(private readonly shortest: number) {
    this.#next = shortest;
  }

  /** Milliseconds; it is called once a failure. */
  wait(): number {
    const wait = this.#next;
    this.#next = Math.min(2 * wait, LONGEST);
    return wait;
  }

  /** It went well. */
  reset(): void {
    this.#next = this.shortest;
  }
}
