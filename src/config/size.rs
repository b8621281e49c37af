//! Writes sizes as people do.
//!
//! Invariant: what is written is read back as the same number of bytes. Not here: reading (`bytesize`).

use bytesize::ByteSize;
use serde::Serializer;

/// Writes a size in the largest unit that loses nothing, as in `256MiB`.
///
/// # Errors
/// The serializer's own.
pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let bytes = size.as_u64();
    let divides = |(unit, _): &(u64, &str)| bytes > 0 && bytes.is_multiple_of(*unit);
    let (unit, name) = UNITS.into_iter().find(divides).unwrap_or((1, "B"));
    serializer.collect_str(&format_args!("{}{name}", bytes / unit))
}
