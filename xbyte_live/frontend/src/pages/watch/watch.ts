import { PaymentError } from '../../lib/x402/errors';
import { most } from '../../lib/money';
import { Payer } from '../../lib/payer/payer';
import type { PayerEvents } from '../../lib/payer/types';
import { byId, elementOf } from '../dom';
import { Consent } from './payment/consent';
import { mayPlay } from './player/autoplay';
import type { Item } from './item';
import { Notice, Overlay } from './messages/notice';
import { SpendLimits } from './payment/spend_limits';
import { Meter } from './payment/meter';
import { Listing } from './payment/listing';
import { OnAir } from './on_air';
import { Playback } from './player/playback';
import { Player } from './player/player';
import { WalletPanel } from './payment/wallet_panel';
import { Sale } from './payment/sale';
import { Server } from './server';
import { DEPOSITS, Troubleshooter } from './messages/troubleshooter';

const NOTHING = { total: 0n };

/**
 * The watch page: builds its parts, and passes the events of payer, player and viewer to them.
 *
 * A part calls those that are made before it; only this class listens to the events.
 */
export class Watch {
  readonly #start = elementOf(HTMLButtonElement, 'start');
  readonly #overlay = new Overlay();
  readonly #payer: Payer;
  readonly #meter: Meter;
  readonly #panel: WalletPanel;
  readonly #item: Item;
  readonly #onAir: OnAir | undefined;
  readonly #limits: SpendLimits;
  readonly #consent: Consent;
  readonly #troubleshooter: Troubleshooter;

  private constructor(
    server: Server,
    listing: Listing,
    private readonly notice: Notice,
  ) {
    this.#payer = new Payer({
      budget: NOTHING,
      // What the question said: a cap below it would have the wallet asked twice.
      deposit: (suggested) => most(suggested, listing.deposit),
      assets: listing.assets,
      rpcUrls: listing.rpcUrls,
    });
    const payer = this.#payer;
    this.#meter = new Meter(server.slug, payer, () => this.#capsMoved());
    this.#meter.cap.cap = listing.usualCap;
    this.#meter.expected = listing.perMinute;
    this.#panel = new WalletPanel(payer, listing);
    this.#item =
      server.kind === 'object'
        ? new Sale(server, listing, payer, notice, this.#start)
        : this.#playback(server, listing);
    const [meter, panel, item, overlay] = [this.#meter, this.#panel, this.#item, this.#overlay];
    if (server.kind === 'stream') this.#onAir = new OnAir(server, item, notice, this.#start);
    this.#limits = new SpendLimits(payer, listing, meter, item, notice, overlay);
    const limits = this.#limits;
    this.#consent = new Consent(listing, meter, limits, panel, item, notice, overlay);
    const consent = this.#consent;
    this.#troubleshooter = new Troubleshooter(server, listing, payer, item, panel, limits, consent, notice);
    this.#listenToPayer();
    this.#listenToViewer();
  }

  /** Load the price list and the networks, and offer to begin. */
  static async open(): Promise<void> {
    const { slug = '', kind = '' } = byId('watch').dataset;
    const notice = new Notice();
    const server = new Server(slug, kind);
    try {
      const [listing, mayBegin] = await Promise.all([
        Listing.of(server),
        kind !== 'object' && mayPlay(elementOf(HTMLVideoElement, 'media')),
      ]);
      await new Watch(server, listing, notice).#offer(mayBegin);
    } catch {
      notice.show('setup', [{ label: 'Try again', act: () => location.reload() }]);
    }
  }

  /** Let it be begun; as if it had been clicked, where it may and there is something to begin. */
  async #offer(mayBegin: boolean): Promise<void> {
    void this.#panel.showRest();
    this.#onAir?.follow();
    if (!(await this.#onAir?.look())) this.#start.disabled = false;
    if (mayBegin && !this.#start.disabled) this.#begin();
  }

  // --- events of the player

  #playback(server: Server, listing: Listing): Playback {
    const player = new Player(server, listing.pricing, this.#payer, {
      bufferEmpty: () => {
        this.#troubleshooter.checkSilence(playback.paused);
        this.#consent.bufferEmpty();
        this.#limits.bufferEmpty();
      },
      playing: () => {
        this.#overlay.clear();
        this.#troubleshooter.clear();
      },
      ended: () => {
        byId('spinner').hidden = true;
        void this.#onAir?.end();
      },
      refused: () => {
        if (!this.#consent.stands) playback.unbegin();
      },
      failed: (code) => this.#troubleshooter.playerFailed(code),
      rate: (rate) => (this.#meter.expected = rate),
    });
    const playback = new Playback(player, listing, this.#start);
    return playback;
  }

  // --- events of the payer

  #listenToPayer(): void {
    const payer = this.#payer;
    payer.addEventListener('cap', ({ detail }) => this.#capReached(detail));
    payer.addEventListener('error', ({ detail }) => {
      if (!this.#panel.refunding) this.#troubleshooter.payerFailed(detail); // else the refund says so itself
    });
    payer.addEventListener('spend', () => {
      this.notice.clear('unreachable', 'pending', 'facilitator');
      void this.#panel.showChannel();
    });
    payer.addEventListener('deposit', ({ detail }) => {
      this.notice.clear(...DEPOSITS); // what kept it from that is over
      this.#panel.depositing(detail);
    });
    payer.addEventListener('resume', ({ detail }) => {
      if (detail.waited === 'wallet' || detail.waited === 'topup') this.notice.clear(...DEPOSITS);
      if (payer.waiting !== undefined) return;
      this.#limits.lift();
      this.notice.clear('topup-needed', 'cap-refused');
    });
  }

  #capReached(reached: PayerEvents['cap']): void {
    if (!this.#consent.stands) {
      this.#consent.due();
      return;
    }
    const stop = { label: 'Stop and refund', act: () => void this.#refund() };
    if (reached.limit === 'deposit' && reached.resumesAt !== undefined) {
      this.notice.show('cap-refused', [stop]);
    } else if (reached.limit === 'deposit') {
      const ask = { label: 'See what it wants', act: () => void this.#consent.askAnew() };
      this.notice.show('cap-deposit', [ask, stop]);
    } else {
      this.#limits.reach(reached, [stop]);
    }
  }

  // --- actions of the viewer

  #listenToViewer(): void {
    this.#start.addEventListener('click', () => this.#begin());
    this.#panel.topUpButton.addEventListener('click', () => void this.#topUp());
    this.#panel.refundButton.addEventListener('click', () => void this.#refund());
    byId('halt-action').addEventListener('click', () => this.#goOn());
  }

  #begin(): void {
    this.#consent.reconsider();
    this.#item.begin();
  }

  #capsMoved(): void {
    if (this.#consent.stands) this.#limits.apply();
  }

  /** Go on by the button over the picture. */
  #goOn(): void {
    if (this.#limits.reached) {
      this.#limits.raise();
    } else {
      this.#consent.reconsider();
      this.#overlay.clear();
      void this.#consent.ask();
    }
  }

  async #topUp(): Promise<void> {
    if (!this.#consent.stands) {
      this.#consent.reconsider();
      await this.#consent.ask();
      return;
    }
    try {
      await this.#panel.topUp();
    } catch (error) {
      if (error instanceof PaymentError) this.#troubleshooter.payerFailed(error);
      else this.notice.failed(error, () => void this.#topUp());
    }
  }

  async #refund(): Promise<void> {
    this.#item.pause();
    this.notice.clear();
    this.#consent.stop();
    try {
      await this.#panel.refund();
      this.#consent.returned();
    } catch (error) {
      this.notice.failed(error, () => void this.#refund());
    }
  }
}
