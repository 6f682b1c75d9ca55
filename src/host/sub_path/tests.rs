// SPDX-License-Identifier: Apache-2.0
use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
};

use super::*;

fn opened(path: &Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn is_same(fd: &OwnedFd, path: &Path) -> bool {
    let (found, wanted) = (rustix::fs::fstat(fd).unwrap(), fs::metadata(path).unwrap());
    (found.st_dev, found.st_ino) == (wanted.dev(), wanted.ino())
}

#[test]
fn a_directory_is_found_and_a_missing_one_made_as_the_root_is() {
    let dir = tempfile::tempdir().unwrap();
    let root = opened(dir.path());
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    let found = resolve(&root, ["a", "b"], false).unwrap();
    assert!(is_same(&found, &dir.path().join("a/b")));
    let missing = resolve(&root, ["a", "c"], false).unwrap_err();
    assert_eq!(errno(&missing), Some(Errno::NOENT.raw_os_error()));
    assert_eq!(missing.to_string(), "\"c\" is not there");

    for mode in [0o2775, 0o1777, 0o700] {
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
        let (one, two) = (
            format!("new{mode}"),
            dir.path().join(format!("new{mode}/x")),
        );
        let made = resolve(&root, [&one[..], "x"], true).unwrap();
        assert!(is_same(&made, &two));
        for path in [two.clone(), two.parent().unwrap().to_owned()] {
            let (now, like) = (
                fs::metadata(path).unwrap(),
                fs::metadata(dir.path()).unwrap(),
            );
            assert_eq!((now.uid(), now.gid()), (like.uid(), like.gid()));
            assert_eq!(now.mode() & 0o7777, mode);
        }
    }
}

#[test]
fn what_is_no_directory_is_refused_by_its_name_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let root = opened(dir.path());
    fs::create_dir(dir.path().join("real")).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    for (link, to) in [
        ("absolute", outside.path()),
        ("up", Path::new("..")),
        ("beside", Path::new("real")),
        ("magic", Path::new("/proc/self/root")),
        ("dangling", Path::new("/no/such/place")),
    ] {
        symlink(to, dir.path().join(link)).unwrap();
        for parts in [&[link][..], &[link, "x"], &["real", "..", link]] {
            let refused = resolve(&root, parts.iter().copied(), true).unwrap_err();
            assert!(errno(&refused).is_some_and(is_content), "{link}: {refused}");
        }
        let refused = resolve(&root, [link], true).unwrap_err();
        let text = format!("{link:?} is a symbolic link, which is never followed");
        assert_eq!(refused.to_string(), text);
    }
    for parts in [
        &["file"][..],
        &["file", "x"],
        &[".."],
        &["real", "..", ".."],
    ] {
        let refused = resolve(&root, parts.iter().copied(), true).unwrap_err();
        assert!(errno(&refused).is_some_and(is_content), "{refused}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    assert_eq!(fs::read_dir(dir.path().join("real")).unwrap().count(), 0);
}
