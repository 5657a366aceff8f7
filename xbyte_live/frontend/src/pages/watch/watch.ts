import { PaymentError } from '../../lib/x402/errors';
import { most } from '../../lib/money';
import { Payer } from '../../lib/payer/payer';
import type { PayerEvents } from '../../lib/payer/types';
import { byId, elementOf } from '../dom';
import { Consent } from './payment/consent';
import { mayPlay } from './player/autoplay';
import type { Item } from './goods';
import { Overlay } from './messages/halt';
import { SpendLimits } from './payment/spend_limits';
import { Meter } from './payment/meter';
import { Notice } from './messages/notice';
import { Listing } from './payment/offer';
import { OnAir } from './on_air';
import { Playback } from './player/playback';
import { Player } from './player/player';
import { WalletPanel } from './payment/wallet_panel';
import { Sale } from './payment/sale';
import { Server } from './server';
import { DEPOSITS, Troubleshooter } from './messages/trouble';

const NOTHING = { total: 0n };

/**
 * The watch page: builds its parts, and has each hear what is for it.
 *
 * A part calls those that are made before it; what the payer, the player and the viewer do is
 * heard here alone.
 */
export class Watch {
  readonly #start = elementOf(HTMLButtonElement, 'start');
  readonly #halt = new Overlay();
  readonly #payer: Payer;
  readonly #meter: Meter;
  readonly #purse: WalletPanel;
  readonly #goods: Item;
  readonly #onAir: OnAir | undefined;
  readonly #limits: SpendLimits;
  readonly #agreement: Consent;
  readonly #trouble: Troubleshooter;

