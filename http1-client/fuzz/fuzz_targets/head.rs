//! A response head: it makes no difference how the bytes are cut, and no byte after it is taken.
#![no_main]

use bytes::BytesMut;
use http1_client::{Heads, Parsed};
use libfuzzer_sys::fuzz_target;

/// What is found in `wire`, cut into pieces: the status and what is left over, or the reason for the failure.
fn read(wire: &[u8], piece: usize, is_head: bool) -> Option<Result<(u16, usize), String>> {
    let (mut heads, mut buffer, mut at) = (Heads::new(is_head), BytesMut::new(), 0);
    loop {
        match heads.take(&mut buffer) {
            Err(invalid) => return Some(Err(invalid.to_string())),
            Ok(Parsed::Head(head)) => return Some(Ok((head.status.as_u16(), buffer.len() + wire.len() - at))),
            Ok(Parsed::Interim(_)) => {}
            Ok(Parsed::Partial) if at == wire.len() => return None,
            Ok(Parsed::Partial) => {
                let end = wire.len().min(at + piece);
                buffer.extend_from_slice(&wire[at..end]);
                at = end;
            }
        }
    }
}

fuzz_target!(|input: (u8, bool, Vec<u8>)| {
    let (piece, is_head, wire) = input;
    let (whole, cut) = (read(&wire, wire.len().max(1), is_head), read(&wire, usize::from(piece).max(1), is_head));
    match (&whole, &cut) {
        // Which of several faults is found first, and whether before the head is complete, may depend on the packets.
        (None | Some(Err(_)), None | Some(Err(_))) => {}
        _ => assert_eq!(whole, cut),
    }
});
