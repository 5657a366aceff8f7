import { ErrorDetails, ErrorTypes, type ErrorData } from 'hls.js';

/** A reason why the player cannot play. */
export type PlaybackFailure = 'unreachable' | 'unplayable' | 'unsupported' | 'gone';

const NO_CODEC: ReadonlySet<string> = new Set([
  ErrorDetails.MANIFEST_INCOMPATIBLE_CODECS_ERROR,
  ErrorDetails.BUFFER_INCOMPATIBLE_CODECS_ERROR,
  ErrorDetails.BUFFER_ADD_CODEC_ERROR,
]);

/** Whether making the decoder anew may mend it: what the browser has no decoder for stays so. */
export function isMendable({ type, details }: ErrorData): boolean {
  return type === ErrorTypes.MEDIA_ERROR && !NO_CODEC.has(details);
}

/** The message code for an error of hls.js that cannot be mended. */
export function failureOf({ type }: ErrorData): PlaybackFailure {
  return type === ErrorTypes.NETWORK_ERROR ? 'unreachable' : 'unplayable';
}
