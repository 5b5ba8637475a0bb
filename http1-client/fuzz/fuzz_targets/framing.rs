//! A chunked body: it makes no difference how the bytes are cut, and a body that is cut off is never complete.
#![no_main]

use bytes::BytesMut;
use http1_client::{Framing, Taken};
use libfuzzer_sys::fuzz_target;

/// The data, what is left over, and whether it was complete; or none if it is invalid.
fn read(wire: &[u8], piece: usize) -> (Vec<u8>, usize, Option<bool>) {
    let (mut framing, mut buffer, mut data, mut at) = (Framing::CHUNKED, BytesMut::new(), Vec::new(), 0);
    loop {
        match framing.take(&mut buffer) {
            Err(_) => return (data, 0, None),
            Ok(Taken::Data(piece)) => data.extend_from_slice(&piece),
            Ok(Taken::Trailers(trailers)) => assert!(!trailers.is_empty()),
            Ok(Taken::End) => {
                assert!(framing.is_over());
                return (data, buffer.len() + wire.len() - at, Some(true));
            }
            Ok(Taken::More) if at == wire.len() => {
                assert!(!framing.may_end());
                return (data, buffer.len(), Some(false));
            }
            Ok(Taken::More) => {
                let end = wire.len().min(at + piece);
                buffer.extend_from_slice(&wire[at..end]);
                at = end;
            }
        }
    }
}

fuzz_target!(|input: (u8, Vec<u8>)| {
    let (piece, wire) = input;
    let whole = read(&wire, wire.len().max(1));
    assert_eq!(whole, read(&wire, usize::from(piece).max(1)));
    if let (_, left, Some(true)) = whole {
        let end = wire.len() - left;
        assert_eq!(read(&wire[..end - 1], wire.len()).2, Some(false));
    }
});
