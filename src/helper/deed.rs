// SPDX-License-Identifier: Apache-2.0
//! The process of one deed: reads it, does it, says what came of it, ends.

use std::{
    io::{self, Read, Write},
    path::Path,
};

use super::{Answer, Deed, Request, wire::MAX_LINE};
use crate::{
    error::Result,
    host::{durable, enter, idmap, process, sub_path},
    model::SubPath,
};

/// Does what is asked on standard input, below this mount root. It ends with the
/// server that started it.
pub fn run(root: &Path) -> io::Result<()> {
    process::end_with_parent()?;
    process::take_no_mode_away();
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
            errno: sub_path::errno(&error),
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
        Deed::Own { shows, gid } => enter::own(&target, shows, *gid),
        Deed::Show {
            shows,
            sub_path,
            make,
        } => {
            let at = request.place.sub_path(root, sub_path);
            durable::make_dir(&at)?;
            sub_path::show(&target, shows, sub_path.parts(), *make, &at).map(|()| true)
        }
        Deed::MapIds { shows, process } => idmap::can_map(&target, shows, *process).map(|()| false),
        Deed::Hide { sub_path } => hide(root, request, sub_path),
    }
}

fn hide(root: &Path, request: &Request, what: &SubPath) -> io::Result<bool> {
    let at = request.place.sub_path(root, what);
    let changed = sub_path::take_away(&at)?;
    durable::remove_empty_dir(&at)?;
    // The last one takes the directory of all with it.
    match durable::remove_empty_dir(&request.place.sub_paths(root)) {
        Err(e) if e.kind() != io::ErrorKind::DirectoryNotEmpty => Err(e),
        _ => Ok(changed),
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