  private constructor(
    server: Server,
    offer: Listing,
    private readonly notice: Notice,
  ) {
    this.#payer = new Payer({
      budget: NOTHING,
      // What the question said: a cap below it would have the wallet asked twice.
      deposit: (suggested) => most(suggested, offer.deposit),
      assets: offer.assets,
      rpcUrls: offer.rpcUrls,
    });
    const payer = this.#payer;
    this.#meter = new Meter(server.slug, payer, () => this.#capsMoved());
    this.#meter.cap.cap = offer.usualCap;
    this.#meter.expected = offer.perMinute;
    this.#purse = new WalletPanel(payer, offer);
    this.#goods =
      server.kind === 'object'
        ? new Sale(server, offer, payer, notice, this.#start)
        : this.#playback(server, offer);
    const [meter, purse, goods, halt] = [this.#meter, this.#purse, this.#goods, this.#halt];
    if (server.kind === 'stream') this.#onAir = new OnAir(server, goods, notice, this.#start);
    this.#limits = new SpendLimits(payer, offer, meter, goods, notice, halt);
    const limits = this.#limits;
    this.#agreement = new Consent(offer, meter, limits, purse, goods, notice, halt);
    const agreement = this.#agreement;
    this.#trouble = new Troubleshooter(server, offer, payer, goods, purse, limits, agreement, notice);
    this.#hearPayer();
    this.#hearViewer();
  }

  /** Read what is to be read, and let the reader begin. */
  static async open(): Promise<void> {
    const { slug = '', kind = '' } = byId('watch').dataset;
    const notice = new Notice();
    const server = new Server(slug, kind);
    try {
      const [offer, mayBegin] = await Promise.all([
        Listing.of(server),
        kind !== 'object' && mayPlay(elementOf(HTMLVideoElement, 'media')),
      ]);
      await new Watch(server, offer, notice).#offer(mayBegin);
    } catch {
      notice.show('setup', [{ label: 'Try again', act: () => location.reload() }]);
    }
  }

  /** Let it be begun; as if it had been clicked, where it may and there is something to begin. */
  async #offer(mayBegin: boolean): Promise<void> {
    void this.#purse.showRest();
    this.#onAir?.follow();
    if (!(await this.#onAir?.look())) this.#start.disabled = false;
    if (mayBegin && !this.#start.disabled) this.#begin();
  }

  // --- what the player tells

  #playback(server: Server, offer: Listing): Playback {
    const player = new Player(server, offer.pricing, this.#payer, {
      dry: () => {
        this.#trouble.wonder(playback.paused);
        this.#agreement.dry();
        this.#limits.dry();
      },
      playing: () => {
        this.#halt.clear();
        this.#trouble.over();
      },
      ended: () => {
        byId('spinner').hidden = true;
        void this.#onAir?.end();
      },
      refused: () => {
        if (!this.#agreement.stands) playback.unbegin();
      },
      failed: (code) => this.#trouble.ofPlayer(code),
      rate: (rate) => (this.#meter.expected = rate),
    });
    const playback = new Playback(player, offer, this.#start);
    return playback;
  }

  // --- what the payer tells

  #hearPayer(): void {
    const payer = this.#payer;
    payer.addEventListener('cap', ({ detail }) => this.#capReached(detail));
    payer.addEventListener('error', ({ detail }) => {
      if (!this.#purse.refunding) this.#trouble.ofPayer(detail); // else the refund says so itself
    });
    payer.addEventListener('spend', () => {
      this.notice.clear('unreachable', 'pending', 'facilitator');
      void this.#purse.showChannel();
    });
    payer.addEventListener('deposit', ({ detail }) => {
      this.notice.clear(...DEPOSITS); // what kept it from that is over
      this.#purse.depositing(detail);
    });
    payer.addEventListener('resume', ({ detail }) => {
      if (detail.waited === 'wallet' || detail.waited === 'topup') this.notice.clear(...DEPOSITS);
      if (payer.waiting !== undefined) return;
      this.#limits.lift();
      this.notice.clear('topup-needed', 'cap-refused');
    });
  }

  #capReached(reached: PayerEvents['cap']): void {
    if (!this.#agreement.stands) {
      this.#agreement.due();
      return;
    }
    const stop = { label: 'Stop and refund', act: () => void this.#refund() };
    if (reached.limit === 'deposit' && reached.resumesAt !== undefined) {
      this.notice.show('cap-refused', [stop]);
    } else if (reached.limit === 'deposit') {
      const ask = { label: 'See what it wants', act: () => void this.#agreement.askAnew() };
      this.notice.show('cap-deposit', [ask, stop]);
    } else {
      this.#limits.reach(reached, [stop]);
    }
  }

  // --- what the viewer does

  #hearViewer(): void {
    this.#start.addEventListener('click', () => this.#begin());
    this.#purse.topUpButton.addEventListener('click', () => void this.#topUp());
    this.#purse.refundButton.addEventListener('click', () => void this.#refund());
    byId('halt-action').addEventListener('click', () => this.#goOn());
  }

  #begin(): void {
    this.#agreement.reconsider();
    this.#goods.begin();
  }

  #capsMoved(): void {
    if (this.#agreement.stands) this.#limits.apply();
  }

  /** The way on that lies over the picture. */
  #goOn(): void {
    if (this.#limits.reached) {
      this.#limits.raise();
    } else {
      this.#agreement.reconsider();
      this.#halt.clear();
      void this.#agreement.ask();
    }
  }

  async #topUp(): Promise<void> {
    if (!this.#agreement.stands) {
      this.#agreement.reconsider();
      await this.#agreement.ask();
      return;
    }
    try {
      await this.#purse.topUp();
    } catch (error) {
      if (error instanceof PaymentError) this.#trouble.ofPayer(error);
      else this.notice.failed(error, () => void this.#topUp());
    }
  }

  async #refund(): Promise<void> {
    this.#goods.pause();
    this.notice.clear();
    this.#agreement.stop();
    try {
      await this.#purse.refund();
      this.#agreement.returned();
    } catch (error) {
      this.notice.failed(error, () => void this.#refund());
    }
  }
}
