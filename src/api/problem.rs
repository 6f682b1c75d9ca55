// SPDX-License-Identifier: Apache-2.0
//! Everything that is wrong with one document.

use std::fmt;

use crate::error::Error;

/// A message longer than this is cut: it quotes what the document holds.
const MAX_MESSAGE_CHARS: usize = 400;

/// What of the problems is put into an [`Error`], which may travel in the
/// trailers of a gRPC answer, where space is short.
const MAX_ERROR_BYTES: usize = 4096;

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, such as `spec.volumes[0].name`; empty: the whole document.
    pub path: String,
    /// What is wrong with it and what to do.
    pub message: String,
}

/// Everything that is wrong with one document; shown one per line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// A single problem with the whole document.
    pub(super) fn of_document(message: impl fmt::Display) -> Self {
        let mut problems = Self::default();
        problems.add("", message);
        problems
    }

    /// Notes one more.
    pub(super) fn add(&mut self, path: &str, message: impl fmt::Display) {
        self.0.push(Problem {
            path: path.to_owned(),
            message: cut(&message.to_string(), MAX_MESSAGE_CHARS),
        });
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One line of at most this many characters, and a mark if more was cut off.
pub(super) fn cut(message: &str, chars: usize) -> String {
    let mut line: String = message
        .chars()
        .take(chars)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() < message.len() {
        line.push('…');
    }
    line
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl From<Problems> for Error {
    /// As many of the problems as an error can carry, one per line.
    fn from(problems: Problems) -> Self {
        let mut text = String::new();
        for (index, problem) in problems.0.iter().enumerate() {
            let line = problem.to_string();
            if index > 0 {
                if text.len() + line.len() > MAX_ERROR_BYTES {
                    let left = problems.0.len() - index;
                    text.push_str(&format!("\nand {left} more"));
                    break;
                }
                text.push('\n');
            }
            text.push_str(&line);
        }
        Self::invalid(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn problems_are_shown_one_per_line_with_their_paths() {
        let mut problems = Problems::of_document("is empty");
        problems.add("spec.volumes[0].name", "is\nrequired");
        assert_eq!(
            problems.to_string(),
            "is empty\nspec.volumes[0].name: is required"
        );
        let error = Error::from(problems);
        assert_eq!(error.kind(), Kind::InvalidInput);
        assert_eq!(
            error.to_string(),
            "is empty\nspec.volumes[0].name: is required"
        );
    }

    #[test]
    fn an_error_counts_the_problems_that_it_has_no_room_for() {
        let mut problems = Problems::default();
        for index in 0..1000 {
            problems.add(&format!("a[{index}]"), "x".repeat(10_000));
        }
        assert!(problems.0[0].message.chars().count() <= MAX_MESSAGE_CHARS + 1);
        let text = Error::from(problems).to_string();
        assert!(text.len() < MAX_ERROR_BYTES + 1000, "{}", text.len());
        assert!(text.ends_with("more"), "{text}");
    }
}
