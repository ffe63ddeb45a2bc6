"""Names what speaks on the DICOM port when it is not DICOM, from the first bytes of a connection."""

from typing import Final

_TLS_HANDSHAKE: Final = 0x16
_HTTP_METHODS: Final = (b"GET ", b"POST", b"PUT ", b"HEAD", b"OPTI", b"CONN", b"PRI ", b"DELE", b"PATC", b"TRAC")
_SSH: Final = b"SSH-"


def foreign_protocol(first_bytes: bytes | bytearray) -> str:
    """Say which protocol other than DICOM begins with these bytes (six are enough); empty for one we do not know."""
    if first_bytes[:1] == bytes([_TLS_HANDSHAKE]) and first_bytes[1:2] == b"\x03":
        return "TLS on the port without TLS"
    if first_bytes.startswith(_HTTP_METHODS):
        return "an HTTP request"
    if first_bytes.startswith(_SSH):
        return "SSH"
    return ""
