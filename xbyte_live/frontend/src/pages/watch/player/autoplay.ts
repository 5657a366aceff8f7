const RATE = 8_000; // samples a second
const SAMPLES = RATE / 20;
const HEAD = 44; // bytes

/** Whether a page may play with sound now: it may after a click on this site that led here. */
export async function mayPlay(media: HTMLMediaElement): Promise<boolean> {
  if (document.hidden) return false;
  const policy = (
    navigator as { getAutoplayPolicy?: (media: HTMLMediaElement) => string }
  ).getAutoplayPolicy?.(media);
  if (policy !== undefined) return policy === 'allowed';
  return new Audio(URL.createObjectURL(silence())).play().then(
    () => true,
    () => false,
  );
}

/** A twentieth of a second of nothing, as WAVE in 8-bit samples. */
function silence(): Blob {
  const bytes = new Uint8Array(HEAD + SAMPLES).fill(128);
  const head = new DataView(bytes.buffer, 0, HEAD);
  const fields: (string | [number, 2 | 4])[] = [
    'RIFF', [HEAD - 8 + SAMPLES, 4], 'WAVE', 'fmt ', [16, 4], [1, 2], [1, 2], [RATE, 4], [RATE, 4],
    [1, 2], [8, 2], 'data', [SAMPLES, 4],
  ];
  let at = 0;
  for (const field of fields) {
    if (typeof field === 'string') {
      for (const letter of field) head.setUint8(at++, letter.charCodeAt(0));
    } else {
      const [value, size] = field;
      if (size === 2) head.setUint16(at, value, true);
      else head.setUint32(at, value, true);
      at += size;
    }
  }
  return new Blob([bytes], { type: 'audio/wav' });
}
