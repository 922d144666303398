"""What drivers of stores raise, which of it may pass, and what to do about the rest."""

import errno
import sys

#: Of an OSError: faults of this machine's disk, which waiting for the store does not mend.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_MAY_PASS = {"HTTPClientError", "ConnectionError", "ResponseParserError"}  # of botocore


def store_faults() -> tuple[type[Exception], ...]:
    """What drivers raise for faults of the store or the way to it."""
    known = (
        ("botocore.exceptions", "BotoCoreError"),
        ("botocore.exceptions", "ClientError"),
        ("aiohttp", "ClientError"),
        ("gcsfs.retry", "HttpError"),
        ("google.auth.exceptions", "GoogleAuthError"),
    )
    loaded = [(sys.modules[module], name) for module, name in known if module in sys.modules]
    return (OSError, *(getattr(module, name) for module, name in loaded))


def advice_for(error: Exception) -> str:
    """What to do about a fault that does not pass by itself; "" if it may."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    code = getattr(error, "code", None)  # of gcsfs: the HTTP status
    if isinstance(error, PermissionError) or str(code) in ("401", "403"):
        return "wrong credentials, or they do not allow it; see the environment and ~/.aws"
    if kinds & {"GoogleAuthError", "NoCredentialsError", "PartialCredentialsError"}:
        return "give credentials in the environment or ~/.aws"
    if "BotoCoreError" in kinds and not kinds & _MAY_PASS:
        return "see the address and the settings in the environment and ~/.aws"
    return ""


def bucket_is_gone(error: BaseException | None) -> bool:
    """Whether S3 said so; what it said is behind the driver's error, which is that of an object."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and response["Error"].get("Code") == "NoSuchBucket":
            return True
        error = error.__cause__ or error.__context__
    return False


def line_of(error: Exception) -> str:
    """One line of an error, without the number that some put before it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:300] or type(error).__name__
