import { byId, elementOf, say } from '../dom';

/** Ask before something that cannot be undone; whether it shall be. */
export async function confirm(heading: string, text: string, yes: string): Promise<boolean> {
  const dialog = elementOf(HTMLDialogElement, 'ask');
  say(byId('ask-heading'), heading);
  say(byId('ask-text'), text);
  say(byId('ask-yes'), yes);
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
  });
}
