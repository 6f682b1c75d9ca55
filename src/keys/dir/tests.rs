// SPDX-License-Identifier: Apache-2.0

use std::os::unix::fs::PermissionsExt;

use super::*;

fn keys() -> (tempfile::TempDir, KeyDir) {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyDir::new(dir.path().join("keys"));
    (dir, keys)
}

fn states(keys: &KeyDir) -> Vec<State> {
    let (found, problems) = keys.list().unwrap();
    assert_eq!(problems, [""; 0]);
    found.into_iter().map(|f| f.state).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_first_start_makes_a_key_and_later_ones_keep_it() {
    let (_dir, keys) = keys();
    assert_eq!(keys.signing().unwrap_err().kind(), Kind::NotFound);
    let made = keys.ensure().unwrap();
    let id = made.public().id().clone();
    assert_eq!(mode(&keys.signing_file()), 0o600);
    assert_eq!(mode(&keys.dir), 0o700);
    assert_eq!(keys.ensure().unwrap().public().id(), &id);
    assert_eq!(keys.signing().unwrap().public().id(), &id);
    assert_eq!(states(&keys), [State::Signing]);
    // A public half that was lost is made again.
    fs::remove_file(keys.public_file(&id)).unwrap();
    keys.ensure().unwrap();
    assert!(keys.public_file(&id).exists());
}

#[test]
fn after_a_rotation_both_keys_are_trusted_until_the_old_one_is_removed() {
    let (_dir, keys) = keys();
    let first = keys.ensure().unwrap().public().clone();
    let second = keys.rotate(None).unwrap();
    assert_ne!(first, second);
    assert_eq!(keys.signing().unwrap().public(), &second);
    assert_eq!(states(&keys), [State::Signing, State::Trusted]);
    let trusted = keys.public().unwrap();
    assert!(trusted.contains(&first) && trusted.contains(&second));
    let refused = keys.remove(second.id()).unwrap_err();
    assert_eq!(refused.kind(), Kind::FailedPrecondition);
    keys.remove(first.id()).unwrap();
    assert_eq!(keys.public().unwrap(), [second]);
    assert_eq!(keys.remove(first.id()).unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_key_that_was_generated_signs_when_it_is_told_to() {
    let (_dir, keys) = keys();
    let first = keys.ensure().unwrap().public().clone();
    let next = keys.generate().unwrap();
    assert_eq!(keys.signing().unwrap().public(), &first);
    assert_eq!(states(&keys), [State::Signing, State::Waiting]);
    assert!(
        keys.public().unwrap().contains(&next),
        "nodes know it before"
    );
    assert_eq!(keys.rotate(Some(next.id())).unwrap(), next);
    assert_eq!(keys.signing().unwrap().public(), &next);
    assert_eq!(states(&keys), [State::Signing, State::Trusted]);
    // Its private half is not there twice, nor that of the key before.
    assert_eq!(fs::read_dir(&keys.dir).unwrap().count(), 2);
    let gone = keys.rotate(Some(first.id())).unwrap_err();
    assert_eq!(gone.kind(), Kind::NotFound);
}

#[test]
fn a_private_key_that_others_can_read_is_refused() {
    let (_dir, keys) = keys();
    keys.ensure().unwrap();
    for open in [0o640, 0o604, 0o644] {
        fs::set_permissions(keys.signing_file(), fs::Permissions::from_mode(open)).unwrap();
        let refused = keys.ensure().unwrap_err();
        assert_eq!(refused.kind(), Kind::FailedPrecondition);
        assert!(refused.to_string().contains("0600"), "{refused}");
        assert!(keys.rotate(None).is_err(), "nor is it replaced unseen");
    }
}

#[test]
fn a_broken_key_is_told_and_never_replaced_by_itself() {
    let (_dir, keys) = keys();
    keys.ensure().unwrap();
    fs::write(keys.signing_file(), "-----BEGIN PRIVATE KEY-----\n").unwrap();
    let broken = keys.ensure().unwrap_err();
    assert!(broken.to_string().contains("signing.pem"), "{broken}");
    fs::remove_file(keys.signing_file()).unwrap();
    fs::create_dir(keys.signing_file()).unwrap();
    assert!(keys.ensure().is_err());
    let (found, problems) = keys.list().unwrap();
    assert_eq!((found.len(), problems.len()), (1, 1));
}

#[test]
fn what_the_control_plane_told_replaces_what_it_told_before() {
    let (dir, keys) = keys();
    let told = dir.path().join("told");
    let first = keys.ensure().unwrap().public().clone();
    let second = keys.rotate(None).unwrap();
    let pem = |key: &PublicKey| key.to_pem().unwrap();
    let there = || -> Vec<PublicKey> {
        let files = file::public_files(&told).unwrap();
        files.into_values().map(|k| k.unwrap()).collect()
    };
    file::write_told(&told, &[pem(&first)]).unwrap();
    assert_eq!(there(), std::slice::from_ref(&first));
    file::write_told(&told, &[pem(&first), pem(&second)]).unwrap();
    assert_eq!(there().len(), 2);
    assert!(file::write_told(&told, &[pem(&second), "x".into()]).is_err());
    assert_eq!(
        there().len(),
        2,
        "nothing is taken of a list that is broken"
    );
    file::write_told(&told, &[pem(&second)]).unwrap();
    assert_eq!(there(), [second]);
}
