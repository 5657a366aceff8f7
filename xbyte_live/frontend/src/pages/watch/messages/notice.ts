import { PaymentError } from '../../../lib/x402/errors';
import { byId, made, say } from '../../dom';
import { messageFor } from './texts';

/** A button of a notice. */
export interface WayOut {
  label: string;
  act: () => void;
}

/** The line under the player that tells of a problem, with buttons against it. */
export class Notice {
  readonly #box = byId('notice');
  readonly #actions = byId('notice-actions');
  #code = '';
  #isPayers = false;

  get code(): string {
    return this.#code;
  }

  /** Whether it shows an error of the payer, which no other replaces. */
  get isPayers(): boolean {
    return this.#isPayers;
  }

  show(code: string, ways: WayOut[] = [], message = ''): void {
    const { title, text } = messageFor(code, message);
    this.#code = code;
    this.#isPayers = false;
    this.#box.dataset.code = code;
    say(byId('notice-title'), title);
    say(byId('notice-text'), text);
    this.#actions.replaceChildren(
      ...ways.map(({ label, act }) => {
        const button = made('button', label, { type: 'button', class: 'button button-small' });
        button.addEventListener('click', act);
        return button;
      }),
    );
    this.#box.hidden = false;
  }

  /** Show an error of the payer. */
  showPayers(code: string, ways: WayOut[], message = ''): void {
    this.show(code, ways, message);
    this.#isPayers = true;
  }

  /** Say what went wrong with something that was asked for, with a way to ask for it again. */
  failed(error: unknown, again: () => void): void {
    const ways = [{ label: 'Try again', act: again }];
    if (error instanceof PaymentError) {
      this.showPayers(error.code === 'refused' ? 'no-refund' : error.code, ways, error.message);
    } else {
      this.showPayers('failed', ways, error instanceof Error ? error.message : String(error));
    }
  }

  /** Take it away; with codes, only if it says one of these. */
  clear(...codes: string[]): void {
    if (codes.length > 0 && !codes.includes(this.#code)) return;
    this.#code = '';
    this.#isPayers = false;
    this.#box.hidden = true;
  }
}

/** The panel over the picture while playing is stopped, with the button to go on. */
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
