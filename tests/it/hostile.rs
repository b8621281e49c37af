//! Hostile and broken upstreams: what each does, to the letter, and what it costs.
//!
//! A row is what upstream sends in place of an answer, and what the client sees of it. After each row the same is asked again,
//! and upstream is good: unless the row says that its answer was kept, upstream is asked, and the client gets exactly what it
//! says now; and that is kept. So nothing of the row was stored, nor left on a connection. The memory of the process under test
//! is bounded over each table, and every conversation by [`LIMIT`](crate::support::raw::LIMIT).
//!
//! Not here: what clients send (`smuggling`), what may be stored by its fields (`storing`).

use std::collections::HashMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::binary::{Binary, sentrybox};
use crate::support::raw::{Asked, Got, LIMIT, RawUpstream, Step, answer, converse, json};

mod http2;

/// What a client sees of a row.
#[derive(Debug, Clone, Copy)]
enum Sees {
    /// A refusal of ours, with this status and a detail, and nothing of what upstream sent.
    Refused(u16),
    /// This status, and exactly this body.
    Whole(u16, &'static str),
    /// This status, and a body of so many bytes.
    Long(u16, usize),
    /// This status, and a body that can be seen to be cut short.
    Cut(u16),
}

/// What is kept of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Nothing,
    It,
    /// It is, but it is stale at once: it goes out while upstream is asked.
    Stale,
}

use Kept::{It, Nothing, Stale};
use Sees::{Cut, Long, Refused, Whole};

/// What upstream does, its steps once it has read the request, what the client sees, and what is kept.
type Row = (&'static str, fn() -> Vec<Step>, Sees, Kept);

const ALICE: &str = "Authorization: Bearer sntryu_alice\r\n";

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Most that the process may grow by while a table is played: `cache.max_bytes`, bodies in flight, and what an allocator keeps.
/// Less than what passes through it.
const MOST_GROWTH: usize = 20 * MIB;

/// Most that is taken of one endless answer: what is read of a head, and what kernels buffer.
const MOST_TAKEN: u64 = 32 * MIB as u64;

fn write(text: &str) -> Vec<Step> {
    vec![Step::Write(text.as_bytes().to_vec())]
}

/// Writes an answer and ends the connection.
fn last(text: &str) -> Vec<Step> {
    vec![Step::Write(text.as_bytes().to_vec()), Step::Close]
}

/// Writes an answer with further fields and `[1]` as its body.
fn with(fields: &str) -> Vec<Step> {
    vec![Step::Write(answer(fields, "[1]"))]
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Writes an answer in a coding.
fn coded(coding: &str, body: &[u8]) -> Vec<Step> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\nContent-Length: {length}\r\n\r\n"
    );
    vec![Step::Write([head.as_bytes(), body].concat())]
}

fn repeated(times: u64, text: &str, rest: Vec<Step>) -> Vec<Step> {
    [vec![Step::Flood(text.repeat(100).into_bytes(), times / 100)], rest].concat()
}

