// SPDX-License-Identifier: Apache-2.0
//! The process of one deed: reads it, does it, says what came of it, ends.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use super::{Answer, Deed, Request, wire::MAX_LINE};
use crate::{
    error::Result,
    host::{enter, idmap, process},
};

/// Does what is asked on standard input, below this mount root. It ends with the
/// server that started it.
pub fn run(root: &Path) -> io::Result<()> {
    process::end_with_parent()?;
    let mut line = Vec::new();
    io::stdin()
        .take(MAX_LINE as u64 + 1)
        .read_to_end(&mut line)?;
    let answer = answer(root, Request::decode(&line));
    io::stdout().write_all(&answer.encode())
}

fn answer(root: &Path, request: Result<Request>) -> Answer {
    match request.map(|request| perform(root, &request)) {
        Ok(Ok(changed)) => Answer::Done { changed },
        Ok(Err(error)) => Answer::Failed {
            errno: error.raw_os_error(),
            message: error.to_string(),
        },
        Err(error) => Answer::Refused {
            message: error.full_message(),
        },
    }
}

fn perform(root: &Path, request: &Request) -> io::Result<bool> {
    let target = request.place.target(root);
    match &request.deed {
        Deed::Probe {} => enter::probe(&target).map(|()| false),
        Deed::Own { mount, gid } => enter::own(&target, *mount, *gid),
        Deed::MapIds { mount, process } => {
            idmap::can_map(&target, *mount, *process).map(|()| false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::wire::tests::place, *};

    #[test]
    fn what_is_not_there_is_answered_with_its_errno() {
        let dir = tempfile::tempdir().unwrap();
        let request = Request {
            place: place(),
            deed: Deed::Probe {},
        };
        let found = answer(dir.path(), Ok(request.clone()));
        let Answer::Failed { errno: Some(2), .. } = found else {
            panic!("{found:?}");
        };
        std::fs::create_dir_all(place().target(dir.path())).unwrap();
        let found = answer(dir.path(), Ok(request));
        assert_eq!(found, Answer::Done { changed: false });
        let refused = answer(dir.path(), Request::decode(b"{}"));
        assert!(matches!(refused, Answer::Refused { .. }), "{refused:?}");
    }
}
