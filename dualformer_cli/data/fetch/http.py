"""One file asked of a server: timeouts, redirects, cookies, and the pages that Google Drive shows before large files.

The standard library is enough here. What takes the room, redirects that stay on the web and pages told apart from
files, would have to be written around any HTTP client.
"""

from __future__ import annotations

import ssl
import string
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, Literal
from urllib.error import URLError
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit
from urllib.request import HTTPCookieProcessor, HTTPHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request

MAX_REDIRECTS = 10
MAX_PAGES = 3
MAX_PAGE_BYTES = 1 << 20
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = [
    # Google's pages differ for clients that it does not take for a browser, and their titles for readers' languages.
    ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("Accept-Language", "en-US,en;q=0.8"),
]


OnBytes = Callable[[int, "int | None"], None]
"""Called with the bytes that are there and, when known, the bytes of the whole file."""
FileKind = Literal["any", "checkpoint", "archive", "text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where one file comes from, and how to recognise it."""

    name: str
    """What the user calls it."""
    url: str
    """Address of the bytes."""
    browser_url: str
    """Page where a person fetches the file by hand."""
    drive_page: str | None = None
    """For a file on Google Drive, the page that leads to it. Its bytes then must come as an attachment."""
    minimum_bytes: int = 0
    """A smaller file is not the one that was asked for."""
    num_bytes: int | None = None
    """Exact size, where it is known."""
    md5: str | None = None
    """Hash of the file, where this kind is published."""
    sha256: str | None = None
    """Hash of the file, where one is published."""
    kind: FileKind = "any"
    """What the file must be. A text is anything but a web page or an archive; an archive may be of any kind."""
    by_hand: str | None = None
    """What else a person should know to fetch it by hand."""
    check_certificate: bool = True
    """Whether an https server has to prove that it is the one. Without, whoever sits in between can swap the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a download waits, and how often it tries again."""

    connect_seconds: float = 10.0
    """Time to reach the server."""
    read_seconds: float = 30.0
    """Time without a byte after which the connection is given up."""
    retries: int = 5
    """Further tries after a passing fault; counted anew whenever the file has grown."""
    back_off_seconds: float = 1.0
    """Wait before the first of them; each later one doubles it."""
    longest_wait_seconds: float = 120.0
    """No wait is longer; a server that asks for more is not waited for."""


class TransferError(Exception):
    """A file that did not come.

    Args:
        reason: what happened, in a few words, without the file's name.
        passing: whether trying again can help.
        wait_seconds: how long the server asked to wait.
    """

    def __init__(self, reason: str, *, passing: bool = False, wait_seconds: float | None = None) -> None:
        super().__init__(reason)
        self.passing = passing
        self.wait_seconds = wait_seconds


class CertificateError(TransferError):
    """A server that does not prove who it is."""


class Session:
    """What one download remembers between its requests: cookies, and whether any server was ever reached."""

    def __init__(self, patience: Patience, *, check_certificate: bool = True) -> None:
        self.reached = False
        self._connect_seconds = patience.connect_seconds
        self._opener = OpenerDirector()
        self._opener.addheaders = list(HEADERS)
        for handler in (
            ProxyHandler(),
            _PlainHandler(patience.read_seconds),
            _SecureHandler(patience.read_seconds, _checked_context() if check_certificate else _unchecked_context()),
            HTTPCookieProcessor(),
        ):
            self._opener.add_handler(handler)

    def get(self, address: str, headers: Mapping[str, str]) -> HTTPResponse:
        """Ask for an address and follow redirects; the answer can have any other status.

        Raises:
            TransferError: no answer, too many redirects, or one that leaves the web.
        """
        at = checked_address(quote(address, safe=string.punctuation))
        for _ in range(MAX_REDIRECTS + 1):
            response = self._get_once(at, headers)
            location = response.headers.get("Location")
            if response.status not in REDIRECTS or not location:
                return response
            response.close()
            at = redirected(at, location)
        raise TransferError(f"{urlsplit(address).hostname} redirects in circles (more than {MAX_REDIRECTS} times)")

    def _get_once(self, address: str, headers: Mapping[str, str]) -> HTTPResponse:
        host = urlsplit(address).hostname
        try:
            response: HTTPResponse = self._opener.open(
                Request(address, headers=dict(headers)), timeout=self._connect_seconds
            )
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise CertificateError(
                    f"the certificate of {host} cannot be verified ({_in_words(error.reason)})"
                ) from error
            # An address that was never reached is not tried again: without a network the answer should come at once.
            raise TransferError(
                f"{host} cannot be reached ({_in_words(error.reason)})", passing=self.reached
            ) from error
        except (OSError, HTTPException) as error:
            self.reached = True
            raise TransferError(f"{host} did not answer ({_in_words(error)})", passing=True) from error
        self.reached = True
        return response


class _PlainConnection(HTTPConnection):
    """A connection whose timeout changes once it stands."""

    read_seconds: float

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.read_seconds)


