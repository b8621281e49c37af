//! Request smuggling: every trick that we know of, and what becomes of it, byte by byte at an upstream that is a bare socket.
//!
//! A row is what a client sends, and what we do: refuse it, or forward exactly one request with exactly one framing, under our
//! own `Host`, and nothing after it. After each row two strangers ask on the same pools, and each must get its own answer to
//! its own bytes: nothing of the row was left on a connection.
//!
//! Not here: what upstream sends (`hostile`).

use std::net::SocketAddr;

use tokio::task::JoinSet;

use crate::support::binary::{Binary, sentrybox};
use crate::support::frames::{self, Ends, FIRST, Fate};
use crate::support::raw::{Asked, RawUpstream, Step, converse, dechunked, json, statuses};

/// What becomes of a row.
#[derive(Debug, Clone, Copy)]
enum So {
    /// It is refused with this status, its connection is closed, and upstream hears nothing of it.
    Refused(u16),
    /// It is dropped without a word: its stream or its connection is reset.
    Dropped,
    /// [`LINE`] with this body and no other fields than ours arrives, and is answered.
    Body(&'static str),
    /// This line with these fields and this body arrives, and is answered.
    Forwarded(&'static str, &'static str, &'static str),
    /// Several requests arrive, each whole and one after the other.
    Each(&'static [(&'static str, &'static str, &'static str)]),
    /// [`LINE`] with this length, and at most so much of a body, goes on and breaks off: upstream never sees it whole.
    BrokenOff(u64, &'static str),
    /// It arrives as [`So::Body`] does, but the client is also told to go on, or something else: these statuses.
    Told(&'static [u16], &'static str),
}

use So::{Body, BrokenOff, Dropped, Each, Forwarded, Refused, Told};

/// What most rows begin with.
const LINE: &str = "POST /api/0/row/";
const GET: &str = "GET /api/0/row/";
const START: &[u8] = b"POST /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n";

/// A trick, what follows [`START`], and what becomes of it.
type Row = (&'static str, &'static [u8], So);

/// `Content-Length` against `Transfer-Encoding`.
const FRAMING: &[Row] = &[
    ("a plain request", b"Content-Length: 5\r\n\r\nhello", Body("hello")),
    ("a plain chunked request", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Body("hello")),
    // "Transfer-Encoding overrides the Content-Length", and the connection ends (RFC 9112 §6.3): the G is never read.
    ("CL.TE", b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG", Body("")),
    (
        "CL.TE with a whole request behind it",
        b"Content-Length: 70\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/0/smuggled/ HTTP/1.1\r\nHost: box.example\r\n\r\n",
        Body(""),
    ),
    // What the other reading would take for the next request is this one's body.
    (
        "TE.CL",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n1d\r\nGET /api/0/smuggled/ HTTP/1.1\r\n0\r\n\r\n",
        Body("GET /api/0/smuggled/ HTTP/1.1"),
    ),
    (
        "TE.CL with a whole request",
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n21\r\nGET /api/0/smuggled/ HTTP/1.1\r\n\r\n\r\n0\r\n\r\n",
        Body("GET /api/0/smuggled/ HTTP/1.1\r\n\r\n"),
    ),
    // A coding that is not chunked alone is refused, however it is dressed up.
    ("TE: xchunked", b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE: chunkedx", b"Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE in quotes", b"Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE with a parameter", b"Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE that is empty", b"Content-Length: 5\r\nTransfer-Encoding:\r\n\r\nhello", Refused(400)),
    ("TE: chunked, identity", b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE: identity, chunked", b"Transfer-Encoding: identity, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("TE: gzip, chunked", b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("TE: chunked, chunked", b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE with an empty member", b"Transfer-Encoding: , chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    (
        "TE twice, chunked last",
        b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    (
        "TE twice, chunked first",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        Refused(400),
    ),
    ("TE twice", b"Transfer-Encoding: chunked\r\nTransfer-encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    // Case does not matter (RFC 9112 §7), nor do a space and a tab around a value.
    ("TE in capitals", b"TRANSFER-ENCODING: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Body("hello")),
    ("TE behind a tab", b"Transfer-Encoding:\tchunked \t\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Body("hello")),
    ("TE behind a vertical tab", b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE before a vertical tab", b"Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE before a no-break space", b"Transfer-Encoding: chunked\xa0\r\n\r\n0\r\n\r\n", Refused(400)),
    // "A server MUST reject … any received request message that contains whitespace between a header field name and colon"
    // (RFC 9112 §5.1).
    ("TE with a space before the colon", b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE with a tab before the colon", b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE with a NUL before the colon", b"Transfer-Encoding\x00: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE on the next line", b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    ("TE behind a bare line feed", b"X: y\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Forwarded(LINE, "x: y\r\n", "hello")),
    ("TE behind a bare carriage return", b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    // WSGI would take it for Transfer-Encoding; it goes no further.
    ("TE with an underscore", b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("CL twice and equal", b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("CL twice and not equal", b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", Refused(400)),
    ("CL twice, the first one zero", b"Content-Length: 0\r\nContent-Length: 5\r\n\r\nhello", Refused(400)),
    ("CL as a list of equals", b"Content-Length: 5, 5\r\n\r\nhello", Refused(400)),
    ("CL as a list", b"Content-Length: 5, 6\r\n\r\nhello", Refused(400)),
    ("CL with a plus", b"Content-Length: +5\r\n\r\nhello", Refused(400)),
    ("CL with a minus", b"Content-Length: -0\r\n\r\n", Refused(400)),
    ("CL in hexadecimal", b"Content-Length: 0x5\r\n\r\nhello", Refused(400)),
    ("CL with a fraction", b"Content-Length: 5.0\r\n\r\nhello", Refused(400)),
    ("CL with a separator", b"Content-Length: 1_0\r\n\r\nhellohello", Refused(400)),
    ("CL with a space in it", b"Content-Length: 5 5\r\n\r\nhello", Refused(400)),
    ("CL in other digits", "Content-Length: \u{665}\r\n\r\nhello".as_bytes(), Refused(400)),
    ("CL among spaces", b"Content-Length:  5 \t\r\n\r\nhello", Body("hello")),
    ("CL with zeros before it", b"Content-Length: 0005\r\n\r\nhello", Body("hello")),
    ("CL that is empty", b"Content-Length:\r\n\r\nhello", Refused(400)),
    ("CL beyond 64 bits", b"Content-Length: 18446744073709551621\r\n\r\nhello", Refused(400)),
    ("CL at the end of 64 bits", b"Content-Length: 18446744073709551615\r\n\r\nhello", Refused(431)),
    ("CL with a space before the colon", b"Content-Length: 5\r\nContent-Length : 6\r\n\r\nhello", Refused(400)),
    ("CL with an underscore", b"Content_Length: 0\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    // A body that is shorter than it says never looks whole upstream, either.
    ("CL that is too long", b"Content-Length: 9\r\n\r\nhello", BrokenOff(9, "hello")),
    // What is longer is the next request, and that is refused for itself.
    ("CL that is too short", b"Content-Length: 5\r\n\r\nhelloGET /api/0/smuggled/ HTTP/1.1\r\n\r\n", Told(&[200, 400], "hello")),
];

/// Chunks.
const CHUNKS: &[Row] = &[
    ("zeros before a size", b"Transfer-Encoding: chunked\r\n\r\n00005\r\nhello\r\n000\r\n\r\n", Body("hello")),
    ("a size in capitals", b"Transfer-Encoding: chunked\r\n\r\nA\r\nhellohello\r\n0\r\n\r\n", Body("hellohello")),
    ("space behind a size", b"Transfer-Encoding: chunked\r\n\r\n5 \t\r\nhello\r\n0\r\n\r\n", Body("hello")),
    ("space before a size", b"Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size beyond 64 bits", b"Transfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size that is negative", b"Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size with a plus", b"Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size with 0x", b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size with an underscore", b"Transfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("no size", b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size that is none", b"Transfer-Encoding: chunked\r\n\r\nfive\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size behind a bare line feed", b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", Refused(400)),
    ("a size behind a bare carriage return", b"Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n", Refused(400)),
    ("a chunk ended by a bare line feed", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", Refused(400)),
    ("a chunk that is longer than its size", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n0\r\n\r\n", Refused(400)),
    ("a chunk that is shorter than its size", b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("no last chunk", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", Refused(400)),
    ("half a last chunk", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", Refused(400)),
    ("an end by bare line feeds", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\n\n", Refused(400)),
    // An extension is nobody's business but the neighbour's, and goes no further.
    ("an extension", b"Transfer-Encoding: chunked\r\n\r\n5;a=b;c=\"d;e\"\r\nhello\r\n0;x\r\n\r\n", Body("hello")),
    ("an extension with a bare line feed", b"Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", Refused(400)),
    // Quoted or not, the line ends there: the x" is data, and the chunk is then too long.
    ("an extension with a quoted line end", b"Transfer-Encoding: chunked\r\n\r\n5;a=\"\r\nx\"\r\nhello\r\n0\r\n\r\n", Refused(400)),
    ("an extension with a bare carriage return", b"Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", Refused(400)),
    // Trailers are let go, whatever they say.
    (
        "trailers that must not be",
        b"Transfer-Encoding: chunked\r\nTrailer: Host\r\n\r\n5\r\nhello\r\n0\r\nContent-Length: 99\r\nHost: evil.example\r\n\
          Authorization: Bearer sntryu_other\r\nTransfer-Encoding: chunked\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n",
        Body("hello"),
    ),
    ("a trailer that is none", b"Transfer-Encoding: chunked\r\n\r\n0\r\nno colon\r\n\r\n", Refused(400)),
    ("a trailer on two lines", b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n c\r\n\r\n", Refused(400)),
];

/// Fields.
const FIELDS: &[Row] = &[
    // "A server … MUST either reject the message … or replace each received obs-fold" (RFC 9112 §5.2).
    ("a value on two lines", b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a value on two lines, by a tab", b"X-A: b\r\n\tContent-Length: 5\r\n\r\n", Refused(400)),
    ("a bare carriage return in a value", b"X-A: b\rc\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a NUL in a value", b"X-A: b\x00c\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a control character in a value", b"X-A: b\x1fc\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a DEL in a value", b"X-A: b\x7fc\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a NUL in a name", b"X-\x00A: b\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a space in a name", b"X A: b\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("a letter in a name that is no ASCII", b"X-\xc3\xa9: b\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("no name", b": b\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("no colon", b"X-A\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    // "A server that receives … MAY recognize a single LF as a line terminator" (RFC 9112 §2.2); what goes on has both.
    ("bare line feeds", b"X-A: b\nContent-Length: 5\n\nhello", Forwarded(LINE, "x-a: b\r\n", "hello")),
    ("an empty value", b"X-A:\r\nX-B: \t \r\nContent-Length: 5\r\n\r\nhello", Forwarded(LINE, "x-b: \r\nx-a: \r\n", "hello")),
    ("a second Host", b"Host: box.example\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("another Host", b"Host: evil.example\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    ("two credentials", b"Authorization: Bearer sntryu_a\r\nAuthorization: Bearer sntryu_b\r\nContent-Length: 0\r\n\r\n", Refused(400)),
    // Several fields would be one list to some, the last one to others (RFC 9113 §8.2.3).
    ("cookies in two fields", b"Cookie: a=1\r\nCookie: b=2\r\nContent-Length: 5\r\n\r\nhello", Forwarded(LINE, "cookie: a=1; b=2\r\n", "hello")),
    // What "Connection" names is about this connection, even a credential; what we need, we have read before.
    ("Connection: Authorization", b"Connection: Authorization\r\nAuthorization: Bearer sntryu_a\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("Connection: Host", b"Connection: Host\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("Connection: Content-Length", b"Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("Connection: Transfer-Encoding", b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Body("hello")),
    ("Connection: Via", b"Connection: Via\r\nVia: 1.1 sentrybox (a)\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("Connection: close, X-A", b"Connection: close, X-A\r\nX-A: b\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    (
        "fields about this connection",
        b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nTrailer: X-A\r\nProxy-Authorization: Basic YTpi\r\n\
          Content-Length: 5\r\n\r\nhello",
        Body("hello"),
    ),
    // Nothing is upgraded, so nothing that follows is anything but HTTP/1.1.
    ("Upgrade: h2c", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("Upgrade: h2c, not named", b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    (
        "Upgrade: websocket",
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 5\r\n\r\nhello",
        Forwarded(LINE, "sec-websocket-version: 13\r\n", "hello"),
    ),
    // What was admitted is what the first line says.
    (
        "another method or target in a field",
        b"X-HTTP-Method: DELETE\r\nX-HTTP-Method-Override: DELETE\r\nX-Method-Override: DELETE\r\nX-Original-URL: /api/0/smuggled/\r\n\
          X-Rewrite-URL: /api/0/smuggled/\r\nContent-Length: 5\r\n\r\nhello",
        Body("hello"),
    ),
    (
        "a way here that was not",
        b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /x\r\n\
          Forwarded: for=1.2.3.4;host=evil.example\r\nX-Real-IP: 1.2.3.4\r\nX-Host: evil.example\r\nX-Original-Host: evil.example\r\n\
          Proxy: http://evil.example\r\nX_Forwarded_For: 1.2.3.4\r\nX-Forwarded_For: 1.2.3.4\r\nContent-Length: 5\r\n\r\nhello",
        Body("hello"),
    ),
    // We say ourselves whether the body is wanted; "any other expectation" may be ignored (RFC 9110 §10.1.1).
    ("Expect: 100-continue", b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", Told(&[100, 200], "hello")),
    ("Expect: 100-continue with chunks", b"Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Told(&[100, 200], "hello")),
    ("Expect: 100-continue without a body", b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n", Body("")),
    ("Expect of something else", b"Expect: 100-continue-obfs\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("two expectations", b"Expect: 100-continue\r\nExpect: y\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
];

/// Whole requests.
const LINES: &[Row] = &[
    ("no Host", b"GET /api/0/row/ HTTP/1.1\r\n\r\n", Refused(400)),
    ("an empty Host", b"GET /api/0/row/ HTTP/1.1\r\nHost:\r\n\r\n", Refused(400)),
    ("a Host with userinfo", b"GET /api/0/row/ HTTP/1.1\r\nHost: a@box.example\r\n\r\n", Refused(400)),
    ("a Host with a path", b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example/x\r\n\r\n", Refused(400)),
    ("a Host that is a list", b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example, evil.example\r\n\r\n", Refused(400)),
    ("a Host with a space before the colon", b"GET /api/0/row/ HTTP/1.1\r\nHost : box.example\r\n\r\n", Refused(400)),
    ("a Host behind a space", b"GET /api/0/row/ HTTP/1.1\r\n Host: evil.example\r\nHost: box.example\r\n\r\n", Refused(400)),
    // The target wins over Host (RFC 9112 §3.2.2); upstream gets neither.
    ("an absolute target", b"GET http://box.example/api/0/row/?a=b HTTP/1.1\r\nHost: evil.example\r\nX-Request-Id: row\r\n\r\n", Forwarded("GET /api/0/row/?a=b", "", "")),
    ("an absolute target of https", b"GET HTTPS://box.example/api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n", Forwarded(GET, "", "")),
    ("an absolute target of another scheme", b"GET ftp://box.example/api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("an absolute target with userinfo", b"GET http://a:b@box.example/api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("an absolute target without a path", b"GET http://box.example HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(404)),
    ("an absolute target, no Host", b"GET http://box.example/api/0/row/ HTTP/1.1\r\n\r\n", Refused(400)),
    ("an absolute target without a scheme", b"GET //box.example/api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("an authority as target", b"GET box.example:80 HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(404)),
    ("an asterisk as target", b"OPTIONS * HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("CONNECT", b"CONNECT box.example:443 HTTP/1.1\r\nHost: box.example:443\r\n\r\n", Refused(405)),
    ("TRACE", b"TRACE /api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(405)),
    // A fragment is the client's own, and goes no further.
    ("a fragment", b"GET /api/0/row/?a=b#c HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n", Forwarded("GET /api/0/row/?a=b", "", "")),
    ("a space in the target", b"GET /api/0/row/ x HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a request in the target", b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX: GET /api/0/smuggled/ HTTP/1.1\r\nX-Request-Id: row\r\n\r\n", Forwarded(GET, "x: GET /api/0/smuggled/ HTTP/1.1\r\n", "")),
    ("a tab in the target", b"GET /api/0/row/\tx HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a tab before the target", b"GET\t/api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("two spaces before the target", b"GET  /api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("two spaces behind the target", b"GET /api/0/row/  HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a space before the method", b" GET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a bare carriage return in the target", b"GET /api/0/row/\rX HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a NUL in the target", b"GET /api/0/row/\x00 HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a first line on two lines", b"GET /api/0/row/\r\n HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("%00 in the path", b"GET /api/0/row%00/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("%0d%0a in the path", b"GET /api/0/row/%0d%0aX:%20y/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    // In the query it is data; it stays spelled as it is.
    ("%0d%0a in the query", b"GET /api/0/row/?a=%0d%0aX:%20y%00 HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n", Forwarded("GET /api/0/row/?a=%0d%0aX:%20y%00", "", "")),
    ("dot segments", b"GET /api/0/row/../../smuggled/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("dot segments in escapes", b"GET /api/0/row/%2e%2e%2f%2e%2e/smuggled/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a backslash", b"GET /api/0/row/..\\smuggled/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("letters that are no ASCII", "GET /api/0/row/?a=\u{e9} HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n".as_bytes(), Forwarded("GET /api/0/row/?a=\u{e9}", "", "")),
    ("bytes that are no UTF-8", b"GET /api/0/row/?a=\xe9 HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    // Methods are case-sensitive: it is no GET to us, and none to upstream.
    ("a method in small letters", b"get /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n", Forwarded("get /api/0/row/", "", "")),
    ("a method that is none", b"GE(T /api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("a method with a request in it", b"GET\r\nX: /api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("HTTP/0.9", b"GET /api/0/row/\r\n", Refused(400)),
    ("HTTP/1.2", b"GET /api/0/row/ HTTP/1.2\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("HTTP/1.10", b"GET /api/0/row/ HTTP/1.10\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("HTTP/2.0", b"GET /api/0/row/ HTTP/2.0\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("http/1.1", b"GET /api/0/row/ http/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("half of HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nGET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\n\r\n", Refused(400)),
    ("empty lines before the first", b"\r\n\r\nGET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n", Forwarded(GET, "", "")),
    ("HTTP/1.0", b"POST /api/0/row/ HTTP/1.0\r\nHost: box.example\r\nX-Request-Id: row\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("HTTP/1.0 without Host", b"GET /api/0/row/ HTTP/1.0\r\n\r\n", Refused(400)),
    ("HTTP/1.0 with chunks", b"POST /api/0/row/ HTTP/1.0\r\nHost: box.example\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Refused(400)),
    // "A server that receives a 100-continue expectation in an HTTP/1.0 request MUST ignore that" (RFC 9110 §10.1.1).
    ("HTTP/1.0 that expects", b"POST /api/0/row/ HTTP/1.0\r\nHost: box.example\r\nX-Request-Id: row\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello", Body("hello")),
    ("a hundred and one fields", b"", Refused(431)),
    ("a target of 20 KB", b"", Refused(414)),
    ("a target of 70 KB", b"", Refused(431)),
    ("a head of 70 KB", b"", Refused(431)),
    // A body is a body, whatever the method; the next request begins behind it.
    ("GET with a body", b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nContent-Length: 5\r\n\r\nhello", Forwarded(GET, "", "hello")),
    ("GET with chunks", b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", Forwarded(GET, "", "hello")),
    (
        "GET with a request as its body",
        b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nContent-Length: 32\r\n\r\nGET /api/0/smuggled/ HTTP/1.1\r\n\r\nGET /api/0/next/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n",
        Each(&[(GET, "", "GET /api/0/smuggled/ HTTP/1.1\r\n\r"), ("GET /api/0/next/", "", "")]),
    ),
    (
        "HEAD with a body, and the next request",
        b"HEAD /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nContent-Length: 5\r\n\r\nhelloGET /api/0/next/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n",
        Each(&[("HEAD /api/0/row/", "", "hello"), ("GET /api/0/next/", "", "")]),
    ),
    (
        "DELETE with chunks, and the next request",
        b"DELETE /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nGET /api/0/next/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n",
        Each(&[("DELETE /api/0/row/", "", "hello"), ("GET /api/0/next/", "", "")]),
    ),
    (
        "GET without a body, and the next request",
        b"GET /api/0/row/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\nGET /api/0/next/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\n\r\n",
        Each(&[(GET, "", ""), ("GET /api/0/next/", "", "")]),
    ),
];

/// A proxy before a bare socket, and what it calls itself.
struct Stage {
    upstream: RawUpstream,
    binary: Binary,
    via: String,
}

impl Stage {
    async fn set() -> Self {
        let upstream = RawUpstream::start(told).await;
        let mut command = sentrybox();
        command.args(["--upstream", &format!("http://{}", upstream.address)]);
        command.env("SENTRYBOX_BUDGET__ENABLED", "false");
        let binary = Binary::start(command);
        let mut stage = Self { upstream, binary, via: String::new() };
        canary(stage.address(), "POST", 0).await;
        let first = String::from_utf8(stage.upstream.take()).unwrap();
        let (_, via) = first.split_once("via: 1.1 ").unwrap();
        via.split("\r\n").next().unwrap().clone_into(&mut stage.via);
        stage
    }

    fn address(&self) -> SocketAddr {
        self.binary.address
    }

    /// Returns the bytes that arrive when a request goes on.
    fn arrives(&self, (line, fields, body): (&str, &str, &str), version: &str) -> String {
        let host = format!("host: {}\r\n", self.upstream.address);
        let rest = match (body, line.starts_with("POST")) {
            ("", false) => host,
            ("", true) => format!("content-length: 0\r\n{host}"),
            (body, _) => format!("{host}content-length: {}\r\n", body.len()),
        };
        format!(
            "{line} HTTP/1.1\r\n{fields}via: {version} {}\r\nx-request-id: row\r\n{rest}\r\n{body}",
            self.via
        )
    }

    /// Returns what is wrong with the next requests on both pools: each must be whole, all that arrives, and get its own answer.
    async fn canaries(&self, number: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        for method in ["GET", "POST"] {
            let line = format!("{method} /api/0/canary/{number}/");
            let answer = canary(self.address(), method, number).await;
            let is_own = answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with(&asked_for(&line));
            let (arrived, expected) = (self.arrived(), self.arrives((&line, "", ""), "1.1"));
            if !is_own || arrived != expected {
                wrong.push(format!("the next request got {answer:?}, and {arrived:?} arrived"));
            }
        }
        wrong
    }

    fn arrived(&self) -> String {
        String::from_utf8_lossy(&self.upstream.take()).into_owned()
    }

    /// Returns what is wrong with what came back and with what arrived, given what a row says.
    fn judge(&self, so: So, (answered, version): (&[u16], &str)) -> Option<String> {
        let arrived = self.arrived();
        let each = |requests: &[(&str, &str, &str)]| {
            requests.iter().map(|request| self.arrives(*request, version)).collect::<String>()
        };
        let (statuses, expected) = match so {
            Refused(status) => (vec![status], String::new()),
            Dropped => (Vec::new(), String::new()),
            Body(body) => (vec![200], each(&[(LINE, "", body)])),
            Forwarded(line, fields, body) => (vec![200], each(&[(line, fields, body)])),
            Each(requests) => (vec![200; requests.len()], each(requests)),
            Told(statuses, body) => (statuses.to_vec(), each(&[(LINE, "", body)])),
            BrokenOff(length, body) => {
                let announced = format!("content-length: {}\r\n", body.len());
                let whole = self.arrives((LINE, "", body), version);
                let most = whole.replace(&announced, &format!("content-length: {length}\r\n"));
                let is_so = most.starts_with(&arrived) && !answered.contains(&200);
                return (!is_so).then(|| format!("{answered:?} came back, and {arrived:?} arrived"));
            }
        };
        (answered != statuses || arrived != expected).then(|| {
            format!(
                "{answered:?} came back and not {statuses:?}, or {arrived:?} arrived and not {expected:?}"
            )
        })
    }
}

/// Fails with all that is wrong with a table.
fn assert_right(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Returns the body of the answer to a request's first line.
fn asked_for(line: &str) -> String {
    format!("{{\"asked\":\"{line}\"}}")
}

/// Asks as a stranger, on the pool of this method, and returns what came back.
async fn canary(address: SocketAddr, method: &str, number: usize) -> String {
    let request = format!(
        "{method} /api/0/canary/{number}/ HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    String::from_utf8(converse(address, request.as_bytes()).await).unwrap()
}

/// Answers a request with what it asked for.
fn told(asked: &Asked) -> Vec<Step> {
    let body = asked_for(asked.line());
    let mut answer = json(&body);
    if asked.line().starts_with("HEAD ") {
        answer.truncate(answer.len() - body.len());
    }
    vec![Step::Read, Step::Write(answer)]
}

/// Fails unless each row of a table, behind a beginning, becomes what it says.
async fn check(table: &[Row], start: &[u8]) {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    for (number, (trick, rest, so)) in table.iter().enumerate() {
        let sent = [start, &grown(trick, rest)].concat();
        let answer = converse(stage.address(), &sent).await;
        let version = if sent.windows(9).any(|window| window == b" HTTP/1.0") { "1.0" } else { "1.1" };
        let mut found = Vec::from_iter(stage.judge(*so, (&statuses(&answer), version)));
        if let Refused(_) = so {
            found.extend(judge_refusal(&answer));
        }
        found.extend(stage.canaries(number + 1).await);
        wrong.extend(found.into_iter().map(|found| format!("{trick}: {found}")));
    }
    assert_right(&wrong);
}

/// Returns what is wrong with a refusal: it is in the shape of ours, or has no body at all. Its connection has ended, or it would
/// not be here.
fn judge_refusal(answer: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(answer).into_owned();
    let (_, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let detail = serde_json::from_str::<serde_json::Value>(body).map(|body| body["detail"].is_string());
    let is_plain = text.ends_with("\r\n\r\n");
    (!is_plain && !detail.is_ok_and(|is_there| is_there)).then(|| format!("refused by {text:?}"))
}

/// Returns what a row sends: itself, or what is too large to stand in a table.
fn grown(trick: &str, sent: &[u8]) -> Vec<u8> {
    let head = |target: &str, fields: &str| {
        format!("GET {target} HTTP/1.1\r\nHost: box.example\r\n{fields}\r\n").into_bytes()
    };
    match trick {
        "a hundred and one fields" => head("/api/0/row/", &"X-A: b\r\n".repeat(100)),
        "a target of 20 KB" => head(&format!("/api/0/{}/", "r".repeat(20_000)), ""),
        "a target of 70 KB" => head(&format!("/api/0/{}/", "r".repeat(70_000)), ""),
        "a head of 70 KB" => head("/api/0/row/", &format!("X-A: {}\r\n", "b".repeat(70_000))),
        _ => sent.to_vec(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_framed_in_one_way_or_refused() {
    check(FRAMING, START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_are_read_in_one_way_or_refused() {
    check(CHUNKS, START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_are_read_in_one_way_or_refused() {
    check(FIELDS, START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_read_in_one_way_or_refused() {
    check(LINES, b"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_to_be_read_ahead_is_chunked_anew_without_its_trailers() {
    let stage = Stage::set().await;
    // Nothing in it may look like an end.
    let body = "hello, ".repeat(200_000);
    for (number, line) in [LINE, GET].into_iter().enumerate() {
        let sent = format!(
            "{line} HTTP/1.1\r\nHost: box.example\r\nX-Request-Id: row\r\nTransfer-Encoding: chunked\r\n\r\n{:x};a=b\r\n{body}\r\n0\r\n\
             Content-Length: 0\r\nHost: evil.example\r\n\r\n",
            body.len()
        );
        assert_eq!(statuses(&converse(stage.address(), sent.as_bytes()).await), [200], "{line}");
        let arrived = String::from_utf8(stage.upstream.take()).unwrap();
        let (head, chunks) = arrived.split_once("\r\n\r\n").unwrap();
        let mut fields: Vec<_> = head.split("\r\n").skip(1).collect();
        fields.sort_unstable();
        let host = format!("host: {}", stage.upstream.address);
        let via = format!("via: 1.1 {}", stage.via);
        assert_eq!(
            fields,
            [host.as_str(), "transfer-encoding: chunked", &via, "x-request-id: row"],
            "{line}"
        );
        assert!(dechunked(chunks.as_bytes()) == (body.clone().into_bytes(), true), "{line}: another body");
        assert_right(&stage.canaries(number).await);
    }
}

/// A trick over HTTP/2, its fields, its frames of data, and what becomes of it.
type Row2 = (&'static str, frames::Fields<'static>, &'static [&'static [u8]], So);

const METHOD: (&[u8], &[u8]) = (b":method", b"POST");
const SCHEME: (&[u8], &[u8]) = (b":scheme", b"http");
const AUTHORITY: (&[u8], &[u8]) = (b":authority", b"box.example");
const PATH: (&[u8], &[u8]) = (b":path", b"/api/0/row/");
const ID: (&[u8], &[u8]) = (b"x-request-id", b"row");
const HELLO: &[&[u8]] = &[b"hello"];

/// What cannot be in HTTP/1.1 and would be something else there.
const DOWNGRADES: &[Row2] = &[
    ("a plain request", &[METHOD, SCHEME, AUTHORITY, PATH, ID], HELLO, Body("hello")),
    ("no data", &[METHOD, SCHEME, AUTHORITY, PATH, ID], &[b""], Body("")),
    (
        "a length that is true",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"5")],
        HELLO,
        Body("hello"),
    ),
    // H2.CL: the length is checked against the data (RFC 9113 §8.1.1); ours is the one that was counted.
    (
        "a length that is too short",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"3")],
        HELLO,
        BrokenOff(3, "h"),
    ),
    (
        "a length that is too short, by and by",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"3")],
        &[b"he", b"l", b"lo"],
        BrokenOff(3, "he"),
    ),
    (
        "a length that is too long",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"9")],
        HELLO,
        BrokenOff(9, "hello"),
    ),
    (
        "a length of nothing",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"0")],
        &[b"GET /api/0/smuggled/ HTTP/1.1\r\n\r\n"],
        Dropped,
    ),
    (
        "two lengths",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"5"), (b"content-length", b"6")],
        HELLO,
        Dropped,
    ),
    (
        "two equal lengths",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"5"), (b"content-length", b"5")],
        HELLO,
        Body("hello"),
    ),
    (
        "a list of lengths",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"5, 5")],
        HELLO,
        Dropped,
    ),
    (
        "a length with a plus",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content-length", b"+5")],
        HELLO,
        Dropped,
    ),
    (
        "a length with an underscore",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"content_length", b"0")],
        HELLO,
        Body("hello"),
    ),
    // H2.TE: "an endpoint MUST NOT generate an HTTP/2 message containing connection-specific header fields" (RFC 9113 §8.2.2).
    (
        "transfer-encoding",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"transfer-encoding", b"chunked")],
        &[b"0\r\n\r\nGET /api/0/smuggled/ HTTP/1.1\r\n\r\n"],
        Dropped,
    ),
    ("connection", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"connection", b"x-a")], HELLO, Dropped),
    ("keep-alive", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"keep-alive", b"5")], HELLO, Dropped),
    (
        "proxy-connection",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"proxy-connection", b"close")],
        HELLO,
        Dropped,
    ),
    ("upgrade", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"upgrade", b"websocket")], HELLO, Dropped),
    ("te: gzip", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"te", b"gzip")], HELLO, Dropped),
    ("te: trailers", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"te", b"trailers")], HELLO, Body("hello")),
    ("expect", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"expect", b"100-continue")], HELLO, Body("hello")),
    // A field that is none in HTTP/1.1 is none here (RFC 9113 §8.2.1).
    (
        "a line end in a value",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"x-a", b"b\r\ntransfer-encoding: chunked")],
        HELLO,
        Dropped,
    ),
    ("a line feed in a value", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"x-a", b"b\nx: y")], HELLO, Dropped),
    (
        "a carriage return in a value",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"x-a", b"b\rx: y")],
        HELLO,
        Dropped,
    ),
    ("a NUL in a value", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"x-a", b"b\x00c")], HELLO, Dropped),
    (
        "a line end in a name",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"x-a: b\r\ntransfer-encoding", b"chunked")],
        HELLO,
        Dropped,
    ),
    (
        "a colon in a name",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"transfer-encoding:x", b"chunked")],
        HELLO,
        Dropped,
    ),
    (
        "a space in a name",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"transfer-encoding ", b"chunked")],
        HELLO,
        Dropped,
    ),
    ("a NUL in a name", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"x-\x00a", b"b")], HELLO, Dropped),
    (
        "a name in capitals",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"Transfer-Encoding", b"chunked")],
        HELLO,
        Dropped,
    ),
    ("no name", &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"", b"b")], HELLO, Dropped),
    (
        "cookies in two fields",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID, (b"cookie", b"a=1"), (b"cookie", b"b=2")],
        HELLO,
        Forwarded(LINE, "cookie: a=1; b=2\r\n", "hello"),
    ),
    (
        "a space in the path",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/api/0/row/ HTTP/1.1\r\nX: y"), ID],
        HELLO,
        Dropped,
    ),
    (
        "a second request in the path",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/api/0/row/ HTTP/1.1"), ID],
        HELLO,
        Dropped,
    ),
    (
        "an absolute path",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"http://evil.example/api/0/row/"), ID],
        HELLO,
        Dropped,
    ),
    ("a path without its slash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"api/0/row/"), ID], HELLO, Dropped),
    ("an empty path", &[METHOD, SCHEME, AUTHORITY, (b":path", b""), ID], HELLO, Dropped),
    (
        "an asterisk as path",
        &[(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*"), ID],
        HELLO,
        Refused(400),
    ),
    ("two paths", &[METHOD, SCHEME, AUTHORITY, PATH, (b":path", b"/api/0/smuggled/"), ID], HELLO, Dropped),
    ("no path", &[METHOD, SCHEME, AUTHORITY, ID], HELLO, Dropped),
    ("a fragment", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/api/0/row/#x"), ID], HELLO, Body("hello")),
    (
        "dot segments",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/api/0/row/../smuggled/"), ID],
        HELLO,
        Refused(400),
    ),
    // Either names the host; both must name the same (RFC 9113 §8.3.1).
    (
        "an authority and the same host",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"box.example"), ID],
        HELLO,
        Body("hello"),
    ),
    (
        "an authority and another host",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"evil.example"), ID],
        HELLO,
        Refused(400),
    ),
    ("a host alone", &[METHOD, SCHEME, PATH, (b"host", b"box.example"), ID], HELLO, Body("hello")),
    (
        "two hosts",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"box.example"), (b"host", b"box.example"), ID],
        HELLO,
        Refused(400),
    ),
    ("no authority", &[METHOD, SCHEME, PATH, ID], HELLO, Refused(400)),
    (
        "two authorities",
        &[METHOD, SCHEME, AUTHORITY, (b":authority", b"evil.example"), PATH, ID],
        HELLO,
        Dropped,
    ),
    (
        "an authority with userinfo",
        &[METHOD, SCHEME, (b":authority", b"a@box.example"), PATH, ID],
        HELLO,
        Refused(400),
    ),
    (
        "an authority with a line end",
        &[METHOD, SCHEME, (b":authority", b"box.example\r\nX: y"), PATH, ID],
        HELLO,
        Dropped,
    ),
    (
        "an authority with a path",
        &[METHOD, SCHEME, (b":authority", b"box.example/x"), PATH, ID],
        HELLO,
        Dropped,
    ),
    (
        "a request as method",
        &[(b":method", b"GET /api/0/smuggled/ HTTP/1.1\r\n\r\nPOST"), SCHEME, AUTHORITY, PATH, ID],
        HELLO,
        Dropped,
    ),
    (
        "a space in the method",
        &[(b":method", b"POST /api/0/smuggled/"), SCHEME, AUTHORITY, PATH, ID],
        HELLO,
        Dropped,
    ),
    ("no method", &[SCHEME, AUTHORITY, PATH, ID], HELLO, Dropped),
    ("CONNECT", &[(b":method", b"CONNECT"), AUTHORITY, ID], HELLO, Refused(405)),
    (
        "CONNECT to a protocol",
        &[(b":method", b"CONNECT"), (b":protocol", b"websocket"), SCHEME, AUTHORITY, PATH, ID],
        HELLO,
        Dropped,
    ),
    ("another scheme", &[METHOD, (b":scheme", b"ftp"), AUTHORITY, PATH, ID], HELLO, Refused(400)),
    (
        "a URL as scheme",
        &[METHOD, (b":scheme", b"http://evil.example/?"), AUTHORITY, PATH, ID],
        HELLO,
        Dropped,
    ),
    ("a scheme with a space", &[METHOD, (b":scheme", b"http x"), AUTHORITY, PATH, ID], HELLO, Dropped),
    ("no scheme", &[METHOD, AUTHORITY, PATH, ID], HELLO, Dropped),
    ("a pseudo-field behind others", &[METHOD, SCHEME, AUTHORITY, ID, PATH], HELLO, Dropped),
    ("a pseudo-field that is none", &[METHOD, SCHEME, AUTHORITY, PATH, (b":x", b"y"), ID], HELLO, Dropped),
    ("a status", &[METHOD, SCHEME, AUTHORITY, PATH, (b":status", b"200"), ID], HELLO, Dropped),
    // Data is data.
    (
        "a request as data",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID],
        &[b"GET /api/0/smuggled/ HTTP/1.1\r\n", b"Host: x\r\n\r\n"],
        Body("GET /api/0/smuggled/ HTTP/1.1\r\nHost: x\r\n\r\n"),
    ),
    (
        "a last chunk as data",
        &[METHOD, SCHEME, AUTHORITY, PATH, ID],
        &[b"0\r\n\r\n", b"GET /api/0/smuggled/ HTTP/1.1\r\n\r\n"],
        Body("0\r\n\r\nGET /api/0/smuggled/ HTTP/1.1\r\n\r\n"),
    ),
    (
        "GET with data",
        &[(b":method", b"GET"), SCHEME, AUTHORITY, PATH, ID],
        HELLO,
        Forwarded(GET, "", "hello"),
    ),
];

/// What may come behind the data.
const TRAILERS: &[(&str, frames::Fields<'static>, So)] = &[
    (
        "trailers that must not be",
        &[(b"content-length", b"0"), (b"host", b"evil.example"), (b"authorization", b"Bearer x")],
        Body("hello"),
    ),
    ("transfer-encoding in trailers", &[(b"transfer-encoding", b"chunked")], Dropped),
    // The library lets it go by itself.
    ("a pseudo-field in trailers", &[(b":path", b"/api/0/smuggled/")], Body("hello")),
    ("a line end in trailers", &[(b"x-a", b"b\r\n\r\nGET /api/0/smuggled/ HTTP/1.1")], Dropped),
];

/// Returns what is wrong with what becomes of frames.
async fn judge_frames(stage: &Stage, (trick, number): (&str, usize), frames: &[u8], so: So) -> Vec<String> {
    let answered = match frames::converse(stage.address(), frames).await {
        Fate::Answered(status) => vec![status],
        Fate::Broken => Vec::new(),
        Fate::Left => vec![0],
    };
    let mut found = Vec::from_iter(stage.judge(so, (&answered, "2")));
    found.extend(stage.canaries(number + 1).await);
    found.into_iter().map(|found| format!("{trick}: {found}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_2_cannot_say_in_http_1_1_is_refused() {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    for (number, (trick, fields, parts, so)) in DOWNGRADES.iter().enumerate() {
        let mut sent = frames::headers(FIRST, fields, Ends::No);
        for (place, data) in parts.iter().enumerate() {
            let is_last = place + 1 == parts.len();
            sent.extend(frames::data(FIRST, data, if is_last { Ends::Yes } else { Ends::No }));
        }
        wrong.extend(judge_frames(&stage, (trick, number), &sent, *so).await);
    }
    assert_right(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_http_2_go_no_further() {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    for (number, (trick, trailers, so)) in TRAILERS.iter().enumerate() {
        let head = frames::headers(FIRST, &[METHOD, SCHEME, AUTHORITY, PATH, ID], Ends::No);
        let sent =
            [head, frames::data(FIRST, b"hello", Ends::No), frames::headers(FIRST, trailers, Ends::Yes)]
                .concat();
        wrong.extend(judge_frames(&stage, (trick, number), &sent, *so).await);
    }
    assert_right(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_stream_is_reset_is_never_taken_for_a_whole_one() {
    let stage = Stage::set().await;
    let mut wrong = Vec::new();
    // NO_ERROR is no end, and neither is CANCEL.
    for (number, code) in [0_u32, 8].into_iter().enumerate() {
        let next = [(&b":method"[..], &b"GET"[..]), SCHEME, AUTHORITY, (b":path", b"/api/0/next/"), ID];
        let sent = [
            frames::headers(FIRST, &[METHOD, SCHEME, AUTHORITY, PATH, ID], Ends::No),
            frames::data(FIRST, b"hel", Ends::No),
            frames::frame(frames::RESET, 0, FIRST, &code.to_be_bytes()),
            frames::headers(FIRST + 2, &next, Ends::Yes),
        ];
        let so = Forwarded("GET /api/0/next/", "", "");
        wrong.extend(judge_frames(&stage, ("a reset", number), &sent.concat(), so).await);
    }
    assert_right(&wrong);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_at_the_same_time_never_get_each_others_answers() {
    let stage = Stage::set().await;
    let address = stage.address();
    let mut crowd = JoinSet::new();
    for number in 0..64 {
        crowd.spawn(async move {
            let method = if number % 2 == 0 { "GET" } else { "POST" };
            let answer = canary(address, method, number).await;
            assert!(answer.contains(&format!("{method} /api/0/canary/{number}/")), "{answer}");
            converse(address, &[START, b"Content-Length: 40\r\n\r\nhalf a body"].concat()).await;
        });
    }
    crowd.join_all().await;
}
