import type { Payer } from '../../../lib/payer/payer';
import type { PayerEvents } from '../../../lib/payer/types';
import type { Wallet } from '../../../lib/wallets/wallet';
import { byId, elementOf, say } from '../../dom';
import { cents, exact, price, short } from '../../words';
import type { Listing } from './offer';
import { balanceOf, ready } from './wallets';

/** What a viewer owns, puts into channels and gets back out of them, in two lines with buttons. */
export class WalletPanel {
  readonly topUpButton = elementOf(HTMLButtonElement, 'topup');
  readonly refundButton = elementOf(HTMLButtonElement, 'close');
  readonly #walletLine = byId('wallet-line');
  readonly #channelLine = byId('channel-line');
  #name = '';
  #refunding = false;

  constructor(
    private readonly payer: Payer,
    private readonly offer: Listing,
  ) {}

  /** A refund is under way. */
  get refunding(): boolean {
    return this.#refunding;
  }

  /** Pay from this wallet from now on. */
  open(wallet: Wallet, name: string): void {
    this.#name = name;
    this.payer.wallet = wallet;
    this.payer.resume();
    this.topUpButton.disabled = this.refundButton.disabled = false;
    void this.show();
  }

  async show(): Promise<void> {
    const { wallet } = this.payer;
    const { network } = this.offer;
    if (!wallet || !network) return;
    const address = await wallet.address();
    const holds = await balanceOf(wallet, network).then(
      (balance) => `, holds ${cents(balance)}${network.faucet_url ? ' of test money' : ''}`,
      () => '',
    );
    say(this.#walletLine, `${this.#name} ${short(address)}${holds}`);
    this.#walletLine.title = address;
    await this.showChannel();
  }

  async showChannel(): Promise<void> {
    const address = (await this.payer.wallet?.address())?.toLowerCase();
    const mine = (await this.payer.channels()).filter(
      ({ payer, network }) =>
        payer.toLowerCase() === address && network === this.offer.network?.network,
    );
    const left = mine.reduce((sum, { refundable }) => sum + refundable, 0n);
    if (mine.length > 0) this.#say(`In your channel: ${exact(left)} left, yours until you play it.`);
  }

  /** What an earlier visit left in channels can be had back before anything is agreed to. */
  async showRest(): Promise<void> {
    const rest = await this.#rest().catch(() => 0n);
    if (rest === 0n || this.payer.wallet) return;
    this.refundButton.disabled = false;
    this.#say(`In your channel: ${exact(rest)} left from before, yours until you play it.`);
  }

  /** Tell of a deposit on its way. */
  depositing({ amount, state }: PayerEvents['deposit']): void {
    const telling = {
      signing: `Your wallet is asked to sign a deposit of ${price(amount)} …`,
      sent: `Depositing ${price(amount)}: the chain is being told …`,
      done: `Deposited ${price(amount)}.`,
    };
    this.#say(telling[state]);
    if (state === 'done') void this.show();
  }

  /** A deposit did not come about: tell no more of it. */
  undo(): void {
    this.#say('\u00a0');
    void this.showChannel();
  }

  /** Have the wallet deposit with the next purchase; throws what keeps it from that. */
  async topUp(): Promise<void> {
    const { wallet } = this.payer;
    const { network, deposit } = this.offer;
    if (!wallet || !network) return;
    this.topUpButton.setAttribute('aria-busy', 'true');
    try {
      await ready(wallet, network, deposit);
      this.payer.topUp();
      this.#say('The next segment brings a new deposit along.');
    } finally {
      this.topUpButton.removeAttribute('aria-busy');
    }
  }

  /** Have all given back that was not played, whichever wallet's; throws where nothing comes. */
  async refund(): Promise<void> {
    this.refundButton.setAttribute('aria-busy', 'true');
    this.#refunding = true;
    try {
      const back = await this.#closeAll();
      await this.show();
      const rest = await this.#rest();
      const left = rest > 0n ? ` ${exact(rest)} did not yet: ask again.` : '';
      this.#say(back > 0n ? `${exact(back)} went back to your wallet.${left}` : 'Nothing was left.');
      this.refundButton.disabled = rest === 0n;
    } finally {
      this.#refunding = false;
      this.refundButton.removeAttribute('aria-busy');
    }
  }

  /** What came back of all channels; throws if of none, and there was something in one. */
  async #closeAll(): Promise<bigint> {
    const withRest = (await this.payer.channels()).filter(({ refundable }) => refundable > 0n);
    const channelIds = withRest.map(({ channelId }) => channelId);
    const refunds = await this.payer.close({ channelIds });
    return refunds.reduce((total, { amount }) => total + amount, 0n);
  }

  async #rest(): Promise<bigint> {
    const channels = await this.payer.channels();
    return channels.reduce((sum, { refundable }) => sum + refundable, 0n);
  }

  #say(text: string): void {
    say(this.#channelLine, text);
  }
}
