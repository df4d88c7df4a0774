"""By whose credentials an object store is reached, and for how long they hold; where it is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from ..storage.errors import without_secrets
from ..storage.objects import ObjectFiles
from ..storage.store import StorageError, absolute_url
from .finding import Finding, failed, failed_by, ok, warning

_SHORT = 3600.0
"""Seconds for which credentials should hold that nothing renews."""
_WAY_OUT = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"


def look_at_credentials(what: str, url: str, options: Mapping[str, Any]) -> list[Finding]:
    """What is known here of those for an S3 URL, without a request to the store; [] for others, of which their clients
    tell nothing. what: whose URL it is."""
    check, address = f"credentials ({what})", absolute_url(url)
    if "://" not in address:
        return []
    try:
        files = ObjectFiles(address, options)
        if not files.is_s3:
            return []
        files.fs.connect()
        client = files.fs.s3
        found = None if files.fs.anon else client._get_credentials()
    except StorageError as error:
        return [failed_by(check, error)]
    except Exception as error:  # botocore's own, of a profile that isn't there or a file that can't be read
        return [failed(check, f"{type(error).__name__}: {without_secrets(str(error), options)}", _WAY_OUT)]
    where = f"at {client.meta.endpoint_url}"
    if files.fs.anon:
        return [ok(check, f"none are used, {where}")]
    if found is None:
        return [failed(check, f"there are none, {where}", f"{_WAY_OUT}; or `storage_options: {{anon: true}}`")]
    return [_told(check, f"the key that ends in {found.access_key[-4:]}, from {_source(found.method)}, {where}", found)]


def _told(check: str, said: str, found: Any) -> Finding:
    ends: datetime | None = getattr(found, "_expiry_time", None)
    if ends is None:
        return ok(check, said + (", with a session token, which tells no end" if found.token else ""))
    left = (ends - datetime.now(timezone.utc)).total_seconds()
    if left <= 0:
        return failed(check, f"{said}, ended {_duration(-left)} ago", "Get new ones")
    said = f"{said}, for {_duration(left)} more"
    if left < _SHORT and found.method == "env":  # others are renewed by where they come from
        return warning(check, said, "Get new ones before a long run, or use a role, which renews them")
    return ok(check, said)


def _source(method: str | None) -> str:
    names = {"explicit": "the recipe's storage_options", "env": "the environment", "iam-role": "the machine's role"}
    return names.get(method or "", method or "an unknown place")


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
