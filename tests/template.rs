// SPDX-License-Identifier: Apache-2.0
//! Templates as people write them: `tests/data/templates/good` must be read,
//! each of `bad` must be refused with exactly the problems in the file beside it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use actor_volumes::api::template::{Template, parse};

fn yaml_files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data/templates")
        .join(directory);
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("the directory is in the repository")
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn good_templates_are_read_and_mean_what_the_file_beside_them_says() {
    for file in yaml_files("good") {
        let template = parse(&read(&file))
            .unwrap_or_else(|problems| panic!("{}:\n{problems}", file.display()));
        let expected: Template = serde_json::from_str(&read(&file.with_extension("json"))).unwrap();
        assert_eq!(template, expected, "{}", file.display());
        let manifest = template.to_manifest().to_string();
        assert_eq!(parse(&manifest).as_ref(), Ok(&template), "{manifest}");
    }
}

#[test]
fn bad_templates_are_refused_with_all_their_problems() {
    for file in yaml_files("bad") {
        let problems = parse(&read(&file)).expect_err(&file.display().to_string());
        let expected = read(&file.with_extension("problems"));
        assert_eq!(
            problems.to_string(),
            expected.trim_end(),
            "{}",
            file.display()
        );
    }
}
