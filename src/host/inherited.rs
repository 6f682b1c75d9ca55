// SPDX-License-Identifier: Apache-2.0
//! A descriptor that whoever started this process has left open for it.

use std::{
    io,
    os::{
        fd::{BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use rustix::{
    io::{FdFlags, fcntl_getfd, fcntl_setfd},
    net::{AddressFamily, SocketType, sockopt},
};

/// Standard input, output and error are no socket of ours.
const FIRST: i32 = 3;

/// Takes the connected unix socket with this number, which must be nobody else's in
/// this process. Programs that this process starts do not get it.
#[allow(unsafe_code)]
pub fn take_socket(number: i32) -> io::Result<UnixStream> {
    if number < FIRST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a number that is not open is an error of the first call below; nothing
    // else in this process closes it meanwhile, as the caller promises.
    let seen = unsafe { BorrowedFd::borrow_raw(number) };
    let flags = fcntl_getfd(seen)?;
    if sockopt::socket_domain(seen)? != AddressFamily::UNIX
        || sockopt::socket_type(seen)? != SocketType::STREAM
    {
        return Err(io::Error::other("it is no unix stream socket"));
    }
    fcntl_setfd(seen, flags | FdFlags::CLOEXEC)?;
    // SAFETY: it is open, and nobody else has it, as the caller promises.
    let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) });
    stream.set_nonblocking(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Write},
        os::fd::{AsRawFd, IntoRawFd},
    };

    use super::*;

    #[test]
    fn a_socket_is_taken_and_not_handed_on() {
        let (theirs, mut ours) = UnixStream::pair().unwrap();
        fcntl_setfd(&theirs, FdFlags::empty()).unwrap();
        let mut taken = take_socket(theirs.into_raw_fd()).unwrap();
        assert_eq!(fcntl_getfd(&taken).unwrap(), FdFlags::CLOEXEC);
        ours.write_all(b"x").unwrap();
        taken.set_nonblocking(false).unwrap();
        let mut byte = [0];
        taken.read_exact(&mut byte).unwrap();
        assert_eq!(&byte, b"x");
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let file = File::open("/dev/null").unwrap();
        assert!(take_socket(file.as_raw_fd()).is_err());
        assert!(file.metadata().is_ok(), "it is still open");
        for number in [-1, 0, 2, i32::MAX] {
            assert!(take_socket(number).is_err(), "{number}");
        }
    }
}
