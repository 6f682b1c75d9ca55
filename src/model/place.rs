// SPDX-License-Identifier: Apache-2.0
//! Paths inside a container, told apart by their parts and never as text.

use std::path::{Path, PathBuf};

/// The path without empty, `.` and `..` parts, as a runtime resolves it in a
/// root without links.
pub fn clean_path(path: &str) -> PathBuf {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Path::new("/").join(parts.join("/"))
}
