import { byId, say } from '../../dom';

/** What lies over the picture where it does not go on by itself, with the way on. */
export class Overlay {
  readonly #box = byId('halt');

  show(text: string, action: string): void {
    this.#box.hidden = false;
    say(byId('halt-text'), text);
    say(byId('halt-action'), action);
    byId('spinner').hidden = true;
  }

  clear(): void {
    this.#box.hidden = true;
  }
}
