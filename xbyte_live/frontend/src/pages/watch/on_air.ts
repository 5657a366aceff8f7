import { byId, say } from '../dom';
import type { Item } from './item';
import type { Notice } from './messages/notice';
import type { Server } from './server';

const LOOK_EVERY = 4_000; // milliseconds

/** Whether a stream is on air, and how many pay for it. */
export class OnAir {
  constructor(
    private readonly server: Server,
    private readonly item: Item,
    private readonly notice: Notice,
    private readonly startButton: HTMLButtonElement,
  ) {}

  /** Look again and again from now on. */
  follow(): void {
    setInterval(() => void this.look(), LOOK_EVERY);
  }

  /** Show whether it is; false where that is not known. */
  async look(): Promise<boolean> {
    if (document.hidden) return false;
    const status = await this.server.status().catch(() => undefined);
    if (!status) return false;
    const onAir = status.state === 'on_air' || status.state === 'waiting';
    byId('live-badge').hidden = !onAir;
    byId('off-air').hidden = onAir;
    const viewers = byId('viewers');
    viewers.hidden = !onAir;
    say(viewers, `${status.viewers_paying} paying now`);
    if (!this.item.begun) {
      this.startButton.disabled = !onAir;
      if (!onAir && !this.notice.code) this.notice.show('offair');
      if (onAir && this.notice.code === 'offair') location.reload();
    }
    return true;
  }

  /** The broadcast has ended. */
  async end(): Promise<void> {
    const home = { label: 'See what else is on', act: () => location.assign('/') };
    this.notice.show('ended', [home]);
    await this.look();
  }
}
