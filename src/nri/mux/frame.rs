// SPDX-License-Identifier: Apache-2.0
//! The frames of the multiplexer: connection id and payload length, four bytes
//! each in network order, then the payload. Pure.

use std::collections::BTreeMap;

use crate::error::{Error, Result};

const HEADER: usize = 8;

/// The longest payload that is sent in one frame. A runtime written in Go reads
/// ttrpc through a buffer of this size and closes the connection on a frame
/// that does not fit.
pub const MAX_SENT: usize = 4096;

/// The longest payload that is accepted in one frame: what NRI before 0.7 may
/// send. A longer one means that the two sides are out of step.
pub const MAX_RECEIVED: usize = (16 << 20) + 10;

/// Takes frames apart as bytes arrive. It holds no payload, only its place.
#[derive(Default)]
pub struct Frames {
    header: [u8; HEADER],
    have: usize,
    id: u32,
    left: usize,
}

impl Frames {
    /// Takes the next piece of payload off the front of `input`; `None` when
    /// `input` is used up. One frame may come as several pieces.
    pub fn take<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<(u32, &'a [u8])>> {
        loop {
            if self.left > 0 {
                if input.is_empty() {
                    return Ok(None);
                }
                let (piece, rest) = input.split_at(self.left.min(input.len()));
                *input = rest;
                self.left -= piece.len();
                return Ok(Some((self.id, piece)));
            }
            let (part, rest) = input.split_at((HEADER - self.have).min(input.len()));
            *input = rest;
            self.header[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            if self.have < HEADER {
                return Ok(None);
            }
            self.have = 0;
            let [a, b, c, d, e, f, g, h] = self.header;
            self.id = u32::from_be_bytes([a, b, c, d]);
            let length = u32::from_be_bytes([e, f, g, h]);
            self.left = usize::try_from(length).unwrap_or(usize::MAX);
            if self.left > MAX_RECEIVED {
                return Err(Error::internal(format!(
                    "the runtime announced a frame of {length} bytes, the limit is {MAX_RECEIVED}: the connection is out of step"
                )));
            }
        }
    }

    /// Whether the bytes so far end with a whole frame.
    pub fn finish(&self) -> Result<()> {
        if self.have == 0 && self.left == 0 {
            return Ok(());
        }
        Err(Error::unavailable(
            "the runtime closed the connection in the middle of a frame",
        ))
    }
}

/// Appends the message to `out` as frames of one connection.
pub fn encode(id: u32, message: &[u8], out: &mut Vec<u8>) {
    for payload in message.chunks(MAX_SENT) {
        let length = u32::try_from(payload.len()).expect("a chunk has at most MAX_SENT bytes");
        out.extend_from_slice(&id.to_be_bytes());
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(payload);
    }
}

/// What a recorded connection carried, joined by connection id; id 0 is
/// reserved and left out.
pub fn decode(mut bytes: &[u8]) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut frames = Frames::default();
    let mut streams = BTreeMap::<u32, Vec<u8>>::new();
    while let Some((id, piece)) = frames.take(&mut bytes)? {
        if id != 0 {
            streams.entry(id).or_default().extend_from_slice(piece);
        }
    }
    frames.finish()?;
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_message_is_cut_into_frames_that_a_go_runtime_can_read() {
        let message = vec![7; 2 * MAX_SENT + 1];
        let mut out = Vec::new();
        encode(1, &message, &mut out);
        let lengths: Vec<u32> = [0, HEADER + MAX_SENT, 2 * (HEADER + MAX_SENT)]
            .map(|at| u32::from_be_bytes(out[at + 4..at + 8].try_into().unwrap()))
            .into();
        assert_eq!(lengths, [4096, 4096, 1]);
        assert_eq!(decode(&out).unwrap()[&1], message);
    }

    #[test]
    fn a_frame_beyond_the_limit_is_an_error_at_its_header() {
        let mut bytes = vec![0, 0, 0, 1];
        bytes.extend_from_slice(&(MAX_RECEIVED as u32 + 1).to_be_bytes());
        let error = decode(&bytes).unwrap_err();
        assert!(error.full_message().contains("out of step"), "{error:?}");
        bytes[4..].copy_from_slice(&(MAX_RECEIVED as u32).to_be_bytes());
        let error = decode(&bytes).unwrap_err();
        assert!(error.full_message().contains("middle of a frame"));
    }

    #[test]
    fn the_reserved_id_is_ignored() {
        let mut bytes = Vec::new();
        encode(0, b"x", &mut bytes);
        encode(2, b"y", &mut bytes);
        assert_eq!(decode(&bytes).unwrap(), [(2, b"y".to_vec())].into());
    }

    /// Mostly zeros, so that lengths are often small enough to be believed.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![4 => Just(0), 2 => 0..8_u8, 1 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_grow(
            bytes in proptest::collection::vec(byte(), 0..400),
        ) {
            if let Ok(streams) = decode(&bytes) {
                prop_assert!(streams.values().map(Vec::len).sum::<usize>() <= bytes.len());
            }
        }

        #[test]
        fn frames_cut_at_every_byte_boundary_decode_the_same(
            messages in proptest::collection::vec((1..4_u32, proptest::collection::vec(any::<u8>(), 0..64)), 1..6),
        ) {
            let mut bytes = Vec::new();
            for (id, message) in &messages {
                encode(*id, message, &mut bytes);
            }
            let whole = decode(&bytes).unwrap();
            for cut in 0..=bytes.len() {
                let mut frames = Frames::default();
                let mut streams = BTreeMap::<u32, Vec<u8>>::new();
                for mut part in [&bytes[..cut], &bytes[cut..]] {
                    while let Some((id, piece)) = frames.take(&mut part).unwrap() {
                        streams.entry(id).or_default().extend_from_slice(piece);
                    }
                }
                frames.finish().unwrap();
                prop_assert_eq!(&streams, &whole);
            }
        }
    }
}
