"""Pure: what of our environment the programs get that read what strangers sent (money rule 10)."""

from collections.abc import Mapping

_NEEDED = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "VIRTUAL_ENV"}
)
_NEEDED_PREFIXES = ("LC_", "PYTHON")
_OURS = "XBYTE_"


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """For a process of ours that decodes: what it needs to start, and nothing else."""
    return {
        name: value
        for name, value in environ.items()
        if name in _NEEDED or name.startswith(_NEEDED_PREFIXES)
    }


def without_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """For a program of the user's: all but our settings, which hold the keys."""
    return {n: value for n, value in environ.items() if not n.upper().startswith(_OURS)}