class _SecureConnection(HTTPSConnection):
    """The same over TLS; the handshake is part of connecting."""

    read_seconds: float

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(self.read_seconds)


def _checked_context() -> ssl.SSLContext | None:
    """Return one that asks the system which certificates it trusts, where truststore is installed; else None."""
    try:
        from truststore import SSLContext  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return None
    context: ssl.SSLContext = SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return context


def _unchecked_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _PlainHandler(HTTPHandler):
    """Opens http addresses."""

    def __init__(self, read_seconds: float) -> None:
        super().__init__()
        self._read_seconds = read_seconds

    def http_open(self, req: Request) -> HTTPResponse:
        def connection(host: str, **options: Any) -> HTTPConnection:
            made = _PlainConnection(host, **options)
            made.read_seconds = self._read_seconds
            return made

        return self.do_open(connection, req)


class _SecureHandler(HTTPSHandler):
    """Opens https addresses, with the system's certificates unless another context is given."""

    def __init__(self, read_seconds: float, context: ssl.SSLContext | None) -> None:
        super().__init__(context=context)
        self._read_seconds = read_seconds
        self._given_context = context

    def https_open(self, req: Request) -> HTTPResponse:
        def connection(host: str, **options: Any) -> HTTPSConnection:
            made = _SecureConnection(host, context=self._given_context, **options)
            made.read_seconds = self._read_seconds
            return made

        return self.do_open(connection, req)


def checked_address(address: str) -> str:
    """Return an address that can be asked: http or https, with a host.

    Raises:
        TransferError: any other, such as file:.
    """
    try:
        parts = urlsplit(address)
        is_web = parts.scheme in ("http", "https") and parts.hostname is not None and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web:
        raise TransferError(f"{_shortened(address)!r} is not an http or https address")
    return address


def redirected(address: str, location: str) -> str:
    """Return the address that a redirect, or the form of a page, leads to.

    Raises:
        TransferError: if it leaves the web, or leaves https for http, where anyone on the way could swap the file.
    """
    try:
        # Location headers are decoded as Latin-1, and some servers leave spaces and other bytes in them unquoted.
        target = urljoin(address, quote(location, encoding="iso-8859-1", errors="replace", safe=string.punctuation))
    except ValueError:
        target = location
    checked_address(target)
    if address.startswith("https:") and not target.startswith("https:"):
        raise TransferError(f"redirected from https to the unprotected {_shortened(target)!r}")
    return target


def open_file(session: Session, source: Source, headers: Mapping[str, str]) -> HTTPResponse:
    """Ask for the bytes of a file and answer the pages on the way.

    Args:
        session: cookies and timeouts.
        source: the file.
        headers: Range and If-Range, to go on in the middle.

    Returns:
        The answer, unread, with status 200, 206 or 416.

    Raises:
        TransferError: if a page or an error came instead.
    """
    response = session.get(source.url, headers)
    if _is_file(response, source):
        return response
    page, fault = _read_fault(response)
    if source.drive_page is None or fault.passing:
        raise fault
    response = session.get(source.drive_page, {})  # no Range: it would cut the page
    for _ in range(MAX_PAGES):
        if _is_file(response, source):
            return response
        page, fault = _read_fault(response)
        if fault.passing or page.form_action is None:
            raise fault
        response = session.get(page.form_address(response.url), headers)
    raise TransferError("Google Drive's download form leads to itself")


def _is_file(response: HTTPResponse, source: Source) -> bool:
    """Whether an answer is the file (or the refusal of a range of it), and not a page about it."""
    if response.status == 416:
        return True
    is_attachment = source.drive_page is None or "Content-Disposition" in response.headers
    return response.status in (200, 206) and is_attachment and response.headers.get_content_type() != "text/html"


