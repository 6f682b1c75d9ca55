// SPDX-License-Identifier: Apache-2.0
//! ttrpc, unary calls only: a header of ten bytes (length, stream id, type,
//! flags), then a `Request` or a `Response`.

mod client;
mod server;

pub use client::Client;
pub use server::{Answer, Call, Service, serve};

use crate::error::{Error, Result};

const HEADER: usize = 10;

/// The longest message of the protocol.
pub const MAX_MESSAGE: usize = 4 << 20;

const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;

/// One message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The call it belongs to.
    pub stream: u32,
    /// Request, response or something unknown.
    pub kind: u8,
    /// What it carries.
    pub body: Body,
}

/// What a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Its bytes.
    Whole(Vec<u8>),
    /// It was longer than [`MAX_MESSAGE`] and was thrown away.
    Oversized {
        /// Its announced length.
        length: u32,
    },
}

/// Takes messages apart as bytes arrive. It holds at most one message.
#[derive(Default)]
pub struct Messages {
    header: [u8; HEADER],
    have: usize,
    body: Vec<u8>,
    /// How much of an oversized body was thrown away.
    skipped: usize,
}

impl Messages {
    /// Takes the next message off the front of `input`; `None` when `input` is
    /// used up.
    pub fn take(&mut self, input: &mut &[u8]) -> Option<Message> {
        if self.have < HEADER {
            let part = split(input, HEADER - self.have);
            self.header[self.have..self.have + part.len()].copy_from_slice(part);
            self.have += part.len();
            if self.have < HEADER {
                return None;
            }
        }
        let [a, b, c, d, e, f, g, h, kind, _flags] = self.header;
        let announced = u32::from_be_bytes([a, b, c, d]);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        let body = if length > MAX_MESSAGE {
            self.skipped += split(input, length - self.skipped).len();
            if self.skipped < length {
                return None;
            }
            Body::Oversized { length: announced }
        } else {
            if self.body.capacity() < length {
                self.body.reserve_exact(length);
            }
            self.body
                .extend_from_slice(split(input, length - self.body.len()));
            if self.body.len() < length {
                return None;
            }
            Body::Whole(std::mem::take(&mut self.body))
        };
        self.have = 0;
        self.skipped = 0;
        Some(Message {
            stream: u32::from_be_bytes([e, f, g, h]),
            kind,
            body,
        })
    }

    /// Whether the bytes so far end with a whole message.
    pub fn finish(&self) -> Result<()> {
        if self.have == 0 {
            return Ok(());
        }
        Err(Error::unavailable(
            "the runtime closed the connection in the middle of a message",
        ))
    }
}

fn split<'a>(input: &mut &'a [u8], at_most: usize) -> &'a [u8] {
    let (part, rest) = input.split_at(at_most.min(input.len()));
    *input = rest;
    part
}

/// Header and body of one message.
fn encode(stream: u32, kind: u8, body: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_MESSAGE)
        .ok_or_else(|| {
            Error::exhausted(format!(
                "a ttrpc message of {} bytes is over the limit of {MAX_MESSAGE}",
                body.len()
            ))
        })?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    message.extend_from_slice(&length.to_be_bytes());
    message.extend_from_slice(&stream.to_be_bytes());
    message.extend_from_slice(&[kind, 0]);
    message.extend_from_slice(body);
    Ok(message)
}

/// All messages of a recorded stream.
pub fn decode(mut bytes: &[u8]) -> Result<Vec<Message>> {
    let mut messages = Messages::default();
    let mut found = Vec::new();
    while let Some(message) = messages.take(&mut bytes) {
        found.push(message);
    }
    messages.finish()?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_has_the_header_of_the_published_protocol() {
        let message = encode(3, REQUEST, b"hi").unwrap();
        assert_eq!(message, [0, 0, 0, 2, 0, 0, 0, 3, 1, 0, b'h', b'i']);
    }

    #[test]
    fn an_oversized_message_is_thrown_away_and_the_next_one_read() {
        let length = MAX_MESSAGE as u32 + 1;
        let mut bytes = length.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 5, REQUEST, 0]);
        bytes.resize(HEADER + length as usize, 9);
        bytes.extend(encode(7, REQUEST, b"next").unwrap());
        let mut messages = Messages::default();
        let mut found = Vec::new();
        for mut part in bytes.chunks(10_000) {
            while let Some(message) = messages.take(&mut part) {
                found.push(message);
            }
            assert!(messages.body.capacity() <= 4, "it was kept");
        }
        let [oversized, next] = found.try_into().unwrap();
        assert_eq!(
            (oversized.stream, oversized.body),
            (5, Body::Oversized { length })
        );
        assert_eq!(next.body, Body::Whole(b"next".to_vec()));
    }

    #[test]
    fn a_message_of_the_greatest_length_passes_and_one_more_is_refused() {
        let bytes = encode(1, RESPONSE, &vec![1; MAX_MESSAGE]).unwrap();
        let [message] = decode(&bytes).unwrap().try_into().unwrap();
        assert!(matches!(message.body, Body::Whole(body) if body.len() == MAX_MESSAGE));
        let error = encode(1, RESPONSE, &vec![1; MAX_MESSAGE + 1]).unwrap_err();
        assert!(error.full_message().contains("4194305 bytes"));
    }

    #[test]
    fn a_truncated_message_is_an_error_wherever_it_ends() {
        let bytes = encode(1, REQUEST, b"body").unwrap();
        for end in 1..bytes.len() {
            let error = decode(&bytes[..end]).unwrap_err().full_message();
            assert!(error.contains("middle of a message"), "{end}: {error}");
        }
        assert_eq!(decode(&[]).unwrap(), []);
    }

    /// Mostly zeros, so that lengths are often small enough to be believed.
    fn byte() -> impl Strategy<Value = u8> {
        prop_oneof![4 => Just(0), 2 => 0..8_u8, 1 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_never_allocate_beyond_the_limit(
            bytes in proptest::collection::vec(byte(), 0..400),
        ) {
            let mut messages = Messages::default();
            let mut input = &bytes[..];
            let mut total = 0;
            while let Some(message) = messages.take(&mut input) {
                if let Body::Whole(body) = message.body {
                    total += body.len();
                }
            }
            prop_assert!(messages.body.capacity() <= MAX_MESSAGE);
            prop_assert!(total <= bytes.len());
        }

        #[test]
        fn messages_cut_at_every_byte_boundary_decode_the_same(
            sent in proptest::collection::vec((any::<u32>(), 1..4_u8, proptest::collection::vec(any::<u8>(), 0..32)), 1..5),
        ) {
            let bytes: Vec<u8> = sent
                .iter()
                .flat_map(|(stream, kind, body)| encode(*stream, *kind, body).unwrap())
                .collect();
            let whole = decode(&bytes).unwrap();
            prop_assert_eq!(whole.len(), sent.len());
            for cut in 0..=bytes.len() {
                let mut messages = Messages::default();
                let mut found = Vec::new();
                for mut part in [&bytes[..cut], &bytes[cut..]] {
                    while let Some(message) = messages.take(&mut part) {
                        found.push(message);
                    }
                }
                messages.finish().unwrap();
                prop_assert_eq!(&found, &whole);
            }
        }
    }
}
