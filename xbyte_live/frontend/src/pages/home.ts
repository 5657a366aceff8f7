import { byId } from './dom';

const EVERY = 5_000; // milliseconds
const LOOK_EVERY = 20_000; // a picture of a stream stands for so long

/** Keep the lists what the server would show now; it alone knows how an item is shown. */
class Lists {
  readonly #lists = byId('lists');
  #shown = '';

  async refresh(): Promise<void> {
    const answer = await fetch('/', { headers: { accept: 'text/html' }, cache: 'no-cache' });
    if (!answer.ok) return;
    const text = await answer.text();
    if (text === this.#shown) return;
    this.#shown = text;
    const fresh = new DOMParser().parseFromString(text, 'text/html').getElementById('lists');
    if (fresh) replace(this.#lists, fresh);
  }
}

/** Make `old` what `fresh` is, touching only what differs: focus and hover stay where they are. */
function replace(old: Element, fresh: Element): void {
  if (old.isEqualNode(fresh)) return;
  const [had, has] = [[...old.children], [...fresh.children]];
  const alike =
    had.length === has.length &&
    had.length > 0 &&
    had.every((child, index) => child.tagName === has[index]?.tagName && child.id === has[index].id);
  if (alike && old.tagName === fresh.tagName && textOf(old) === textOf(fresh)) {
    for (const [index, child] of had.entries()) {
      const other = has[index];
      if (other) replace(child, other);
    }
    for (const { name, value } of fresh.attributes) {
      const shown = old.getAttribute(name);
      const same = name === 'src' ? bare(shown) === bare(value) : shown === value;
      if (!same) old.setAttribute(name, value);
    }
    return;
  }
  old.replaceWith(document.importNode(fresh, true));
}

/** A URL without the time that `look` gives it. */
function bare(url: string | null): string | undefined {
  return url?.split('?')[0];
}

/** Show what is on air as it is now. */
function look(): void {
  for (const poster of document.querySelectorAll<HTMLImageElement>('.card-live .poster')) {
    const next = new Image();
    next.src = `${bare(poster.getAttribute('src')) ?? ''}?at=${Date.now()}`;
    next.decode().then(
      () => poster.setAttribute('src', next.getAttribute('src') ?? ''),
      () => undefined,
    );
  }
}

/** The text that is an element's own. */
function textOf(element: Element): string {
  return [...element.childNodes]
    .filter((node) => node.nodeType === Node.TEXT_NODE)
    .map((node) => node.textContent?.trim())
    .join('|');
}

const lists = new Lists();
setInterval(() => {
  if (!document.hidden) void lists.refresh().catch(() => undefined);
}, EVERY);
setInterval(() => {
  if (!document.hidden) look();
}, LOOK_EVERY);
document.addEventListener('visibilitychange', () => {
  if (!document.hidden) void lists.refresh().catch(() => undefined);
});
