// SPDX-License-Identifier: Apache-2.0
//! What every store promises, run over each of them.

use super::{Store, Write, list_all};
use crate::error::Kind;

/// Runs all of it; `make` gives a fresh store for a name.
pub(super) fn run(make: &mut dyn FnMut(&str) -> Box<dyn Store>) {
    a_batch_is_all_or_nothing(&*make("all-or-nothing"));
    a_write_names_the_revision_that_it_replaces(&*make("compare-and-swap"));
    a_prefix_is_listed_in_order_and_in_pages(&*make("pages"));
    one_key_is_changed_once_in_a_batch(&*make("distinct"));
    two_writers_of_one_revision_never_both_win(&*make("race"));
}

fn put(key: &str, expect: Option<super::Revision>, value: &str) -> Write {
    Write {
        key: key.into(),
        expect,
        value: Some(value.as_bytes().to_vec()),
    }
}

fn a_batch_is_all_or_nothing(store: &dyn Store) {
    store.write(&[put("a", None, "1")]).unwrap();
    let refused = store.write(&[put("b", None, "1"), put("a", None, "2")]);
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), Kind::Aborted);
    assert!(error.to_string().contains("record a "), "{error}");
    assert_eq!(store.get("b").unwrap(), None);
    assert_eq!(store.get("a").unwrap().unwrap().value, b"1");
}

fn a_write_names_the_revision_that_it_replaces(store: &dyn Store) {
    let first = store.write(&[put("a", None, "1")]).unwrap();
    let second = store.write(&[put("a", Some(first), "2")]).unwrap();
    assert!(second > first);
    assert!(store.write(&[put("a", Some(first), "3")]).is_err());
    let remove = |expect| Write {
        key: "a".into(),
        expect,
        value: None,
    };
    assert!(store.write(&[remove(Some(first))]).is_err());
    assert!(store.write(&[remove(None)]).is_err());
    store.write(&[remove(Some(second))]).unwrap();
    assert_eq!(store.get("a").unwrap(), None);
    assert!(store.write(&[put("a", Some(second), "4")]).is_err());
    // A name that comes again has a revision that nobody can hold from before.
    assert!(store.write(&[put("a", None, "5")]).unwrap() > second);
}

fn a_prefix_is_listed_in_order_and_in_pages(store: &dyn Store) {
    let keys = ["p", "p/1", "p/2", "p/3", "p0", "q/1"];
    let batch: Vec<_> = keys.iter().rev().map(|k| put(k, None, k)).collect();
    store.write(&batch).unwrap();
    let names = |page: &super::Page| page.items.iter().map(|i| i.0.clone()).collect::<Vec<_>>();

    let first = store.list("p/", None, 2).unwrap();
    assert_eq!(names(&first), ["p/1", "p/2"]);
    let second = store.list("p/", first.next.as_deref(), 2).unwrap();
    assert_eq!(names(&second), ["p/3"]);
    assert_eq!(second.next, None);
    // A page that is exactly full says whether another follows.
    assert_eq!(store.list("p/", None, 3).unwrap().next, None);
    assert_eq!(list_all(store, "p/").unwrap().len(), 3);
    assert_eq!(list_all(store, "x").unwrap().len(), 0);
}

fn one_key_is_changed_once_in_a_batch(store: &dyn Store) {
    assert!(
        store
            .write(&[put("a", None, "1"), put("a", None, "2")])
            .is_err()
    );
    assert_eq!(store.get("a").unwrap(), None);
}

fn two_writers_of_one_revision_never_both_win(store: &dyn Store) {
    let mut revision = store.write(&[put("a", None, "0")]).unwrap();
    for round in 0..8 {
        let winners: Vec<_> = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..4)
                .map(|who| {
                    let value = format!("{round}-{who}");
                    scope.spawn(move || store.write(&[put("a", Some(revision), &value)]))
                })
                .collect();
            tries
                .into_iter()
                .filter_map(|t| t.join().unwrap().ok())
                .collect()
        });
        assert_eq!(winners.len(), 1);
        revision = winners[0];
    }
}
