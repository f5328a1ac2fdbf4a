"""Object stores: what an `s3://`, `gs://` or `hf://` address names, asking for it through fsspec, and what a store's
refusals mean. Knows nothing of checkpoints; imports fsspec only once an address is used.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from reasonvec.errors import CheckpointError, MissingExtraError, ReasonvecError, UsageError

SCHEMES = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""What an address may begin with, and the package that speaks to it."""

DOCUMENTS = ("vector.json", "reasonvec.json")
"""An output of ours is whole where one of them is."""

MARKER = ".reasonvec-partial"
"""The object that stands in an output for as long as it is being written."""

TRIES, FIRST_PAUSE = 4, 0.5
"""How often a store is asked, and the seconds before the second time; each further pause is twice as long."""

_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_VERSIONS = ("ETag", "etag", "generation", "blob_id", "created")
"""Where a listing says which version of an object it speaks of, by store."""

_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "LocalTokenNotFoundError",
}
"""What the packages raise then; they share no base, and may not be imported to ask."""
_CREDENTIALS = {
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run `aws configure`",
    "gs": "Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "hf": "Run `hf auth login`, or set HF_TOKEN",
}

Answer = TypeVar("Answer")


def is_address(location: str | Path) -> bool:
    """Whether this names a place in a store, rather than a path or a Hub id."""
    return isinstance(location, str) and bool(_ADDRESS.fullmatch(location))


def local_directory(location: str | Path, what: str) -> Path:
    """`location` as a path. Raises UsageError for an address in a store; `what` names it in the message."""
    if is_address(location):
        raise UsageError(
            f"{what} {location} is an address in a store, and import and export read and write directories of this "
            f"machine. Name a directory, and copy what is in it from or to the store."
        )
    return Path(location)


@dataclass(frozen=True)
class RemoteFile:
    """One object in a store, in the version that a listing spoke of."""

    address: str
    size: int
    version: str | None
    """ETag, generation or blob, whichever the store has; None where it has none."""

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.rpartition("/")[2]

    def __str__(self) -> str:
        return self.address

    def __lt__(self, other: "RemoteFile") -> bool:
        return self.address < other.address

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`. Raises CheckpointError where the store does not give all of them."""
        store = filesystem(self.address)
        buffered = {} if store.async_impl else {"cache_type": "none"}
        data = asked(lambda: store.cat_file(self.address, start=start, end=stop, **buffered), self.address)
        if len(data) != stop - start:
            raise CheckpointError(
                f"{self.address} gave {len(data)} bytes from byte {start} on where {stop - start} were asked for: it "
                f"was cut or replaced while it was being read. Wait until it is whole and run again."
            )
        return bytes(data)


@dataclass(frozen=True)
class RemoteDirectory:
    """A prefix in a store: what a directory is on a disk. `remote_directory` makes them."""

    address: str

    @property
    def name(self) -> str:
        """The last part of its address."""
        return self.address.rpartition("/")[2]

    def __str__(self) -> str:
        return self.address

    @cached_property
    def scheme(self) -> str:
        """`s3`, `gs` or `hf`."""
        return self.address.partition("://")[0]

    def file(self, name: str) -> str:
        """The address of an object in it."""
        return f"{self.address}/{name}"

    def listing(self, error: type[ReasonvecError] = CheckpointError) -> dict[str, RemoteFile]:
        """Every object below it as it is now, by name; empty where there is none. `error` is raised for a refusal."""
        store = filesystem(self.address)
        store.invalidate_cache()
        root = str(store._strip_protocol(self.address)).rstrip("/")

        def find() -> dict[str, Any]:
            with contextlib.suppress(FileNotFoundError):
                return dict(store.find(root, detail=True))
            return {}

        found = asked(find, self.address, error)
        names = {path.removeprefix(f"{root}/"): info for path, info in sorted(found.items()) if info["type"] == "file"}
        return {name: RemoteFile(self.file(name), int(info["size"]), _version(info)) for name, info in names.items()}

    def file_info(self, address: str, error: type[ReasonvecError] = CheckpointError) -> RemoteFile:
        """One object in it as it is now."""
        store = filesystem(self.address)
        store.invalidate_cache()
        info = asked(lambda: store.info(address), address, error)
        return RemoteFile(address, int(info["size"]), _version(info))


def remote_directory(address: str, *, offline: bool = False) -> RemoteDirectory:
    """The place that `address` names.

    Raises UsageError for a scheme that is not known or an address that names no place below a bucket, CheckpointError
    if going online was forbidden, MissingExtraError if the package for it is not installed.
    """
    found = _ADDRESS.fullmatch(address)
    scheme, place = (found[1].lower(), found[2].rstrip("/")) if found else ("", "")
    if scheme not in SCHEMES:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError(f"{address} begins with {scheme}://, which is not read. Known are {known}, paths, and "
                         f"`owner/name` on the Hub.")  # fmt: skip
    parts = place.split("/")
    if not all(parts) or {".", ".."} & set(parts) or not place.isprintable() or re.search(r"[?#*\[\]\\]", place):
        raise UsageError(f"{address} does not name one place. Write {scheme}://BUCKET/PREFIX, without `//`, `.`, `..` "
                         f"or wildcards in it.")  # fmt: skip
    if offline or (scheme == "hf" and os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}):
        raise CheckpointError(f"{address} is in a store and going online was forbidden. Copy it to a local directory "
                              f"and name that, or leave --offline out.")  # fmt: skip
    filesystem(f"{scheme}://{place}")
    return RemoteDirectory(f"{scheme}://{place}")


