//! HTTP/2 by hand: frames with fields that no library would write, and just enough reading to see what becomes of them.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::raw::LIMIT;

/// How a connection starts, with empty settings.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

/// Kinds of frames, as far as they have names here.
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const GO_AWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Fields, each a name and a value.
pub(crate) type Fields<'a> = &'a [(&'a [u8], &'a [u8])];

/// Whether a frame ends the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    Yes,
    No,
}

/// The first stream of a connection.
pub(crate) const FIRST: u32 = 1;

/// Returns a HEADERS frame; its fields are literals, as they are.
pub(crate) fn headers(stream: u32, fields: Fields<'_>, ends: Ends) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flag(ends), stream, &block(fields))
}

/// Returns a block of fields as literals.
pub(crate) fn block(fields: Fields<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// Returns a DATA frame.
pub(crate) fn data(stream: u32, bytes: &[u8], ends: Ends) -> Vec<u8> {
    frame(DATA, flag(ends), stream, bytes)
}

fn flag(ends: Ends) -> u8 {
    match ends {
        Ends::Yes => END_STREAM,
        Ends::No => 0,
    }
}

/// Returns a frame of any kind.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads the next frame: its kind, its flags, its stream and its payload; `None` at the end.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let [high, middle, low, kind, flags, number @ ..] = head;
    let mut payload = vec![0; usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)];
    stream.read_exact(&mut payload).await.ok()?;
    Some((kind, flags, u32::from_be_bytes(number), payload))
}

/// Appends a string literal without Huffman's coding (RFC 7541 §5.2).
fn text(block: &mut Vec<u8>, bytes: &[u8]) {
    match u8::try_from(bytes.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            let mut rest = bytes.len() - 127;
            block.push(127);
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend_from_slice(bytes);
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It was answered with this status.
    Answered(u16),
    /// Its stream was reset, or its connection ended.
    Broken,
    /// It was left hanging.
    Left,
}

/// Sends frames on a connection of their own, and waits for what becomes of their request.
pub(crate) async fn converse(address: SocketAddr, frames: &[u8]) -> Fate {
    let conversation = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&[PREFACE, frames].concat()).await.unwrap();
        fate(&mut stream).await
    };
    timeout(LIMIT, conversation).await.unwrap_or(Fate::Left)
}

async fn fate(stream: &mut TcpStream) -> Fate {
    let mut status = None;
    while let Some((kind, flags, _, payload)) = read(stream).await {
        match kind {
            RESET | GO_AWAY => return status.map_or(Fate::Broken, Fate::Answered),
            HEADERS => status = Some(status_of(&payload)),
            _ => {}
        }
        if (kind == HEADERS || kind == DATA) && flags & END_STREAM != 0 {
            return Fate::Answered(status.expect("an answer begins with HEADERS"));
        }
    }
    Fate::Broken
}

/// Reads the status, which comes first in a block: from the static table, or as a literal.
fn status_of(block: &[u8]) -> u16 {
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [indexed @ 0x88..=0x8e, ..] => INDEXED[usize::from(indexed - 0x88)],
        [_, length, rest @ ..] if length & 0x80 != 0 => huffman_digits(&rest[..usize::from(length & 0x7f)]),
        [_, length, rest @ ..] => {
            std::str::from_utf8(&rest[..usize::from(*length)]).unwrap().parse().unwrap()
        }
        _ => panic!("no block of fields: {block:?}"),
    }
}

/// Reads three digits in Huffman's coding: 0 to 2 have five bits, 3 to 9 have six (RFC 7541, appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |place| u16::from(byte >> place & 1)));
    let mut number = 0;
    for _ in 0..3 {
        let mut take = |count| bits.by_ref().take(count).fold(0, |value, bit| value << 1 | bit);
        let code = take(5);
        let digit = if code < 3 { code } else { (code << 1 | take(1)) - 0b01_1001 + 3 };
        number = number * 10 + digit;
    }
    number
}

#[test]
fn statuses_are_read_in_every_form() {
    assert_eq!(status_of(&[0x88]), 200);
    assert_eq!(status_of(&[0x8c, 0xff]), 400);
    assert_eq!(status_of(b"\x48\x03405"), 405);
    // 508 and 302, as RFC 7541, C.6.1 has the second one.
    assert_eq!(status_of(&[0x48, 0x82, 0x64, 0x02]), 302);
}
