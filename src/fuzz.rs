// SPDX-License-Identifier: Apache-2.0
//! What reads bytes from outside, as functions over any bytes: what the targets in
//! `fuzz/` run, and what the tests run over each target's corpus.
//!
//! A function panics where what must hold does not.

mod doors;
mod state;
mod text;
mod wire;

/// What a target does with an input.
type Target = fn(&[u8]);

/// The functions, by the name of their target.
pub const TARGETS: &[(&str, Target)] = &[
    ("annotation", text::annotation),
    ("config", text::config),
    ("csi_answers", wire::csi_answers),
    ("line", doors::line),
    ("mountinfo", state::mountinfo),
    ("nri_messages", wire::nri_messages),
    ("nri_mux", wire::nri_mux),
    ("nri_ttrpc", wire::nri_ttrpc),
    ("oci_config", text::oci_config),
    ("oci_edit", text::oci_edit),
    ("oci_state", text::oci_state),
    ("quantity", text::quantity),
    ("record", state::record),
    ("requests", doors::requests),
    ("storage_class", text::storage_class),
    ("store", state::store),
    ("template", text::template),
];

/// Runs one target over these bytes.
pub fn run(target: &str, bytes: &[u8]) {
    let found = TARGETS.iter().find(|(name, _)| *name == target);
    found.expect("a target of this name").1(bytes);
}

/// Pieces of an input: a byte, a length of two bytes, and so many bytes; the last may
/// be short.
fn pieces(mut bytes: &[u8]) -> Vec<(u8, &[u8])> {
    let mut pieces = Vec::new();
    while let Some(([kind, high, low], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
        let (piece, after) = rest.split_at(length);
        pieces.push((*kind, piece));
        bytes = after;
    }
    pieces
}

/// A runtime of its own for one input.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(work)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn fuzz() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
    }

    fn names(dir: &str) -> BTreeSet<String> {
        let found = fs::read_dir(fuzz().join(dir)).expect("it is committed");
        let path = |entry: std::io::Result<fs::DirEntry>| entry.expect("it can be listed").path();
        let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
        found.map(|entry| stem(&path(entry))).collect()
    }

    /// Each target is a program of fuzz/ and has inputs, and there are no others.
    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).into()).collect();
        assert_eq!(targets.len(), TARGETS.len());
        assert_eq!(names("fuzz_targets"), targets);
        assert_eq!(names("corpus"), targets);
        let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
        for target in targets {
            let line = format!("name = \"{target}\"");
            assert!(manifest.contains(&line), "fuzz/Cargo.toml has no {line}");
        }
    }

    #[test]
    fn every_input_that_was_ever_found_is_borne() {
        for (name, function) in TARGETS {
            let mut inputs = 0;
            for entry in fs::read_dir(fuzz().join("corpus").join(name)).unwrap() {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                // So that a panic is told with the file that it came of.
                if std::panic::catch_unwind(|| function(&bytes)).is_err() {
                    panic!("{} is not borne", path.display());
                }
                inputs += 1;
            }
            assert!(inputs > 0, "{name} has no corpus");
        }
    }

    /// The packages of a lock file: name and version.
    fn locked(lock: &Path) -> BTreeSet<(String, String)> {
        let lock: toml::Table = fs::read_to_string(lock).unwrap().parse().unwrap();
        let text = |package: &toml::Value, key: &str| package[key].as_str().unwrap().to_owned();
        let packages = lock["package"].as_array().unwrap().iter();
        packages
            .map(|p| (text(p, "name"), text(p, "version")))
            .collect()
    }

    /// fuzz/ has a lock file of its own, for it is a workspace of its own.
    #[test]
    fn what_is_fuzzed_is_built_of_the_same_versions() {
        let ours = locked(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock"));
        let fuzzed = locked(&fuzz().join("Cargo.lock"));
        let names: BTreeSet<_> = ours.iter().map(|(name, _)| name.as_str()).collect();
        let others: Vec<_> = fuzzed
            .difference(&ours)
            .filter(|(name, _)| names.contains(name.as_str()))
            .collect();
        assert!(!fuzzed.is_disjoint(&ours));
        assert!(others.is_empty(), "fuzz/Cargo.lock has {others:?}");
    }

    #[test]
    fn an_input_is_cut_into_pieces() {
        assert_eq!(
            pieces(&[7, 0, 1, 9, 8, 0, 9, 1]),
            [(7, &[9][..]), (8, &[1])]
        );
        assert_eq!(pieces(&[7, 0]), []);
    }
}