def filesystem(address: str) -> Any:
    """The fsspec file system for an address. Raises MissingExtraError if its package is not installed."""
    scheme = address.partition("://")[0]
    try:
        return _filesystem(scheme, os.getpid())
    except ImportError as error:
        raise MissingExtraError(f'{address} needs the package {SCHEMES[scheme]}, which comes with an extra: pip '
                                f'install "reasonvec[stores]"') from error  # fmt: skip


@cache
def _filesystem(scheme: str, process: int) -> Any:
    """One for all threads of a process, so that they share connections; fsspec itself makes one for each thread."""
    import fsspec  # here for start-up time, and since most runs need none

    return fsspec.filesystem(scheme, use_listings_cache=False)


def asked(question: Callable[[], Answer], address: str, error: type[ReasonvecError] = CheckpointError) -> Answer:
    """What a store answers, asked again after a pause where it may be a passing failure.

    Raises `error` with the reason and the way out.
    """
    for attempt in range(1, TRIES + 1):
        try:
            return question()
        except Exception as fault:
            kind = _kind(fault)
            if kind == "passing" and attempt < TRIES:
                time.sleep(FIRST_PAUSE * 2 ** (attempt - 1))
                continue
            raise error(_reason(kind, fault, address, attempt)) from fault
    raise AssertionError("a last attempt returns or raises")


def _kind(fault: Exception) -> str:
    names = {kind.__name__ for kind in type(fault).__mro__}
    if names & _NO_CREDENTIALS:
        return "credentials"
    if isinstance(fault, FileNotFoundError):
        return "missing"
    status = getattr(getattr(fault, "response", None), "status_code", getattr(fault, "code", None))
    if isinstance(fault, PermissionError) or status in (401, 403):
        return "denied"
    return "passing"


def _reason(kind: str, fault: Exception, address: str, attempts: int) -> str:
    scheme = address.partition("://")[0]
    said = " ".join(str(fault).split())[:300] or type(fault).__name__
    way = _CREDENTIALS.get(scheme, "Give its credentials")
    return {
        "credentials": f"{address} cannot be opened: no credentials for {scheme}:// were found. {way}.",
        "missing": f"{address} does not exist: the store has no such bucket or object ({said}). Check the spelling, "
                   f"and the endpoint and region that are set.",
        "denied": f"{address} cannot be opened: the store denies access ({said}). The credentials in use lack the "
                  f"right to it, have expired, or are another account's. {way}.",
        "passing": f"{address} cannot be reached: {type(fault).__name__}: {said} ({attempts} attempts). Check the "
                   f"connection and the endpoint, then run again.",
    }[kind]  # fmt: skip


def _version(info: Any) -> str | None:
    found = next((info[key] for key in _VERSIONS if info.get(key) is not None), None)
    return None if found is None else str(found).strip('"')


def pinned(directory: RemoteDirectory) -> tuple[RemoteDirectory, str | None]:
    """A place on the Hub at the commit that it has now, so that all of a run reads one version, and the commit; another
    store has neither."""
    if directory.scheme != "hf":
        return directory, None
    from huggingface_hub import HfApi

    def resolve() -> tuple[str, str]:
        place = filesystem(directory.address).resolve_path(directory.address)
        commit = HfApi().repo_info(place.repo_id, repo_type=place.repo_type, revision=place.revision).sha
        kind = "" if place.repo_type == "model" else f"{place.repo_type}s/"
        return f"hf://{kind}{place.repo_id}@{commit}/{place.path_in_repo}".rstrip("/"), str(commit)

    address, commit = asked(resolve, directory.address)
    return RemoteDirectory(address), commit
