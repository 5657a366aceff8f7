import { KNOWN_ASSETS } from '../../lib/assets';
import { PaymentError, type PaymentErrorCode } from '../../lib/errors';
import { most, parseAmount } from '../../lib/money';
import { Payer } from '../../lib/payer';
import type { Asset, Budget, PayerEvents, Wallet } from '../../lib/types';
import { byId, elementOf, say } from '../dom';
import { cents, exact, inSeconds, price, round, short, size } from '../words';
import { mayPlay } from './autoplay';
import { minuteStepAfter, stepAfter, usualCap } from './caps';
import { Download, Replaced } from './download';
import { Meter } from './meter';
import { Player } from './player';
import { balanceOf, choices, fill, ready } from './purse';
import { Question, type Asked } from './question';
import { save } from './receipts';
import { depositOf, perMinute, Server, type Network, type Pricing } from './server';
import { isForGood, Notice, remedyOf, type WayOut } from './trouble';

const LOOK_EVERY = 4_000; // milliseconds
const NOTHING = { total: 0n };
const PATIENCE = 5_000; // milliseconds without anything to play until one asks why

/** The watch page: nothing is paid before its question was answered with yes. */
export class Watch {
  readonly #notice: Notice;
  readonly #question = new Question();
  readonly #payer: Payer;
  readonly #meter: Meter;
  readonly #player: Player | undefined;
  readonly #network: Network | undefined;
  readonly #start = elementOf(HTMLButtonElement, 'start');
  readonly #topup = elementOf(HTMLButtonElement, 'topup');
  readonly #close = elementOf(HTMLButtonElement, 'close');
  readonly #download: Download;
  #file: Blob | undefined;
  #buying = false;
  #closing = false;
  #payerSaid = ''; // the code of the notice, where it is the payer's
  #agreedPrice: string | undefined; // dollars per MB
  #agreed = false;
  #wanted = false; // the question is due
  #declined = false;
  #capped: PayerEvents['cap'] | undefined;
  #walletName = '';
  #drySince = Infinity; // milliseconds

