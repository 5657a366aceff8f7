import { PaymentError } from '../../../lib/x402/errors';
import { byId, elementOf, made, say } from '../../dom';
import { price } from '../../words';
import { CapSlider } from './cap_sliders';
import { messageFor } from '../messages/told';
import type { WalletChoice } from './wallets';

/** What is asked before the first cent. */
export interface PriceQuestion {
  heading: string;
  /** What was free, if anything was. */
  free: string;
  figure: string;
  unit: string;
  text: string;
  perMinute: bigint;
  cap: bigint;
  deposit: bigint;
}

/** What was answered. */
export interface ConsentAnswer {
  choice: WalletChoice;
  cap: bigint;
}

/** Does what it takes to start paying; what it gives is called if the answer is still yes. */
export type Begin = (answer: ConsentAnswer) => Promise<() => void>;

/** Asks before anything is charged; closing it in any way means no. */
export class ConsentDialog {
  readonly #dialog = elementOf(HTMLDialogElement, 'ask');
  readonly #wallets = byId('ask-wallets');
  readonly #pay = elementOf(HTMLButtonElement, 'ask-pay');
  readonly #problem = byId('ask-problem');
  readonly #deposit = byId('ask-deposit');
  readonly #cap = new CapSlider('ask-cap', 'ask-cap-text', 'ask-time', () => undefined);
  #choices: WalletChoice[] = [];
  #asking = false;

  get open(): boolean {
    return this.#asking;
  }

  /** Whether the answer was yes; `begin` has then done its part. */
  async ask(
    asked: PriceQuestion,
    wallets: () => Promise<WalletChoice[]>,
    begin: Begin,
  ): Promise<boolean> {
    if (this.#asking) return false;
    this.#asking = true;
    try {
      this.#tell(asked);
      this.#offer(await wallets()); // before it opens, so that nothing in it moves
      return await this.#answered(begin);
    } finally {
      this.#asking = false;
    }
  }

  async #answered(begin: Begin): Promise<boolean> {
    this.#dialog.returnValue = 'no';
    this.#dialog.showModal();
    this.#pay.focus();
    return new Promise((resolve) => {
      const pay = (): void => void this.#begin(begin);
      this.#pay.addEventListener('click', pay);
      this.#dialog.addEventListener(
        'close',
        () => {
          this.#pay.removeEventListener('click', pay);
          resolve(this.#dialog.returnValue === 'yes');
        },
        { once: true },
      );
    });
  }

  #tell(asked: PriceQuestion): void {
    say(byId('ask-heading'), asked.heading);
    const free = byId('ask-free');
    say(free, asked.free);
    free.hidden = !asked.free;
    say(byId('ask-figure'), asked.figure);
    say(byId('ask-unit'), asked.unit);
    say(byId('ask-text'), asked.text);
    this.#cap.rate(asked.perMinute);
    this.#cap.cap = asked.cap;
    say(
      this.#deposit,
      asked.deposit > 0n
        ? `One signature deposits ${price(asked.deposit)} into a payment channel with this ` +
            'server. It can take only what you play; “Stop and refund” gives you back the rest.'
        : '',
    );
    this.#problem.hidden = true;
    this.#busy(false);
  }

  #offer(choices: WalletChoice[]): void {
    this.#choices = choices;
    this.#wallets.replaceChildren(
      ...choices.map(({ id, name, about }, index) => {
        const label = made('label', '', { class: 'wallet' });
        const radio = made('input', '', { type: 'radio', name: 'wallet', value: id });
        radio.checked = index === 0;
        label.append(
          radio,
          made('span', name, { class: 'wallet-name' }),
          made('span', about, { class: 'wallet-about' }),
        );
        return label;
      }),
    );
    this.#pay.disabled = choices.length === 0;
    if (choices.length === 0) this.#say('no-wallet');
  }

  async #begin(begin: Begin): Promise<void> {
    const checked = this.#wallets.querySelector<HTMLInputElement>('input:checked');
    const choice = this.#choices.find(({ id }) => id === checked?.value);
    if (!choice) return;
    this.#problem.hidden = true;
    this.#busy(true);
    try {
      const agree = await begin({ choice, cap: this.#cap.cap });
      if (!this.#dialog.open) return; // it was no after all
      agree();
      this.#dialog.close('yes');
    } catch (error) {
      if (error instanceof PaymentError) this.#say(error.code, error.message);
      else this.#say('setup');
    } finally {
      this.#busy(false);
    }
  }

  #say(code: string, message = ''): void {
    const { title, text } = messageFor(code, message);
    say(this.#problem, `${title} ${text}`);
    this.#problem.hidden = false;
  }

  #busy(busy: boolean): void {
    this.#pay.disabled = busy;
    this.#pay.setAttribute('aria-busy', String(busy));
  }
}