/// Heads that are too large, or none.
const HEADS: &[Row] = &[
    ("a field of a megabyte", || with(&format!("X-A: {}\r\n", "b".repeat(MIB))), Refused(502), Nothing),
    (
        "a head of 600 KiB",
        || with(&format!("X-A: {}\r\n", "b".repeat(10 * KIB)).repeat(60)),
        Refused(502),
        Nothing,
    ),
    ("a thousand fields", || with(&"X-A: b\r\n".repeat(1_000)), Refused(502), Nothing),
    (
        "an endless head",
        || [write("HTTP/1.1 200 OK\r\n"), vec![Step::Flood(b"X-A: b\r\n".repeat(1_000), u64::MAX)]].concat(),
        Refused(502),
        Nothing,
    ),
    (
        "an endless field",
        || [write("HTTP/1.1 200 OK\r\nX-A: "), vec![Step::Flood(vec![b'b'; 10_000], u64::MAX)]].concat(),
        Refused(502),
        Nothing,
    ),
    (
        "an endless first line",
        || [write("HTTP/1.1 200 "), vec![Step::Flood(vec![b'O'; 10_000], u64::MAX)]].concat(),
        Refused(502),
        Nothing,
    ),
    ("no answer", || vec![Step::Close], Refused(502), Nothing),
    ("a reset in place of an answer", || vec![Step::Reset], Refused(502), Nothing),
    ("half a first line", || last("HTTP/1.1 2"), Refused(502), Nothing),
    ("half a head", || last("HTTP/1.1 200 OK\r\nContent-Len"), Refused(502), Nothing),
    (
        "a reset in a head",
        || vec![Step::Write(b"HTTP/1.1 200 OK\r\nX".to_vec()), Step::Reset],
        Refused(502),
        Nothing,
    ),
    ("HTTP/0.9", || last("[1]\r\n\r\n"), Refused(502), Nothing),
    (
        "something that is not HTTP",
        || last("\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    ("HTTP/1.2", || last("HTTP/1.2 200 OK\r\nContent-Length: 3\r\n\r\n[1]"), Refused(502), Nothing),
    (
        "HTTP/2 without being asked",
        || last("HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    ("status 0", || last("HTTP/1.1 000 OK\r\nContent-Length: 3\r\n\r\n[1]"), Refused(502), Nothing),
    ("status 99", || last("HTTP/1.1 099 OK\r\nContent-Length: 3\r\n\r\n[1]"), Refused(502), Nothing),
    ("status 1000", || last("HTTP/1.1 1000 OK\r\nContent-Length: 3\r\n\r\n[1]"), Refused(502), Nothing),
    (
        "a status that is no number",
        || last("HTTP/1.1 OK 200\r\nContent-Length: 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    // It is one, if nobody knows which.
    ("status 999", || write("HTTP/1.1 999 \r\nContent-Length: 3\r\n\r\n[1]"), Whole(999, "[1]"), Nothing),
    (
        "a field on two lines",
        || last("HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\nContent-Length: 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a field with a space before its colon",
        || last("HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a bare carriage return in a field",
        || last("HTTP/1.1 200 OK\r\nX-A: b\rc\r\nContent-Length: 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a NUL in a field",
        || last("HTTP/1.1 200 OK\r\nX-A: b\0c\r\nContent-Length: 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    ("no colon", || last("HTTP/1.1 200 OK\r\nX-A\r\nContent-Length: 3\r\n\r\n[1]"), Refused(502), Nothing),
    // A value may hold any byte from 128 on.
    (
        "no UTF-8 in a field",
        || {
            vec![Step::Write([&b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-A: \xff\xfe\r\nContent-Length: 3\r\n\r\n[1]"[..]].concat())]
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "another protocol that nobody asked for",
        || write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "10,000 times 100",
        || repeated(10_000, "HTTP/1.1 100 Continue\r\n\r\n", with("")),
        Whole(200, "[1]"),
        It,
    ),
    (
        "10,000 times 102",
        || repeated(10_000, "HTTP/1.1 102 Processing\r\n\r\n", with("")),
        Whole(200, "[1]"),
        It,
    ),
    (
        "10,000 times 103",
        || repeated(10_000, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", with("")),
        Whole(200, "[1]"),
        It,
    ),
    // hyper reads them without end, and does nothing else meanwhile: too many are no answer.
    (
        "interim answers without end",
        || vec![Step::Flood(b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100), u64::MAX)],
        Refused(502),
        Nothing,
    ),
    (
        "103 with 200 KiB",
        || {
            [write(&format!("HTTP/1.1 103 Early Hints\r\nX-A: {}\r\n\r\n", "b".repeat(200 * KIB))), with("")]
                .concat()
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "103 with a megabyte",
        || {
            [write(&format!("HTTP/1.1 103 Early Hints\r\nX-A: {}\r\n\r\n", "b".repeat(MIB))), with("")]
                .concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "103 with a length",
        || {
            [
                write("HTTP/1.1 103 Early Hints\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
                with(""),
            ]
            .concat()
        },
        Whole(200, "[1]"),
        It,
    ),
];

/// Where an answer ends.
const FRAMING: &[Row] = &[
    (
        "two lengths",
        || last("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n[1] "),
        Refused(502),
        Nothing,
    ),
    ("two equal lengths", || with("Content-Length: 3\r\n"), Whole(200, "[1]"), It),
    (
        "a list of lengths",
        || write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3, 3\r\n\r\n[1]"),
        Whole(200, "[1]"),
        It,
    ),
    (
        "a list of lengths that differ",
        || last("HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\n[1] "),
        Refused(502),
        Nothing,
    ),
    (
        "a length with a plus",
        || last("HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    ("a negative length", || last("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n[1]"), Refused(502), Nothing),
    (
        "a length in hexadecimal",
        || last("HTTP/1.1 200 OK\r\nContent-Length: 0x3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a length beyond 64 bits",
        || last("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551619\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "no length and an end",
        || last("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1]"),
        Whole(200, "[1]"),
        It,
    ),
    (
        "no length and a reset",
        || {
            vec![
                Step::Write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1".to_vec()),
                Step::Reset,
            ]
        },
        Refused(502),
        Nothing,
    ),
    (
        "HTTP/1.0",
        || last("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n[1]"),
        Whole(200, "[1]"),
        It,
    ),
    (
        "HTTP/1.0 with chunks",
        || last("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "a length and chunks",
        || {
            write(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
            )
        },
        Refused(502),
        Nothing,
    ),
    (
        "chunks and a length",
        || {
            write(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 13\r\n\r\n3\r\n[1]\r\n0\r\n\r\n",
            )
        },
        Refused(502),
        Nothing,
    ),
    (
        "another transfer coding",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "another transfer coding in chunks",
        || write("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "a transfer coding that is nearly chunked",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "a length that is longer than the body",
        || last("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "a reset in a body",
        || vec![Step::Write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]".to_vec()), Step::Reset],
        Refused(502),
        Nothing,
    ),
    // What follows an answer is nobody's.
    (
        "a length that is shorter than the body",
        || write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]23"),
        Whole(200, "[1]"),
        It,
    ),
    (
        "a second answer behind the first",
        || {
            write(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 6\r\n\r\n\"evil\"",
            )
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "a second answer behind the last chunk",
        || {
            write(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\"",
            )
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "204 with a body",
        || write("HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n[1]"),
        Whole(204, ""),
        Nothing,
    ),
    (
        "204 with an answer as its body",
        || write("HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n\"evil\""),
        Whole(204, ""),
        Nothing,
    ),
    (
        "204 with chunks",
        || write("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        Whole(204, ""),
        Nothing,
    ),
    (
        "304 that nobody asked for",
        || write("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "304 with a body",
        || write("HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n[1]"),
        Refused(502),
        Nothing,
    ),
    (
        "205 with a body",
        || write("HTTP/1.1 205 Reset Content\r\nContent-Length: 3\r\n\r\n[1]"),
        Whole(205, "[1]"),
        Nothing,
    ),
    (
        "a chunk's size that is none",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "a chunk's size beyond 64 bits",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000003\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "a chunk that is longer than its size",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[1]\r\n0\r\n\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "no last chunk",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "half a last chunk",
        || last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n"),
        Refused(502),
        Nothing,
    ),
    (
        "a flood of extensions",
        || {
            [
                write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3"),
                vec![Step::Flood(b";a=b".repeat(1_000), u64::MAX)],
            ]
            .concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "a flood of trailers",
        || {
            [
                write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n"),
                vec![Step::Flood(b"X-A: b\r\n".repeat(1_000), u64::MAX)],
            ]
            .concat()
        },
        Refused(502),
        Nothing,
    ),
    (
        "trailers",
        || {
            write(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTrailer: Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\nSet-Cookie: evil=1\r\nContent-Length: 9\r\n\r\n",
            )
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "a flood of small chunks",
        || {
            [
                write(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                ),
                repeated(60_000, "1\r\n1\r\n", write("0\r\n\r\n")),
            ]
            .concat()
        },
        Long(200, 60_000),
        It,
    ),
];

/// Bodies and codings.
const BODIES: &[Row] = &[
    (
        "a body of 24 MiB that breaks off",
        || {
            [write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000000000\r\n\r\n"), vec![Step::Flood(vec![b'1'; MIB], 24), Step::Close]].concat()
        },
        Cut(200),
        Nothing,
    ),
    (
        "chunks of 24 MiB that break off",
        || {
            [
                write(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                ),
                vec![Step::Flood([&b"10000\r\n"[..], &[b'1'; 0x10000], b"\r\n"].concat(), 384), Step::Close],
            ]
            .concat()
        },
        Cut(200),
        Nothing,
    ),
    (
        "a body of 24 MiB without a length",
        || {
            [
                write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
                vec![Step::Flood(vec![b'1'; MIB], 24), Step::Close],
            ]
            .concat()
        },
        Long(200, 24 * MIB),
        Nothing,
    ),
    // What is decoded is decoded a little at a time, and not kept.
    ("a gzip bomb", || coded("gzip", &gzipped(&vec![b'1'; MIB]).repeat(4)), Long(200, 4 * MIB), Nothing),
    (
        "gzip of 1,000 members",
        || coded("gzip", &gzipped(&[b'1'; KIB]).repeat(1_000)),
        Long(200, 1_000 * KIB),
        Nothing,
    ),
    ("gzip that is none", || coded("gzip", b"[1] and no gzip"), Cut(200), Nothing),
    ("gzip that is cut", || coded("gzip", &gzipped(&[b'1'; KIB])[..20]), Cut(200), Nothing),
    (
        "gzip with a wrong checksum",
        || {
            coded("gzip", &{
                let mut bytes = gzipped(b"[1]");
                let at = bytes.len() - 8;
                bytes[at] ^= 1;
                bytes
            })
        },
        Cut(200),
        Nothing,
    ),
    ("gzip that is empty", || coded("gzip", b""), Whole(200, ""), Nothing),
    // Codings that are not undone here go on as they came, under their name.
    ("gzip twice", || coded("gzip, gzip", b"whatever"), Whole(200, "whatever"), It),
    ("a coding that nobody knows", || coded("snappy", b"whatever"), Whole(200, "whatever"), It),
    (
        "no UTF-8 in a body",
        || vec![Step::Write([&answer("", "")[..answer("", "").len() - 5], b"4\r\n\r\n[\xff\xfe]"].concat())],
        Whole(200, "[\u{fffd}\u{fffd}]"),
        It,
    ),
    (
        "JSON that is none",
        || write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4\r\n\r\n}]{["),
        Whole(200, "}]{["),
        It,
    ),
    ("JSON that is a thousand deep", || vec![Step::Write(json(&"[".repeat(10_000)))], Long(200, 10_000), It),
    ("an empty body", || vec![Step::Write(json(""))], Whole(200, ""), It),
    (
        "another type",
        || write("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n[1]"),
        Whole(200, "[1]"),
        Nothing,
    ),
    ("no type", || write("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]"), Whole(200, "[1]"), Nothing),
    (
        "two types",
        || {
            write(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Type: application/json\r\nContent-Length: 3\r\n\r\n[1]",
            )
        },
        Whole(200, "[1]"),
        Nothing,
    ),
];

/// Fields that decide about reuse, and fields that would decide too much.
const FIELDS: &[Row] = &[
    (
        "max-age beyond 64 bits",
        || with("Cache-Control: max-age=99999999999999999999999999\r\n"),
        Whole(200, "[1]"),
        It,
    ),
    ("a negative max-age", || with("Cache-Control: max-age=-1\r\n"), Whole(200, "[1]"), Stale),
    ("max-age that is no number", || with("Cache-Control: max-age=NaN\r\n"), Whole(200, "[1]"), Stale),
    ("max-age twice", || with("Cache-Control: max-age=3600, max-age=0\r\n"), Whole(200, "[1]"), Stale),
    (
        "a directive in a quote that does not end",
        || with("Cache-Control: x=\"no-store, max-age=60\r\n"),
        Whole(200, "[1]"),
        Nothing,
    ),
    (
        "no-store among 10,000 directives",
        || with(&format!("Cache-Control: {}no-store\r\n", "a=b, ".repeat(10_000))),
        Whole(200, "[1]"),
        Nothing,
    ),
    ("an age beyond 64 bits", || with("Age: 99999999999999999999999999\r\n"), Whole(200, "[1]"), Nothing),
    ("a negative age", || with("Age: -60\r\n"), Whole(200, "[1]"), It),
    ("a date that is none", || with("Date: yesterday\r\n"), Whole(200, "[1]"), It),
    ("a date to come", || with("Date: Fri, 31 Dec 9999 23:59:59 GMT\r\n"), Whole(200, "[1]"), It),
    ("a date long gone", || with("Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"), Whole(200, "[1]"), It),
    ("a validator that is none", || with("ETag: W/\"\r\n"), Whole(200, "[1]"), It),
    (
        "a validator of 100 KiB",
        || with(&format!("ETag: \"{}\"\r\n", "e".repeat(100 * KIB))),
        Whole(200, "[1]"),
        It,
    ),
    ("Vary: *", || with("Vary: *\r\n"), Whole(200, "[1]"), Nothing),
    (
        "Vary by 10,000 names",
        || {
            with(&format!(
                "Vary: {}\r\n",
                (0..10_000).map(|name| format!("x-{name}, ")).collect::<Vec<_>>().concat()
            ))
        },
        Whole(200, "[1]"),
        It,
    ),
    ("Vary by what is no name", || with("Vary: a b, (c), \"d\"\r\n"), Whole(200, "[1]"), It),
    ("a cookie", || with("Set-Cookie: session=evil\r\n"), Whole(200, "[1]"), Nothing),
    (
        "1,000 limits",
        || {
            with(
                "X-Sentry-Rate-Limit-Limit: 99999999999999999999\r\nX-Sentry-Rate-Limit-Remaining: -1\r\nX-Sentry-Rate-Limit-Reset: NaN\r\n",
            )
        },
        Whole(200, "[1]"),
        It,
    ),
    (
        "Connection that names what matters",
        || with("Connection: Content-Length, Content-Type, Cache-Control\r\n"),
        Whole(200, "[1]"),
        It,
    ),
    ("Via of our own", || with("Via: 1.1 sentrybox (x), 1.1 sentrybox (y)\r\n"), Whole(200, "[1]"), It),
    ("Cache-Status of our own", || with("Cache-Status: sentrybox; hit; ttl=99\r\n"), Whole(200, "[1]"), It),
    (
        "Link of 200 KiB of quotes",
        || with(&format!("Link: <https://sentry.io/api/0/a/>; a={}\r\n", "\"".repeat(200 * KIB))),
        Whole(200, "[1]"),
        It,
    ),
    (
        "Link of 200 KiB of backslashes",
        || with(&format!("Link: <https://sentry.io/api/0/a/>; a=\"{}\r\n", "\\".repeat(200 * KIB))),
        Whole(200, "[1]"),
        It,
    ),
    ("Link of 200,000 commas", || with(&format!("Link: {}\r\n", ",".repeat(200_000))), Whole(200, "[1]"), It),
    (
        "Link of 200,000 semicolons",
        || with(&format!("Link: <https://sentry.io/api/0/a/>{}\r\n", ";".repeat(200_000))),
        Whole(200, "[1]"),
        It,
    ),
    (
        "Link of 200,000 brackets",
        || with(&format!("Link: {}\r\n", "<".repeat(200_000))),
        Whole(200, "[1]"),
        It,
    ),
    (
        "Link of 100,000 closing brackets",
        || with(&format!("Link: <{}\r\n", "> ".repeat(100_000))),
        Whole(200, "[1]"),
        It,
    ),
    (
        "Link of 60,000 empty targets",
        || with(&format!("Link: {}\r\n", "<>, ".repeat(60_000))),
        Whole(200, "[1]"),
        It,
    ),
    (
        "Link of 7,000 pages",
        || with(&format!("Link: {}\r\n", "<https://sentry.io/api/0/a/>; b, ".repeat(7_000))),
        Whole(200, "[1]"),
        It,
    ),
];

/// Redirects: none is followed, and only Sentry's own are pointed back here.
const REDIRECTS: &[(&str, &str)] = &[
    ("https://evil.example/api/0/", "https://evil.example/api/0/"),
    ("//evil.example/api/0/", "//evil.example/api/0/"),
    ("javascript:alert(1)", "javascript:alert(1)"),
    ("https://sentry.io@evil.example/api/0/", "https://sentry.io@evil.example/api/0/"),
    ("https://sentry.io:pw@evil.example/api/0/", "https://sentry.io:pw@evil.example/api/0/"),
    ("https://sentry.io.evil.example/api/0/", "https://sentry.io.evil.example/api/0/"),
    ("https://evil.example\\@sentry.io/api/0/", "https://evil.example\\@sentry.io/api/0/"),
    ("/\\evil.example/api/0/", "/\\evil.example/api/0/"),
    ("https://sentry.io/api/0/a/\r\nX-B: c", "http://box.example/api/0/a/"),
    ("https://sentry.io/api/0/a/", "http://box.example/api/0/a/"),
    ("http://127.0.0.1/api/0/", "http://127.0.0.1/api/0/"),
    ("file:///etc/passwd", "file:///etc/passwd"),
];

/// What is planned for organizations; all others get [`good`].
type Plans<P> = Arc<Mutex<HashMap<String, P>>>;

/// What rows are played on: a proxy before an upstream that does what it is told.
#[derive(Clone)]
struct Scene<P> {
    address: SocketAddr,
    plans: Plans<P>,
    /// Counts the requests for a target that reached upstream.
    count: Arc<dyn Fn(&str) -> usize + Send + Sync>,
}

impl<P: Send> Scene<P> {
    fn plan(&self, organization: &str, plan: Option<P>) {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        match plan {
            Some(plan) => drop(plans.insert(organization.to_owned(), plan)),
            None => drop(plans.remove(organization)),
        }
    }

    fn count(&self, organization: &str) -> usize {
        (self.count)(&target(organization))
    }

    /// Asks for an organization's projects as Alice.
    async fn ask(&self, organization: &str) -> Option<Got> {
        self.send(&format!("GET {}", target(organization)), ALICE, b"").await
    }

    /// Sends a request of this line, with these fields and this body.
    async fn send(&self, line: &str, fields: &str, body: &[u8]) -> Option<Got> {
        let head = format!("{line} HTTP/1.1\r\nHost: box.example\r\nConnection: close\r\n{fields}\r\n");
        Got::read(&converse(self.address, &[head.as_bytes(), body].concat()).await)
    }

    /// Plays a plan, and returns what is wrong with what the client sees and with what is left of it.
    async fn judge(&self, organization: &str, plan: P, (sees, kept): (Sees, Kept)) -> Vec<String> {
        self.plan(organization, Some(plan));
        let first = self.ask(organization).await;
        let asked = self.count(organization);
        self.plan(organization, None);
        let mut wrong = Vec::new();
        if !is_seen(sees, first.as_ref()) {
            wrong.push(format!("{} and not {sees:?}", told(first.as_ref())));
        }
        let second = self.ask(organization).await;
        let is_asked = asked < self.count(organization);
        let expected = match kept {
            It | Stale => first.map(|first| first.body),
            Nothing => Some(good(organization).into_bytes()),
        };
        let is_as_kept = kept == Stale || is_asked == (kept == Nothing);
        if !is_as_kept || second.as_ref().map(|second| &second.body) != expected.as_ref() {
            wrong.push(format!("then {}, and upstream was asked: {is_asked}", told(second.as_ref())));
        }
        let third = self.ask(organization).await;
        let told_of = |got: &Option<Got>| got.as_ref().map(|got| (got.status, got.body.clone()));
        if kept != Stale && told_of(&third) != told_of(&second) {
            wrong.push(format!("at last {}", told(third.as_ref())));
        }
        wrong
    }
}

/// A proxy in a process of its own before a bare socket.
struct Stage {
    scene: Scene<Vec<Step>>,
    upstream: Arc<RawUpstream>,
    binary: Binary,
}

impl Stage {
    async fn set(environment: &[(&str, &str)]) -> Self {
        let plans = Plans::default();
        let planned = {
            let plans = Arc::clone(&plans);
            move |asked: &Asked| planned(&plans, asked)
        };
        let upstream = Arc::new(RawUpstream::start(planned).await);
        let binary = start(&format!("http://{}", upstream.address), environment);
        let count = {
            let upstream = Arc::clone(&upstream);
            Arc::new(move |target: &str| upstream.count(target))
        };
        Self { scene: Scene { address: binary.address, plans, count }, upstream, binary }
    }
}

/// Starts a proxy that keeps little, and asks as often as it is asked.
fn start(upstream: &str, environment: &[(&str, &str)]) -> Binary {
    let mut command = sentrybox();
    command.args(["--upstream", upstream]);
    command.env("SENTRYBOX_BUDGET__ENABLED", "false").env("SENTRYBOX_CACHE__MAX_BYTES", "16MiB");
    command.env("SENTRYBOX_CACHE__MAX_RESPONSE_BYTES", "64KiB");
    command.env("SENTRYBOX_CACHE__MAX_IN_FLIGHT_BYTES", "8MiB");
    command.envs(environment.iter().copied());
    Binary::start(command)
}

/// Returns the most that a process has had resident.
fn peak(binary: &Binary) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", binary.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    KIB * line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap()
}

fn target(organization: &str) -> String {
    format!("/api/0/organizations/{organization}/projects/")
}

fn good(organization: &str) -> String {
    format!("[{{\"good\":\"{organization}\"}}]")
}

fn planned(plans: &Plans<Vec<Step>>, asked: &Asked) -> Vec<Step> {
    let organization = asked.target().split('/').nth(4).unwrap_or_default();
    let plan = plans.lock().unwrap_or_else(PoisonError::into_inner).get(organization).cloned();
    let mut steps = match organization {
        "mirror" => vec![Step::Write(json(&serde_json::to_string(&asked.head).unwrap()))],
        "secretive" => vec![Step::Write(answer("Cache-Control: public, max-age=3600\r\n", &secret(asked)))],
        _ => plan.unwrap_or_else(|| vec![Step::Write(json(&good(organization)))]),
    };
    // An early answer is one that comes before the body is read.
    if asked.field("x-early").is_empty() {
        steps.insert(0, Step::Read);
    }
    steps
}

/// Returns an answer that is for one credential.
fn secret(asked: &Asked) -> String {
    format!("[\"for {}\"]", asked.field("authorization"))
}

fn is_seen(sees: Sees, got: Option<&Got>) -> bool {
    let Some(got) = got else { return false };
    match sees {
        Refused(status) => {
            let body: Option<serde_json::Value> = serde_json::from_slice(&got.body).ok();
            got.status == status && got.is_whole && body.is_some_and(|body| body["detail"].is_string())
        }
        Whole(status, body) => got.status == status && got.is_whole && got.text() == body,
        Long(status, length) => got.status == status && got.is_whole && got.body.len() == length,
        Cut(status) => got.status == status && !got.is_whole,
    }
}

/// Waits until something holds that upstream brings about.
async fn until(holds: impl AsyncFn() -> bool) {
    let waiting = async {
        while !holds().await {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, waiting).await.unwrap();
}

/// Returns a few words about an answer.
fn told(got: Option<&Got>) -> String {
    got.map_or("nothing".to_owned(), |got| {
        let text: String = got.text().chars().take(80).collect();
        let cache = got.field("cache-status").unwrap_or_default();
        format!("{} with {} bytes ({text}), whole: {} [{cache}]", got.status, got.body.len(), got.is_whole)
    })
}

/// Plays a table, one row after the other on the same pools.
async fn check(table: &[Row]) {
    let stage = Stage::set(&[]).await;
    stage.scene.ask("first").await;
    let before = peak(&stage.binary);
    let mut wrong = Vec::new();
    for (number, (trick, steps, sees, kept)) in table.iter().enumerate() {
        let written = stage.upstream.written();
        let mut found = stage.scene.judge(&format!("row-{number}"), steps(), (*sees, *kept)).await;
        let taken = stage.upstream.written() - written;
        if matches!(sees, Refused(_)) && MOST_TAKEN < taken {
            found.push(format!("{taken} bytes were taken"));
        }
        wrong.extend(found.into_iter().map(|found| format!("{trick}: {found}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let after = peak(&stage.binary);
    assert!(after < before + MOST_GROWTH, "from {before} bytes to {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_head_costs_its_own_request_alone() {
    check(HEADS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_framing_costs_its_own_request_alone() {
    check(FRAMING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_body_costs_its_own_request_alone() {
    check(BODIES).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_fields_are_carried_and_not_believed() {
    check(FIELDS).await;
}

/// Upstreams that take their time, while each part of an exchange may take two seconds, and all of it six.
const SLOW: &[Row] = &[
    ("nothing", || vec![Step::Hang], Refused(504), Nothing),
    (
        "half a head, and nothing",
        || [write("HTTP/1.1 200 OK\r\nX-A"), vec![Step::Hang]].concat(),
        Refused(504),
        Nothing,
    ),
    (
        "a head, byte by byte",
        || vec![Step::Drip(b"HTTP/1.1 200 OK\r\nX-A: bbbbbbbbbbbbbbbbbbbbbbbbbb".to_vec(), PAUSE)],
        Refused(504),
        Nothing,
    ),
    (
        "interim answers, one by one",
        || vec![Step::Drip(b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec(), PAUSE / 50)],
        Refused(504),
        Nothing,
    ),
    (
        "half a body, and nothing",
        || {
            [
                write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n[1]"),
                vec![Step::Hang],
            ]
            .concat()
        },
        Refused(504),
        Nothing,
    ),
    (
        "half a chunk, and nothing",
        || {
            [write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n[1]"), vec![Step::Hang]].concat()
        },
        Refused(504),
        Nothing,
    ),
    (
        "no end of a body without a length",
        || [write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[1]"), vec![Step::Hang]].concat(),
        Refused(504),
        Nothing,
    ),
    (
        "a body, byte by byte",
        || {
            [
                write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"),
                vec![Step::Drip(b"1".to_vec(), PAUSE)],
            ]
            .concat()
        },
        Refused(504),
        Nothing,
    ),
    (
        "a body without a length, byte by byte",
        || {
            [
                write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
                vec![Step::Drip(b"1".to_vec(), PAUSE)],
            ]
            .concat()
        },
        Refused(504),
        Nothing,
    ),
    (
        "chunks, byte by byte",
        || {
            [
                write(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
                ),
                vec![Step::Drip(b"1\r\n1\r\n".to_vec(), PAUSE)],
            ]
            .concat()
        },
        Refused(504),
        Nothing,
    ),
    (
        "a large body that stands still",
        || {
            [
                write("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 200000\r\n\r\n"),
                vec![Step::Write(vec![b'1'; 100_000]), Step::Hang],
            ]
            .concat()
        },
        Cut(200),
        Nothing,
    ),
];

/// Between two bytes of a slow upstream: well below what is allowed.
const PAUSE: Duration = Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_costs_as_long_as_it_may() {
    let stage = Stage::set(&[
        ("SENTRYBOX_UPSTREAM__FIRST_BYTE_TIMEOUT", "2s"),
        ("SENTRYBOX_UPSTREAM__IDLE_TIMEOUT", "2s"),
        ("SENTRYBOX_UPSTREAM__TOTAL_TIMEOUT", "6s"),
    ])
    .await;
    let mut rows = JoinSet::new();
    for (number, (trick, steps, sees, kept)) in SLOW.iter().enumerate() {
        let scene = stage.scene.clone();
        rows.spawn(async move {
            let found = scene.judge(&format!("row-{number}"), steps(), (*sees, *kept)).await;
            found.into_iter().map(|found| format!("{trick}: {found}")).collect::<Vec<_>>()
        });
    }
    let wrong = rows.join_all().await.concat();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What upstream does before it has read the body of a write, and what the client sees.
type EarlyRow = (&'static str, fn() -> Vec<Step>, Sees);

/// Answers that come early.
const EARLY: &[EarlyRow] = &[
    (
        "413, and the end",
        || {
            [
                write("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"),
                vec![Step::Pause(PAUSE), Step::Close],
            ]
            .concat()
        },
        Whole(413, "no"),
    ),
    (
        "413, and a reset",
        || {
            [
                write("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"),
                vec![Step::Pause(PAUSE), Step::Reset],
            ]
            .concat()
        },
        Whole(413, "no"),
    ),
    (
        "413, and the body is read all the same",
        || [write("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"), vec![Step::Read]].concat(),
        Whole(413, "no"),
    ),
    (
        "401, and the body is never read",
        || {
            [
                write("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"),
                vec![Step::Pause(PAUSE * 5), Step::Close],
            ]
            .concat()
        },
        Whole(401, "no"),
    ),
    (
        "200, and the body is read all the same",
        || [write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), vec![Step::Read]].concat(),
        Whole(200, "ok"),
    ),
    (
        "half an answer, and the end",
        || {
            [write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), vec![Step::Pause(PAUSE), Step::Close]]
                .concat()
        },
        Cut(200),
    ),
    ("nothing, and the end", || vec![Step::Close], Refused(502)),
];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_early_is_the_answer() {
    let stage = Stage::set(&[]).await;
    let body = vec![b'x'; 16 * MIB];
    let fields = format!("{ALICE}X-Early: yes\r\nContent-Length: {}\r\n", body.len());
    for (number, (trick, steps, sees)) in EARLY.iter().enumerate() {
        let organization = format!("row-{number}");
        let line = format!("POST {}", target(&organization));
        stage.scene.plan(&organization, Some(steps()));
        let got = stage.scene.send(&line, &fields, &body).await;
        assert!(is_seen(*sees, got.as_ref()), "{trick}: {}", told(got.as_ref()));
        assert_eq!(stage.scene.count(&organization), 1, "{trick}: a write is sent once");
        stage.scene.plan(&organization, None);
        for _ in 0..2 {
            let got = stage.scene.send(&line, &format!("{ALICE}Content-Length: 2\r\n"), b"{}").await;
            assert_eq!(got.unwrap().text(), good(&organization), "{trick}: the next write");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_asked_for_is_nobodys() {
    let stage = Stage::set(&[]).await;
    for number in 0..8 {
        let organization = format!("row-{number}");
        let late = vec![Step::Write(json("[1]")), Step::Pause(PAUSE / 2), Step::Write(json("[\"evil\"]"))];
        stage.scene.plan(&organization, Some(late));
        let before = stage.upstream.written();
        assert_eq!(stage.scene.ask(&organization).await.unwrap().text(), "[1]");
        until(async || before + json("[1][\"evil\"]").len() as u64 <= stage.upstream.written()).await;
        // Whatever came before this is known to the proxy when it has answered it.
        converse(stage.binary.admin, b"GET /livez HTTP/1.0\r\nHost: localhost\r\n\r\n").await;
        let next = format!("next-{number}");
        assert_eq!(stage.scene.ask(&next).await.unwrap().text(), good(&next));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_key_holds_changes_no_answer() {
    let stage = Stage::set(&[]).await;
    let names = [
        "X-Forwarded-Host",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-Scheme",
        "X-Forwarded-Server",
        "Forwarded",
        "X-Host",
        "X-Original-Host",
        "X-Real-IP",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "Proxy",
        "X_Forwarded_Host",
        "Referer",
        "If-None-Match",
        "Cookie",
        "TE",
        "Upgrade",
    ];
    let fields = names.map(|name| format!("{name}: evil.example\r\n")).concat();
    let line = format!("GET {}", target("mirror"));
    let poisoned = stage.scene.send(&line, &format!("{ALICE}{fields}"), b"").await.unwrap();
    assert!(poisoned.status == 200 && !poisoned.text().contains("evil"), "{poisoned:?}");
    let next = stage.scene.ask("mirror").await.unwrap();
    assert_eq!((next.text(), stage.scene.count("mirror")), (poisoned.text(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_looks_like_a_file_is_as_private_as_any() {
    let stage = Stage::set(&[]).await;
    let root = "/api/0/organizations/secretive";
    for path in [
        "/projects/x.css",
        "/projects/;x.css",
        "/projects/?x.css",
        "/projects/x.js",
        "/projects/%3Fx.css",
        "/projects/%23x.png",
        "/x.css",
    ] {
        let line = format!("GET {root}{path}");
        for who in ["Bearer sntryu_alice", "Bearer sntryu_bob", ""] {
            let fields = if who.is_empty() { String::new() } else { format!("Authorization: {who}\r\n") };
            let got = stage.scene.send(&line, &fields, b"").await.unwrap();
            assert_eq!((got.status, got.text()), (200, format!("[\"for {who}\"]")), "{path}");
        }
    }
    for path in [
        "/projects/..%2fx.css",
        "/projects/%2e%2e/x.css",
        "/projects/x%0a.css",
        "/projects/x%00.css",
        "/projects/..\\x.css",
    ] {
        let got = stage.scene.send(&format!("GET {root}{path}"), ALICE, b"").await.unwrap();
        assert!(is_seen(Refused(400), Some(&got)), "{path}: {got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let stage = Stage::set(&[]).await;
    for (number, (location, expected)) in REDIRECTS.iter().enumerate() {
        let organization = format!("row-{number}");
        let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        stage.scene.plan(&organization, Some(write(&redirect)));
        let got = stage.scene.ask(&organization).await.unwrap();
        assert_eq!((got.status, got.field("location")), (302, Some(*expected)), "{location}");
        assert_eq!(stage.scene.count(&organization), 1, "{location}");
        stage.scene.plan(&organization, None);
        assert_eq!(stage.scene.ask(&organization).await.unwrap().text(), good(&organization), "{location}");
    }
}
