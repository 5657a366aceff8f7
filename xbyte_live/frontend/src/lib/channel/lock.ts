import type { Channel } from './channel';
import type { ChannelStore, KeptPayment } from './store';

/** The right to sign for one channel, until it is released; no other tab has it meanwhile. */
export class ChannelLock {
  channel: Channel;
  readonly #store: ChannelStore;
  #free: (() => void) | undefined;

  private constructor(store: ChannelStore, channel: Channel, free: () => void) {
    this.#store = store;
    this.channel = channel;
    this.#free = free;
  }

  /** Wait until no other voucher of the channel is presented, and read the channel. */
  static async take(store: ChannelStore, fresh: Channel, signal?: AbortSignal): Promise<ChannelLock> {
    const free = await store.lock(`channel:${fresh.channelId}`, signal);
    try {
      return new ChannelLock(store, (await store.channel(fresh.channelId)) ?? fresh, free);
    } catch (error) {
      free();
      throw error;
    }
  }

  /** Replace the state of the channel; it is kept before this returns, with `strict` on the disk. */
  async keep(channel: Channel, payment?: KeptPayment, strict = false): Promise<void> {
    this.channel = channel;
    await this.#store.keep(channel, payment, strict);
  }

  /** Give up the right; the next purchase may sign. */
  release(): void {
    this.#free?.();
    this.#free = undefined;
  }
}
