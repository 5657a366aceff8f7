import type { Payer } from '../../../lib/payer/payer';
import type { PayerEvents } from '../../../lib/payer/types';
import { byId, elementOf, say } from '../../dom';
import { cents, exact, price, short } from '../../words';
import type { Listing } from './listing';
import { BurnerWallet } from '../../../lib/wallets/burner';
import { PaymentError } from '../../../lib/x402/errors';
import { injectedWallets } from '../../../lib/wallets/injected';
import type { Chain, Wallet } from '../../../lib/wallets/wallet';
import type { Network } from '../server';

/** The lines of the wallet and the channel, with the buttons for deposit and refund. */
export class WalletPanel {
  readonly topUpButton = elementOf(HTMLButtonElement, 'topup');
  readonly refundButton = elementOf(HTMLButtonElement, 'close');
  readonly #walletLine = byId('wallet-line');
  readonly #channelLine = byId('channel-line');
  #name = '';
  #refunding = false;

  constructor(
    private readonly payer: Payer,
    private readonly listing: Listing,
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
    const { network } = this.listing;
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
        payer.toLowerCase() === address && network === this.listing.network?.network,
    );
    const left = mine.reduce((sum, { refundable }) => sum + refundable, 0n);
    if (mine.length > 0) this.#say(`In your channel: ${exact(left)} left, yours until you play it.`);
  }

  /** Offer a refund of what an earlier visit left in channels. */
  async showRest(): Promise<void> {
    const rest = await this.#rest().catch(() => 0n);
    if (rest === 0n || this.payer.wallet) return;
    this.refundButton.disabled = false;
    this.#say(`In your channel: ${exact(rest)} left from before, yours until you play it.`);
  }

  /** Show the progress of a deposit. */
  depositing({ amount, state }: PayerEvents['deposit']): void {
    const telling = {
      signing: `Your wallet is asked to sign a deposit of ${price(amount)} …`,
      sent: `Depositing ${price(amount)}: the chain is being told …`,
      done: `Deposited ${price(amount)}.`,
    };
    this.#say(telling[state]);
    if (state === 'done') void this.show();
  }

  /** Clear the progress of a deposit that failed. */
  undo(): void {
    this.#say('\u00a0');
    void this.showChannel();
  }

  /** Have the wallet deposit with the next purchase; throws what keeps it from that. */
  async topUp(): Promise<void> {
    const { wallet } = this.payer;
    const { network, deposit } = this.listing;
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

  /** Refund all channels; the sum that came back. Throws if none did, and one held something. */
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

/** A wallet one may choose. */
export interface WalletChoice {
  id: string;
  name: string;
  about: string;
  open(): Promise<Wallet>;
}

/** The wallets at hand: the test wallet where test money is handed out, then those installed. */
export async function choices(network: Network): Promise<WalletChoice[]> {
  const found: WalletChoice[] = [];
  if (network.faucet_url) {
    found.push({
      id: 'burner',
      name: 'Test wallet',
      about: 'Made in this browser and filled with free test money',
      open: async () => BurnerWallet.load(),
    });
  }
  const chains = [chainOf(network)];
  for (const [index, wallet] of (await injectedWallets({ chains })).entries()) {
    found.push({
      id: `injected-${index}`,
      name: wallet.name,
      about: `Asks you to sign once, on ${network.name}`,
      open: async () => Promise.resolve(wallet),
    });
  }
  return found;
}

/** Make a wallet ready to deposit: unlocked, on the right network, a test wallet filled. */
export async function ready(wallet: Wallet, network: Network, deposit: bigint): Promise<void> {
  await wallet.address();
  if ((await wallet.chainId()) !== network.chain_id) {
    const failure = await wallet.switchChain(network.chain_id).catch((error: unknown) => error);
    if ((await wallet.chainId()) !== network.chain_id) {
      if (isUnknown(failure)) throw new PaymentError('unknown-network', byHand(network), true);
      throw new PaymentError('wrong-network', '', true);
    }
  }
  if (wallet instanceof BurnerWallet && network.faucet_url) {
    if ((await balanceOf(wallet, network)) < deposit) await wallet.fund(network.faucet_url);
  }
}

/** Whether it is that a wallet does not know the network. */
export function isUnknown(error: unknown): error is PaymentError {
  return error instanceof PaymentError && error.code === 'unknown-network';
}

/** How to add a network by hand to a wallet that does not know it. */
export function byHand({ name, chain_id }: Network): string {
  return `Add ${name} (chain id ${chain_id}) to it by hand, or choose another wallet.`;
}

/** A network in the form of EIP-3085; only test networks have a public node. */
function chainOf({ chain_id, name, rpc_url }: Network): Chain {
  return { id: chain_id, name, rpcUrls: rpc_url ? [rpc_url] : [] };
}

/** The balance of a wallet in the network's token, in atomic units. */
export async function balanceOf(wallet: Wallet, network: Network): Promise<bigint> {
  return wallet.balance(network.asset, network.rpc_url ?? undefined);
}

/** Ask the faucet for test money for any wallet. */
export async function fill(wallet: Wallet, network: Network): Promise<void> {
  if (!network.faucet_url) return;
  const answer = await fetch(network.faucet_url, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ address: await wallet.address() }),
  });
  if (!answer.ok) throw new PaymentError('insufficient-funds', '', true, answer.status);
}
