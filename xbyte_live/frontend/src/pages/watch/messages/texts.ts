/** A problem in plain words. */
export interface Message {
  title: string;
  text: string;
}

const MESSAGES: Record<string, Message> = {
  'no-wallet': {
    title: 'There is no wallet to pay with.',
    text: 'Install one in this browser, such as MetaMask or Rabby, then choose it here.',
  },
  'no-wallet-phone': {
    title: 'There is no wallet to pay with.',
    text: 'Open this page in your wallet’s own browser: on a phone, wallets are there alone.',
  },
  'wallet-rejected': {
    title: 'The wallet was not allowed to sign.',
    text: 'Nothing was deposited. What is left in your channel plays; for more, try again when you like.',
  },
  'wallet-failed': {
    title: 'The wallet did not answer as it should.',
    text: 'Nothing was deposited. Unlock it and try again, or choose another one.',
  },
  'wrong-network': {
    title: 'The wallet is on another network.',
    text: 'Switch it to the network this server is paid on, then try again.',
  },
  'unknown-network': {
    title: 'The wallet does not know the network this server is paid on.',
    text: 'Add it to the wallet by hand, or choose another one.',
  },
  'insufficient-funds': {
    title: 'The wallet does not hold enough.',
    text: 'Fill it up, or choose another wallet.',
  },
  'topup-needed': {
    title: 'What you deposited is used up.',
    text: 'Top up to go on; one signature does it.',
  },
  cap: {
    title: 'Your cap is reached.',
    text: 'Nothing more is bought until you raise it.',
  },
  'cap-minute': {
    title: 'Your cap for a minute is reached.',
    text: 'It goes on by itself when the minute is over, or at once if you raise it.',
  },
  'cap-deposit': {
    title: 'The server wants a larger deposit than you agreed to.',
    text: 'Nothing was deposited, and nothing is until you agree to it.',
  },
  'cap-refused': {
    title: 'A deposit that was refused may still be taken.',
    text: 'No other one is signed until it has expired, in a few minutes; then it goes on by itself.',
  },
  'wallet-changed': {
    title: 'The wallet shows another account.',
    text: 'Nothing is paid from that one unless you say so.',
  },
  'too-large': {
    title: 'It is too large for a page.',
    text: 'Nothing was charged. Buy it with xbyte-live pay, which writes it to a file.',
  },
  overcharged: {
    title: 'Stopped: the server claims more than you agreed to.',
    text: 'Nothing more is signed. Your receipts below say what you did agree to; keep a copy.',
  },
  misdelivered: {
    title: 'Stopped: what came twice was not what you paid for.',
    text: 'Nothing more is paid to this server unless you say so. What you paid for stays yours.',
  },
  'price-raised': {
    title: 'It costs more than you agreed to.',
    text: 'Nothing was charged at that price, and nothing is until you agree to it.',
  },
  'no-way-to-pay': {
    title: 'This page cannot pay this server.',
    text: 'It takes no payment channels on a network known here.',
  },
  pending: {
    title: 'The server waits for the chain.',
    text: 'Your payment is safe and is not made twice; it goes on as soon as the chain answers.',
  },
  unreachable: {
    title: 'The server cannot be reached.',
    text: 'Check your connection. A payment that was under way stays good.',
  },
  refused: {
    title: 'The server refused the payment.',
    text: 'Nothing was charged. Try again; if it stays like this, tell whoever runs the server.',
  },
  'wrong-clock': {
    title: 'The clock of this device is wrong.',
    text: 'By it the server takes your deposit for expired. Nothing was charged: set the clock, then try again.',
  },
  storage: {
    title: 'This browser does not let the page keep your channel.',
    text: 'Payments need its storage: leave private mode, or free some space.',
  },
  insecure: {
    title: 'This page came without https.',
    text:
      'Browsers let only pages that come over https, or from this machine, sign and keep payments: ' +
      'open it with https, or tell whoever runs the server.',
  },
  'bad-delivery': {
    title: 'The bytes did not arrive whole.',
    text: 'They are asked for again with the same payment, which is not charged twice.',
  },
  'no-refund': {
    title: 'The server did not give the rest back.',
    text: 'It is still yours, in the channel. Try again; if it stays like this, tell whoever runs the server.',
  },
  replaced: {
    title: 'The file was replaced while you were buying it.',
    text: 'What you have of the old one is of no use any more. Load the page again to see the new one.',
  },
  facilitator: {
    title: 'The server cannot reach its payment service.',
    text: 'No money has moved. It is tried again by itself; you can also wait and try later.',
  },
  gone: {
    title: 'This part is not kept any more.',
    text: 'Go on from what is live now.',
  },
  ended: { title: 'The broadcast has ended.', text: 'Thank you for watching.' },
  offair: {
    title: 'Nothing is on air at the moment.',
    text: 'It begins here by itself as soon as somebody goes on air.',
  },
  unplayable: {
    title: 'This browser cannot play this.',
    text: 'Try another browser, or xbyte-live play with a player of your own.',
  },
  unsupported: {
    title: 'This browser cannot play this.',
    text:
      'It plays no streams in a page. Try another browser, or buy a link with xbyte-live session: ' +
      'Safari and televisions play that by themselves.',
  },
  setup: {
    title: 'The server does not answer.',
    text: 'It may be restarting: try again in a moment.',
  },
};

/** The text for a message code; for an unknown one, `message`. */
export function messageFor(code: string, message = ''): Message {
  const known = MESSAGES[here(code)];
  if (!known) return { title: 'That did not work.', text: message };
  return code === 'unknown-network' && message ? { ...known, text: message } : known;
}

/** The more exact code for this browser. */
function here(code: string): string {
  if (code === 'storage' && !isSecureContext) return 'insecure';
  if (code === 'no-wallet' && /Mobi|Android|iPhone|iPad/.test(navigator.userAgent)) {
    return 'no-wallet-phone';
  }
  return code;
}
