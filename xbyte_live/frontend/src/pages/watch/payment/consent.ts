import { formatAmount } from '../../../lib/money';
import type { Wallet } from '../../../lib/wallets/wallet';
import type { Item } from '../goods';
import type { Overlay } from '../messages/halt';
import type { SpendLimits } from './spend_limits';
import type { Meter } from './meter';
import type { Notice } from '../messages/notice';
import type { Asking, Listing } from './offer';
import type { WalletPanel } from './wallet_panel';
import { ConsentDialog } from './question';
import { choices, ready } from './wallets';

/** Whether it was agreed to pay: nothing is before the question was answered with yes. */
export class Consent {
  readonly #question = new ConsentDialog();
  #stands = false;
  #isDue = false;
  #declined = false;
  #price: string | undefined; // dollars per MB

  constructor(
    private readonly offer: Listing,
    private readonly meter: Meter,
    private readonly limits: SpendLimits,
    private readonly purse: WalletPanel,
    private readonly goods: Item,
    private readonly notice: Notice,
    private readonly halt: Overlay,
  ) {}

  get stands(): boolean {
    return this.#stands;
  }

  /** A no of before does not count any more. */
  reconsider(): void {
    this.#declined = false;
  }

  /** Something costs money and nobody has agreed to pay yet: ask when what is free is over. */
  due(): void {
    this.#isDue = true;
    if (this.goods.ahead < 1) void this.ask();
  }

  /** Nothing is left to play. */
  dry(): void {
    if (!this.#isDue || this.#stands) return;
    if (this.#declined) this.#sayNo();
    else void this.ask();
  }

  /** Ask, unless that was answered already. */
  async ask(): Promise<void> {
    if (this.#stands || this.#declined || this.#question.open) return;
    const { network } = this.offer;
    if (!network) {
      this.notice.show('no-way-to-pay');
      return;
    }
    const yes = await this.#question.ask(
      this.offer.question(this.meter.cap.cap, this.#price),
      async () => choices(network),
      async ({ choice, cap }) => {
        const wallet = await choice.open();
        await ready(wallet, network, this.offer.deposit);
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
  async askAnew(asking?: Asking): Promise<void> {
    try {
      await this.offer.renew(asking);
    } catch {
      this.notice.show('setup', [{ label: 'Try again', act: () => void this.askAnew(asking) }]);
      return;
    }
    this.meter.expected = this.offer.perMinute;
    this.limits.makeRoom();
    this.goods.reprice(this.offer.pricing);
    this.askAgain();
  }

  /** Nothing is paid any more, until it is agreed to anew. */
  stop(): void {
    if (this.#stands) this.#declined = true;
    this.#withdraw();
  }

  /** What was left is back. */
  returned(): void {
    this.notice.clear();
    if (!this.#declined) return;
    this.halt.show('Stopped. What you did not use is back in your wallet.', 'Go on watching');
  }

  #agree(wallet: Wallet, name: string, cap: bigint): void {
    this.#stands = true;
    this.#isDue = false;
    this.#price = formatAmount(this.offer.perMb);
    this.limits.begin(cap);
    this.purse.open(wallet, name);
    this.halt.clear();
    this.notice.clear();
    this.goods.goOn();
  }

  #refuse(): void {
    this.#declined = true;
    this.#withdraw();
    this.goods.pause();
    this.#sayNo();
  }

  /** What was agreed to holds no longer: not a unit is spent on the strength of it. */
  #withdraw(): void {
    if (this.#stands) this.#isDue = true; // what it was paying for is not free now
    this.#stands = false;
    this.limits.stop();
  }

  #sayNo(): void {
    const charged = this.limits.untouched ? 'Nothing was charged.' : 'Nothing more is charged.';
    this.halt.show(`${charged} What follows costs money.`, 'See the price');
  }
}
