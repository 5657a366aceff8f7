import { formatAmount } from '../../../lib/money';
import type { Wallet } from '../../../lib/wallets/wallet';
import type { Item } from '../item';
import type { Notice, Overlay } from '../messages/notice';
import type { SpendLimits } from './spend_limits';
import type { Meter } from './meter';
import type { Listing, PriceQuestion } from './listing';
import { choices, ready, type WalletChoice, type WalletPanel } from './wallet_panel';
import { PaymentError, type Asked } from '../../../lib/x402/errors';
import { byId, elementOf, made, say } from '../../dom';
import { price } from '../../words';
import { CapSlider } from './cap_sliders';
import { messageFor } from '../messages/texts';

/** The viewer's consent to pay: nothing is paid before they have said yes. */
export class Consent {
  readonly #question = new ConsentDialog();
  #stands = false;
  #isDue = false;
  #declined = false;
  #price: string | undefined; // dollars per MB

  constructor(
    private readonly listing: Listing,
    private readonly meter: Meter,
    private readonly limits: SpendLimits,
    private readonly panel: WalletPanel,
    private readonly item: Item,
    private readonly notice: Notice,
    private readonly overlay: Overlay,
  ) {}

  get stands(): boolean {
    return this.#stands;
  }

  /** Forget an earlier no. */
  reconsider(): void {
    this.#declined = false;
  }

  /** A purchase needs consent: ask when the free part is over. */
  due(): void {
    this.#isDue = true;
    if (this.item.ahead < 1) void this.ask();
  }

  /** Nothing is left to play. */
  bufferEmpty(): void {
    if (!this.#isDue || this.#stands) return;
    if (this.#declined) this.#sayNo();
    else void this.ask();
  }

  /** Ask, unless that was answered already. */
  async ask(): Promise<void> {
    if (this.#stands || this.#declined || this.#question.open) return;
    const { network } = this.listing;
    if (!network) {
      this.notice.show('no-way-to-pay');
      return;
    }
    const yes = await this.#question.ask(
      this.listing.question(this.meter.cap.cap, this.#price),
      async () => choices(network),
      async ({ choice, cap }) => {
        const wallet = await choice.open();
        await ready(wallet, network, this.listing.deposit);
        return () => this.#agree(wallet, choice.name, cap);
      },
    );
    if (!yes) this.#refuse();
  }

  /** Ask again, whatever was answered: for another wallet. */
  askAgain(): void {
    this.#withdraw();
    this.#declined = false;
    this.notice.clear();
    void this.ask();
  }

  /** Ask again, at the price of now or of what was asked, whichever is higher. */
  async askAnew(asking?: Asked): Promise<void> {
    try {
      await this.listing.renew(asking);
    } catch {
      this.notice.show('setup', [{ label: 'Try again', act: () => void this.askAnew(asking) }]);
      return;
    }
    this.meter.expected = this.listing.perMinute;
    this.limits.makeRoom();
    this.item.reprice(this.listing.pricing);
    this.askAgain();
  }

  /** Nothing is paid any more, until it is agreed to anew. */
  stop(): void {
    if (this.#stands) this.#declined = true;
    this.#withdraw();
  }

  /** Show that the refund has come back. */
  returned(): void {
    this.notice.clear();
    if (!this.#declined) return;
    this.overlay.show('Stopped. What you did not use is back in your wallet.', 'Go on watching');
  }

  #agree(wallet: Wallet, name: string, cap: bigint): void {
    this.#stands = true;
    this.#isDue = false;
    this.#price = formatAmount(this.listing.perMb);
    this.limits.begin(cap);
    this.panel.open(wallet, name);
    this.overlay.clear();
    this.notice.clear();
    this.item.goOn();
  }

  #refuse(): void {
    this.#declined = true;
    this.#withdraw();
    this.item.pause();
    this.#sayNo();
  }

  /** Withdraw the consent: not a unit is spent any more. */
  #withdraw(): void {
    if (this.#stands) this.#isDue = true; // what it was paying for is not free now
    this.#stands = false;
    this.limits.stop();
  }

  #sayNo(): void {
    const charged = this.limits.untouched ? 'Nothing was charged.' : 'Nothing more is charged.';
    this.overlay.show(`${charged} What follows costs money.`, 'See the price');
  }
}

/** A yes: the wallet that was chosen, and the cap. */
interface ConsentAnswer {
  choice: WalletChoice;
  cap: bigint;
}

/** Prepares to pay; the function it returns is called if the answer is still yes. */
type Begin = (answer: ConsentAnswer) => Promise<() => void>;

/** The dialog that asks before the first charge; closing it in any way means no. */
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
