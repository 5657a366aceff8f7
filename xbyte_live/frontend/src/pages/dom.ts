/** The element of that id, of that kind; a page without it is broken. */
export function byId(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/** The same where its kind matters, such as `elementOf(HTMLInputElement, 'cap')`. */
export function elementOf<T extends HTMLElement>(kind: new () => T, id: string): T {
  const found = byId(id);
  if (!(found instanceof kind)) throw new Error(`#${id} is no ${kind.name}`);
  return found;
}

/** A new element with text, and attributes if any. */
export function made<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  text = '',
  attributes: Record<string, string> = {},
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Set text only where it differs, so that nothing is read out or laid out for nothing. */
export function say(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

/** How far a slider is, for its track to show. */
export function fill(slider: HTMLInputElement): void {
  const [low, high] = [Number(slider.min), Number(slider.max)];
  const share = high > low ? (Number(slider.value) - low) / (high - low) : 0;
  slider.style.setProperty('--fill', `${(share * 100).toFixed(2)}%`);
}
