"""Pure: the URLs under which viewers and publishers reach this server."""

from urllib.parse import urlsplit

from xbyte_live.config import Settings

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104  addresses to listen on, none to push to


def rtmp_url(settings: Settings, host: str) -> str:
    """The URL publishers push to, as OBS takes it; ``host`` if the settings name none."""
    public = urlsplit(settings.public_url).hostname if settings.public_url else None
    named = public or settings.rtmp_address
    if named in _EVERYWHERE:
        named = host
    if ":" in named:
        named = f"[{named}]"
    if settings.rtmps_port:
        return f"rtmps://{named}:{settings.rtmps_port}/live"
    return f"rtmp://{named}:{settings.rtmp_port}/live"


def public_url(settings: Settings) -> str:
    """The URL viewers use."""
    return settings.public_url or f"http://{settings.host}:{settings.port}"
