/** The last ones of what is added, so many of them at most. */
export class Recent<T> {
  readonly #kept = new Set<T>();

  constructor(private readonly most: number) {}

  add(value: T): void {
    this.#kept.delete(value);
    this.#kept.add(value);
    if (this.#kept.size <= this.most) return;
    const [oldest] = this.#kept;
    if (oldest !== undefined) this.#kept.delete(oldest);
  }

  has(value: T): boolean {
    return this.#kept.has(value);
  }
}