  private constructor(
    private readonly server: Server,
    private pricing: Pricing,
    networks: Network[],
    notice: Notice,
  ) {
    this.#notice = notice;
    this.#network = networks.find(({ network }) =>
      pricing.accepts.some((terms) => terms.scheme === 'batch-settlement' && terms.network === network),
    );
    const rpcUrls = networks.flatMap(({ network, rpc_url }) => (rpc_url ? [[network, rpc_url]] : []));
    this.#payer = new Payer({
      budget: NOTHING,
      // What the question said: a cap below it would have the wallet asked twice.
      deposit: (suggested) => most(suggested, depositOf(this.pricing)),
      assets: assetsOf(pricing, networks),
      rpcUrls: Object.fromEntries(rpcUrls) as Record<string, string>,
    });
    this.#meter = new Meter(server.slug, this.#payer, () => this.#newCaps());
    this.#meter.cap.cap = this.#usualCap;
    this.#download = new Download(
      async (url, request) => this.#payer.fetchPaid(url, request),
      (loaded, whole) => say(byId('start-text'), `${Math.floor((loaded / whole) * 100)} %`),
    );
    this.#meter.expected = perMinute(pricing);
    if (server.kind !== 'object') {
      this.#player = new Player(server, pricing, this.#payer, {
        dry: () => this.#dry(),
        playing: () => this.#playing(),
        ended: () => void this.#ended(),
        refused: () => this.#unbegin(),
        failed: (code) => this.#failed(code),
        rate: (rate) => (this.#meter.expected = rate),
      });
    }
    this.#listen();
  }

  /** Read what is to be read, and let the reader begin. */
  static async open(): Promise<void> {
    const { slug = '', kind = '' } = byId('watch').dataset;
    const notice = new Notice();
    const server = new Server(slug, kind);
    try {
      const [pricing, networks, mayBegin] = await Promise.all([
        server.pricing(),
        server.networks(),
        kind !== 'object' && mayPlay(elementOf(HTMLVideoElement, 'media')),
      ]);
      await new Watch(server, pricing, networks, notice).#offer(mayBegin);
    } catch {
      notice.show('setup', [{ label: 'Try again', act: () => location.reload() }]);
    }
  }

  /** About what a minute costs, or for a file the whole. */
  get #price(): bigint {
    const { pricing } = this;
    return pricing.kind === 'object' ? parseAmount(pricing.price_whole ?? '0') : perMinute(pricing);
  }

  /** Half an hour of it, or a file as a whole. */
  get #usualCap(): bigint {
    return this.pricing.kind === 'object' ? this.#price : usualCap(this.#price);
  }

  get #isFree(): boolean {
    return parseAmount(this.pricing.price_per_mb) === 0n;
  }

  /** Let it be begun; as if it had been clicked, where it may and there is something to begin. */
  async #offer(mayBegin: boolean): Promise<void> {
    void this.#showRest();
    const isLive = this.server.kind === 'stream';
    if (isLive) setInterval(() => void this.#look(), LOOK_EVERY);
    if (!isLive || !(await this.#look())) this.#start.disabled = false;
    if (mayBegin && !this.#start.disabled) this.#begin();
  }

  #listen(): void {
    const payer = this.#payer;
    this.#start.addEventListener('click', () => this.#begin());
    this.#topup.addEventListener('click', () => void this.#topUp());
    this.#close.addEventListener('click', () => void this.#refund());
    byId('halt-action').addEventListener('click', () => this.#goOn());
    payer.addEventListener('cap', ({ detail }) => this.#cap(detail));
    payer.addEventListener('error', ({ detail }) => {
      if (!this.#closing) this.#trouble(detail); // else it is the refund's, which says so itself
    });
    payer.addEventListener('spend', () => this.#spent());
    payer.addEventListener('deposit', ({ detail }) => this.#deposit(detail));
    payer.addEventListener('resume', () => this.#resumed());
  }

  #begin(): void {
    this.#declined = false;
    if (this.#player) {
      byId('stage').focus({ preventScroll: true }); // its keys are at hand
      this.#start.hidden = true;
      byId('controls').hidden = false;
      byId('spinner').hidden = false;
      byId('free-badge').hidden = this.#isFree || !this.pricing.preview_seconds;
      this.#player.start();
    } else {
      void this.#buy();
    }
  }

  /** The browser does not let it begin by itself after all. */
  #unbegin(): void {
    if (this.#agreed) return;
    byId('controls').hidden = byId('spinner').hidden = byId('free-badge').hidden = true;
    this.#start.hidden = false;
  }

  // --- the question

  /** Something costs money and nobody has agreed to pay yet: ask when what is free is over. */
  #due(): void {
    this.#wanted = true;
    if (!this.#player || this.#player.ahead < 1) void this.#ask();
  }

  async #ask(): Promise<void> {
    if (this.#agreed || this.#declined || this.#question.open) return;
    const network = this.#network;
    if (!network) {
      this.#notice.show('no-way-to-pay');
      return;
    }
    const yes = await this.#question.ask(
      this.#asked(),
      async () => choices(network),
      async ({ choice, cap }) => {
        const wallet = await choice.open();
        await ready(wallet, network, depositOf(this.pricing));
        return () => this.#agree(wallet, choice.name, cap);
      },
    );
    if (!yes) this.#refuse();
  }

  #asked(): Asked {
    const { pricing } = this;
    const isFile = pricing.kind === 'object';
    const free = pricing.preview_seconds ?? 0;
    return {
      heading: isFile ? `Buy ${pricing.name}?` : free ? 'Go on watching?' : 'Pay as you play?',
      free: this.#agreedPrice
        ? `It was $${this.#agreedPrice} a MB when you agreed. Nothing was charged at the new price.`
        : free
          ? 'The free part ends here. Nothing has been charged so far.'
          : '',
      figure: this.#price > 0n ? price(this.#price) : `$${pricing.price_per_mb}`,
      unit: isFile
        ? `for ${size(pricing.size ?? 0)}`
        : this.#price > 0n
          ? 'a minute, about'
          : 'a MB of 1,048,576 bytes',
      text: isFile
        ? 'You pay once, for the bytes that are delivered.'
        : `$${pricing.price_per_mb} a MB: each segment is paid when it is delivered, and never ` +
          'more than that. Stop, and it stops.',
      perMinute: isFile ? 0n : this.#price,
      cap: this.#meter.cap.cap,
      deposit: depositOf(pricing),
    };
  }

  #agree(wallet: Wallet, name: string, cap: bigint): void {
    this.#agreed = true;
    this.#wanted = false;
    this.#agreedPrice = this.pricing.price_per_mb;
    this.#payer.maxPerMb = parseAmount(this.#agreedPrice);
    this.#meter.cap.cap = cap;
    this.#meter.state = 'paying';
    this.#payer.budget = this.#budget;
    this.#payer.wallet = wallet;
    this.#payer.resume();
    this.#halt('');
    this.#notice.clear();
    byId('free-badge').hidden = true;
    this.#topup.disabled = this.#close.disabled = false;
    this.#walletName = name;
    void this.#showPurse();
    this.#meter.show();
    this.#player?.goOn();
    if (this.#player?.media.paused) this.#player.start();
    this.#player?.goLive();
    if (!this.#player) void this.#buy();
  }

  #refuse(): void {
    this.#declined = true;
    this.#player?.media.pause();
    this.#halt('Nothing was charged. What follows costs money.', 'See the price');
  }

  /** Ask again, at the price of now: it went up. */
  async #askAnew(): Promise<void> {
    try {
      this.pricing = await this.server.pricing();
    } catch {
      this.#notice.show('setup', [{ label: 'Try again', act: () => void this.#askAnew() }]);
      return;
    }
    this.#meter.expected = perMinute(this.pricing);
    this.#meter.cap.cap = most(this.#meter.cap.cap, this.#payer.spent + this.#usualCap);
    this.#player?.reprice(this.pricing);
    this.#another();
  }

  // --- caps

  get #budget(): Budget {
    const perMinute = this.#meter.minuteCap.cap;
    const total = this.#meter.cap.cap;
    // No more lies in a channel than was spoken of, whatever its server wants.
    const deposit = most(total, depositOf(this.pricing));
    return { total, deposit, ...(perMinute !== undefined && { perMinute }) };
  }

  #newCaps(): void {
    if (!this.#agreed) return;
    this.#uncap(); // before it is tried anew, which may end at a cap again
    this.#payer.budget = this.#budget;
    this.#meter.show();
  }

  #cap(cap: PayerEvents['cap']): void {
    if (!this.#agreed) {
      this.#due();
      return;
    }
    if (cap.limit === 'deposit') {
      const ask = { label: 'See what it wants', act: () => void this.#askAnew() };
      this.#notice.show('cap-deposit', [ask, this.#wayToStop]);
      return;
    }
    this.#capped = cap;
    this.#meter.state = 'capped';
    this.#meter.show();
    this.#notice.show(cap.limit === 'total' ? 'cap' : 'cap-minute', [
      { label: this.#raising(cap), act: () => this.#raise(cap) },
      this.#wayToStop,
    ]);
  }

  get #wayToStop(): WayOut {
    return { label: 'Stop and refund', act: () => void this.#refund() };
  }

  /** What `#raise` comes to. */
  #raising(cap: PayerEvents['cap']): string {
    if (cap.limit === 'total') return `Raise it to ${round(this.#above(cap))}`;
    const next = minuteStepAfter(cap.cap);
    return next === undefined ? 'Lift it' : `Raise it to ${round(next)}`;
  }

  #raise(cap: PayerEvents['cap']): void {
    if (cap.limit === 'total') this.#meter.cap.cap = this.#above(cap);
    else this.#meter.minuteCap.cap = minuteStepAfter(cap.cap);
    this.#newCaps();
  }

  #above({ cap, spent, needed }: PayerEvents['cap']): bigint {
    return stepAfter(most(cap, spent + needed));
  }

  #uncap(): void {
    if (!this.#capped) return;
    this.#capped = undefined;
    this.#meter.state = 'paying';
    this.#notice.clear('cap', 'cap-minute');
    this.#halt('');
    if (this.#player?.started) void this.#player.media.play().catch(() => undefined);
  }

  /** The way out that the picture offers. */
  #goOn(): void {
    if (this.#capped) {
      this.#raise(this.#capped);
    } else {
      this.#declined = false;
      this.#halt('');
      void this.#ask();
    }
  }

  #halt(text: string, action = ''): void {
    byId('halt').hidden = !text;
    if (!text) return;
    say(byId('halt-text'), text);
    say(byId('halt-action'), action);
    byId('spinner').hidden = true;
  }

  // --- what the player tells

  #dry(): void {
    this.#wonder();
    if (this.#wanted && !this.#agreed) void this.#ask();
    if (this.#capped) this.#halt(paused(this.#capped), this.#raising(this.#capped));
  }

  #playing(): void {
    this.#drySince = Infinity;
    this.#halt('');
    this.#notice.clear('unreachable', 'gone', 'setup', 'offair', 'pending', 'facilitator');
  }

  /** Nothing has come for long, and no one was asked for anything: say why, if the server knows. */
  #wonder(): void {
    const told = this.#capped !== undefined || this.#payer.waiting !== undefined || this.#notice.code !== '';
    const now = performance.now();
    if (told || !this.#agreed || this.#player?.media.paused) this.#drySince = Infinity;
    else if (this.#drySince === Infinity) this.#drySince = now;
    else if (now - this.#drySince > PATIENCE) {
      this.#drySince = Infinity;
      void this.#diagnose();
    }
  }

  async #diagnose(): Promise<void> {
    const code = await this.server.ailment();
    if (!code || this.#notice.code) return;
    this.#notice.show(code, [{ label: 'Try again', act: () => this.#retry() }]);
  }

  async #ended(): Promise<void> {
    byId('spinner').hidden = true;
    if (this.server.kind !== 'stream') return;
    const home = { label: 'See what else is on', act: () => location.assign('/') };
    this.#notice.show('ended', [home]);
    await this.#look();
  }

  #failed(code: 'unreachable' | 'unplayable' | 'gone'): void {
    byId('spinner').hidden = true;
    if (this.#payerSaid && this.#payerSaid === this.#notice.code) return; // it knows better
    const again = { label: 'Try again', act: () => this.#retry() };
    this.#notice.show(code, code === 'unplayable' ? [] : [again]);
  }

  #retry(): void {
    this.#notice.clear();
    this.#payer.resume();
    if (this.#player) this.#player.retry();
    else void this.#buy();
  }

  // --- what the payer tells

  #spent(): void {
    this.#notice.clear('unreachable', 'pending', 'facilitator', 'wallet-failed', 'wallet-rejected');
    void this.#showChannel();
  }

  #resumed(): void {
    if (this.#payer.waiting !== undefined) return;
    this.#uncap();
    this.#notice.clear('topup-needed');
  }

  #trouble({ code, message, retryable }: PayerEvents['error']): void {
    if (!this.#agreed && code === 'no-wallet') {
      this.#due();
      return;
    }
    if (code === 'http' && this.#player) return; // the player tells what that means for it
    byId('spinner').hidden = true;
    say(byId('channel-line'), '\u00a0');
    void this.#showChannel();
    if (isForGood(code, retryable)) this.#player?.halt();
    const ways = this.#waysOut(code, retryable);
    this.#tell(code, ways, message);
    if (code === 'pending' || code === 'unreachable') {
      void this.server.ailment().then((found) => {
        if (found && this.#notice.code === code) this.#tell(found, ways);
      });
    }
  }

  #waysOut(code: PaymentErrorCode, retryable: boolean): WayOut[] {
    const ways: WayOut[] = [];
    const remedy = remedyOf(code, retryable);
    const network = this.#network;
    const wallet = this.#payer.wallet;
    const again = (): void => {
      this.#notice.clear();
      if (remedy === 'deposit') this.#payer.topUp();
      this.#retry();
    };
    /** Try again once something is done, or say the same again. */
    const after = (done: Promise<void>): void =>
      void done.then(again, () => this.#tell(code, this.#waysOut(code, retryable)));
    if (code === 'insufficient-funds' && network?.faucet_url && wallet) {
      ways.push({ label: 'Get test money', act: () => after(fill(wallet, network)) });
    }
    if (code === 'wrong-network' && network && wallet) {
      ways.push({
        label: `Switch to ${network.name}`,
        act: () => after(wallet.switchChain(network.chain_id)),
      });
    } else if (remedy === 'new-price') {
      ways.push({ label: 'See the new price', act: () => void this.#askAnew() });
    } else if (remedy !== 'none') {
      ways.push({ label: code === 'wallet-changed' ? 'Pay from that one' : 'Try again', act: again });
    }
    if (WALLETS.has(code)) ways.push({ label: 'Another wallet', act: () => this.#another() });
    return ways;
  }

  /** Say what the payer has to say: nobody knows better. */
  #tell(code: string, ways: WayOut[], message = ''): void {
    this.#payerSaid = code;
    this.#notice.show(code, ways, message);
  }

  /** Say what went wrong with something that was asked for, with a way to ask for it again. */
  #failedTo(error: unknown, again: () => void): void {
    const ways = [{ label: 'Try again', act: again }];
    if (error instanceof PaymentError) {
      this.#tell(error.code === 'refused' ? 'no-refund' : error.code, ways, error.message);
    } else {
      this.#tell('failed', ways, error instanceof Error ? error.message : String(error));
    }
  }

  #deposit({ amount, state }: PayerEvents['deposit']): void {
    const telling = {
      signing: `Your wallet is asked to sign a deposit of ${price(amount)} …`,
      sent: `Depositing ${price(amount)}: the chain is being told …`,
      done: `Deposited ${price(amount)}.`,
    };
    say(byId('channel-line'), telling[state]);
    if (state === 'done') void this.#showPurse();
  }

  #another(): void {
    this.#agreed = false;
    this.#declined = false;
    this.#notice.clear();
    void this.#ask();
  }

  // --- the wallet

  async #showPurse(): Promise<void> {
    const { wallet } = this.#payer;
    if (!wallet || !this.#network) return;
    const address = await wallet.address();
    const holds = await balanceOf(wallet, this.#network).then(
      (balance) => `, holds ${cents(balance)}${this.#network?.faucet_url ? ' of test money' : ''}`,
      () => '',
    );
    say(byId('wallet-line'), `${this.#walletName} ${short(address)}${holds}`);
    byId('wallet-line').title = address;
    await this.#showChannel();
  }

  async #showChannel(): Promise<void> {
    const address = (await this.#payer.wallet?.address())?.toLowerCase();
    const mine = (await this.#payer.channels()).filter(
      ({ payer, network }) => payer.toLowerCase() === address && network === this.#network?.network,
    );
    const left = mine.reduce((sum, { refundable }) => sum + refundable, 0n);
    if (mine.length > 0) say(byId('channel-line'), `In your channel: ${exact(left)} left, yours until you play it.`);
  }

  /** What an earlier visit left in channels can be had back before anything is agreed to. */
  async #showRest(): Promise<void> {
    const rest = await this.#rest().catch(() => 0n);
    if (rest === 0n || this.#agreed) return;
    this.#close.disabled = false;
    say(byId('channel-line'), `In your channel: ${exact(rest)} left from before, yours until you play it.`);
  }

  async #rest(): Promise<bigint> {
    const channels = await this.#payer.channels();
    return channels.reduce((sum, { refundable }) => sum + refundable, 0n);
  }

  async #topUp(): Promise<void> {
    const { wallet } = this.#payer;
    if (!wallet || !this.#network) {
      await this.#ask();
      return;
    }
    this.#topup.setAttribute('aria-busy', 'true');
    try {
      await ready(wallet, this.#network, depositOf(this.pricing));
      this.#payer.topUp();
      say(byId('channel-line'), 'The next segment brings a new deposit along.');
    } catch (error) {
      if (error instanceof PaymentError) this.#trouble(error);
      else this.#failedTo(error, () => void this.#topUp());
    } finally {
      this.#topup.removeAttribute('aria-busy');
    }
  }

  async #refund(): Promise<void> {
    this.#player?.media.pause();
    this.#notice.clear();
    if (this.#agreed) this.#payer.budget = { total: this.#payer.spent };
    this.#close.setAttribute('aria-busy', 'true');
    this.#closing = true;
    try {
      const refunds = await this.#payer.close();
      const sum = refunds.reduce((total, { amount }) => total + amount, 0n);
      await this.#showPurse();
      say(byId('channel-line'), `${exact(sum)} went back to your wallet.`);
      this.#close.disabled = (await this.#rest()) === 0n;
      this.#stopped();
    } catch (error) {
      this.#failedTo(error, () => void this.#refund());
    } finally {
      this.#closing = false;
      this.#close.removeAttribute('aria-busy');
    }
  }

  /** Nothing is paid any more, until it is agreed to anew. */
  #stopped(): void {
    if (!this.#agreed) return;
    this.#agreed = false;
    this.#declined = true;
    this.#capped = undefined;
    this.#notice.clear();
    this.#meter.state = 'idle';
    this.#halt('Stopped. What you did not use is back in your wallet.', 'Go on watching');
  }

  // --- live, files

  /** Show whether it is on air; false where that is not known. */
  async #look(): Promise<boolean> {
    if (document.hidden) return false;
    const status = await this.server.status().catch(() => undefined);
    if (!status) return false;
    const onAir = status.state === 'on_air' || status.state === 'waiting';
    byId('live-badge').hidden = !onAir;
    byId('off-air').hidden = onAir;
    const viewers = byId('viewers');
    viewers.hidden = !onAir;
    say(viewers, `${status.viewers_paying} paying now`);
    if (!this.#player?.started) {
      this.#start.disabled = !onAir;
      if (!onAir && !this.#notice.code) this.#notice.show('offair');
      if (onAir && this.#notice.code === 'offair') location.reload();
    }
    return true;
  }

  /** Buy the file and hand it over; what was bought is handed over again. */
  async #buy(): Promise<void> {
    if (this.#buying) return;
    const { pricing, server } = this;
    this.#buying = true;
    this.#start.disabled = true;
    byId('spinner').hidden = false;
    try {
      this.#file ??= await this.#download.all({
        size: pricing.size ?? 0,
        pricePerMb: pricing.price_per_mb,
        priceWhole: pricing.price_whole ?? '0',
        url: server.mediaUrl,
        pricingUrl: server.pricingUrl,
      });
      save(this.#file, pricing.name);
      say(byId('start-text'), 'Save again');
      this.#notice.clear();
    } catch (error) {
      this.#unbought(error);
    } finally {
      this.#buying = false;
      this.#start.disabled = false;
      byId('spinner').hidden = true;
    }
  }

  #unbought(error: unknown): void {
    say(byId('start-text'), 'Buy');
    if (error instanceof Replaced) {
      this.#tell('replaced', [{ label: 'Load the page again', act: () => location.reload() }]);
    } else if (!(error instanceof PaymentError)) {
      this.#failedTo(error, () => void this.#buy());
    } // else the payer has told of it
  }
}

const WALLETS = new Set<string>([
  'no-wallet',
  'wallet-rejected',
  'wallet-failed',
  'wallet-changed',
  'wrong-network',
  'insufficient-funds',
]);

/** Which cap is reached, and when it goes on by itself if it does. */
function paused({ limit, cap, resumesAt }: PayerEvents['cap']): string {
  if (limit === 'total') return `Paused: your cap of ${round(cap)} is reached.`;
  const told = `Paused: your cap of ${round(cap)} a minute is reached.`;
  return resumesAt === undefined
    ? `${told} The next part alone costs more.`
    : `${told} It goes on ${inSeconds(resumesAt - Date.now())}.`;
}

/** What may be paid in: the well-known tokens, and those this server says it takes. */
function assetsOf(pricing: Pricing, networks: Network[]): Asset[] {
  const own = networks.flatMap(({ network, asset, symbol, decimals }) => {
    const terms = pricing.accepts.find((each) => each.network === network);
    if (!terms) return [];
    const { name, version } = terms.extra;
    return [{ network, address: asset, name, version, decimals, symbol }];
  });
  return [...own, ...KNOWN_ASSETS];
}