def _read_fault(response: HTTPResponse) -> tuple[Page, TransferError]:
    """Read an answer that is not the file, close it, and say what it means."""
    try:
        with response:
            text = response.read(MAX_PAGE_BYTES).decode("utf-8", errors="replace")
    except (OSError, HTTPException) as error:
        raise TransferError(f"the connection broke ({_in_words(error)})", passing=True) from error
    page = read_page(text)
    return page, _fault_of(response, page)


def _fault_of(response: HTTPResponse, page: Page) -> TransferError:
    """Say why an answer is not the file: Google's pages often come with status 200, so the title is asked first."""
    host, status, title = urlsplit(response.url).hostname or "", response.status, page.title.lower()
    shown = f"page {_shortened(page.title)!r} from {host}" if page.title else f"status {status} from {host}"
    if "quota" in title or "too many users" in page.caption.lower():
        return TransferError(f"the download quota of the file is used up, wait up to 24 hours ({shown})")
    if status in (408, 429) or status >= 500:
        busy = f"{host} is busy or out of order (status {status})"
        return TransferError(busy, passing=True, wait_seconds=_retry_after(response.headers.get("Retry-After")))
    if (
        status in (401, 403)
        or host.startswith("accounts.")
        or _has(title, "sign in", "sign-in", "access denied", "need access")
    ):
        return TransferError(f"no permission, the file is not shared with everyone ({shown})")
    if status in (404, 410) or _has(title, "not found", "404"):
        return TransferError(f"not found, the file was moved or deleted ({shown})")
    if status in (200, 206):
        caption = f": {_shortened(page.caption)!r}" if page.caption else ""
        return TransferError(f"a web page came instead of the file ({shown}{caption})")
    return TransferError(f"unexpected status {status} from {host}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What matters of a web page that came instead of a file."""

    title: str
    """Text of its title."""
    caption: str
    """Google Drive's explanation of an error."""
    form_action: str | None
    """Address in Google Drive's "download anyway" form; None without one."""
    form_fields: Mapping[str, str]
    """Hidden fields of that form."""

    def form_address(self, page_address: str) -> str:
        """Return what the form asks for, as one address: its action with its own query and the hidden fields."""
        action = redirected(page_address, self.form_action or "")
        parts = urlsplit(action)
        query = {**dict(parse_qsl(parts.query)), **self.form_fields}
        return urlunsplit(parts._replace(query=urlencode(query), fragment=""))


def read_page(text: str) -> Page:
    """Find the title, the error caption and the download form in the text of a page."""
    parser = _PageParser()
    parser.feed(text)
    parser.close()
    return Page(
        title=" ".join(parser.title.split()),
        caption=" ".join(parser.caption.split()),
        form_action=parser.form_action,
        form_fields=parser.form_fields,
    )


class _PageParser(HTMLParser):
    """Collects the parts of a `Page` while it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.title = ""
        self.caption = ""
        self.form_action: str | None = None
        self.form_fields: dict[str, str] = {}
        self._inside = ""
        self._in_form = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "title" and not self.title:
            self._inside = "title"
        elif "uc-error-subcaption" in attributes.get("class", ""):
            self._inside = tag
        elif tag == "form" and attributes.get("id") in ("download-form", "downloadForm"):
            self.form_action, self._in_form = attributes.get("action", ""), True
        elif tag == "input" and self._in_form and attributes.get("type") == "hidden" and attributes.get("name"):
            self.form_fields[attributes["name"]] = attributes.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""
        if tag == "form":
            self._in_form = False

    def handle_data(self, data: str) -> None:
        if self._inside == "title":
            self.title += data
        elif self._inside:
            self.caption += data


def _retry_after(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: a number or a date."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None


def _has(text: str, *words: str) -> bool:
    return any(word in text for word in words)


def _shortened(text: str) -> str:
    """Cut what a server wrote to a length that fits into a message; the caller quotes it."""
    return text if len(text) <= 100 else text[:97] + "..."


def _in_words(error: object) -> str:
    """Return an error of the system in a few words, on one line."""
    if isinstance(error, TimeoutError):
        return "timed out"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return _shortened(" ".join(text.split())) or type(error).__name__
