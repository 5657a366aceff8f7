"""Adapter: describes the streams of a live feed, and refuses those MPEG-TS cannot carry."""

from fractions import Fraction

from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from xbyte_live.errors import MediaError
from xbyte_live.media.formats.codecs import (
    PLAYABLE_AUDIO,
    PLAYABLE_VIDEO,
    audio_codec_string,
    video_codec_string,
)
from xbyte_live.media.formats.tracks import (
    AudioFacts,
    VideoFacts,
    audio_obstacle,
    codec_name,
    video_obstacle,
)

AnyStream = VideoStream | AudioStream


def refuse_codec(codec: str, *, video: bool) -> None:
    """Raise ``MediaError`` for a codec that MPEG-TS players do not play, with what to set."""
    if video and codec not in PLAYABLE_VIDEO:
        raise MediaError(
            f"its video is {codec_name(codec)}, which MPEG-TS players do not play: "
            "choose H.264 in OBS"
        )
    if not video and codec not in PLAYABLE_AUDIO:
        raise MediaError(
            f"its sound is {codec_name(codec)}, which MPEG-TS players do not play: "
            "choose AAC in OBS"
        )


def codec_strings(video: VideoStream | None, audio: AudioStream | None) -> str:
    """The CODECS attribute of the streams (RFC 6381).

    Raises ``MediaError``, with what to set instead, when MPEG-TS cannot carry one of them.
    """
    found = []
    if video is not None:
        context = video.codec_context
        refuse_codec(context.codec.canonical_name, video=True)
        if context.pix_fmt is None or not context.width:
            raise MediaError("its video cannot be decoded: restart the encoder")
        facts = video_facts(video)
        obstacle = video_obstacle(facts)
        if obstacle:
            raise MediaError(f"{obstacle}: choose NV12 (4:2:0, 8 bit) in OBS")
        found.append(video_codec_string(facts.codec, facts.extradata))
    if audio is not None:
        refuse_codec(audio.codec_context.codec.canonical_name, video=False)
        sound = audio_facts(audio)
        obstacle = audio_obstacle(sound)
        if obstacle:
            raise MediaError(f"{obstacle}: choose AAC (LC) in OBS")
        found.append(audio_codec_string(sound.codec, sound.extradata, sound.profile))
    return ",".join(found)


def video_facts(stream: VideoStream) -> VideoFacts:
    """Describe a probed video stream."""
    context = stream.codec_context
    return VideoFacts(
        codec=context.codec.canonical_name,
        extradata=context.extradata or b"",
        width=context.width,
        height=context.height,
        rate=None,
        pixel_format=context.pix_fmt or "",
    )


def audio_facts(stream: AudioStream) -> AudioFacts:
    """Describe a probed audio stream."""
    context = stream.codec_context
    return AudioFacts(
        codec=context.codec.canonical_name,
        extradata=context.extradata or b"",
        profile=context.profile,
        sample_rate=context.sample_rate,
        channels=context.channels,
    )


def usual_step(stream: AnyStream) -> Fraction:
    """The usual duration of a frame, in seconds, until two frames show the real one."""
    if isinstance(stream, VideoStream):
        return Fraction(1, 25)
    rate = stream.codec_context.sample_rate or 48_000
    return Fraction(stream.codec_context.frame_size or 1024, rate)
