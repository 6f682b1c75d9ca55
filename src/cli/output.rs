// SPDX-License-Identifier: Apache-2.0
//! Tables, JSON and YAML on stdout.

use std::io::{ErrorKind, Write};

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::quantity::Quantity,
    error::{Error, Result},
    proto::api::{Trouble, Volume},
};

/// The option of verbs that print.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// How to print.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For people and programs.
    Yaml,
}

impl Output {
    /// Prints the value, or the text made for people.
    pub(super) fn print<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        let broken = |e: String| Error::internal(format!("cannot print the answer: {e}"));
        let text = match self.format {
            Format::Table => text(),
            Format::Json => pretty(value)?,
            Format::Yaml => serde_saphyr::to_string(value).map_err(|e| broken(e.to_string()))?,
        };
        print(&text)
    }
}

/// JSON for people and programs.
pub(super) fn pretty<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map_err(|e| Error::internal("cannot print the answer").with_source(e))
}

/// Prints the text, with a line end after it.
pub(super) fn print(text: &str) -> Result<()> {
    print_on(text).map(drop)
}

/// The same; whether anybody reads on.
pub(super) fn print_on(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    let end = if text.ends_with('\n') { "" } else { "\n" };
    let done = write!(out, "{text}{end}").and_then(|()| out.flush());
    match done {
        // Whoever reads has seen enough.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(Error::internal("cannot write to stdout").with_source(e)),
        Ok(()) => Ok(true),
    }
}

/// A manifest of the server.
pub(super) fn manifest(json: &str) -> Result<Value> {
    serde_json::from_str(json)
        .map_err(|e| Error::internal("the server's manifest is not JSON").with_source(e))
}

/// Columns, as wide as they need to be. An empty field shows as `-`.
pub(super) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let shown = |cell: &str| match cell {
        "" => "-".to_owned(),
        cell => cell.to_owned(),
    };
    let mut lines = vec![header.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|r| r.iter().map(|c| shown(c)).collect()));
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|c| c.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let mut row = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            row.push_str(&format!("{cell:<width$}   "));
        }
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

/// Names and values, one a line; empty values are left out.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let present = || fields.iter().filter(|(_, value)| !value.is_empty());
    let width = present().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    present()
        .map(|(name, value)| format!("{:<width$}{value}\n", format!("{name}:")))
        .collect()
}

/// How long ago that was.
pub(super) fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else {
        return String::new();
    };
    age_of(Timestamp::now().as_second() - then.as_second())
}

fn age_of(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7_200 => format!("{}m", s / 60),
        s @ 7_200..172_800 => format!("{}h", s / 3_600),
        s => format!("{}d", s / 86_400),
    }
}

/// Bytes as people write them.
pub(super) fn bytes(bytes: u64) -> String {
    match bytes {
        0 => String::new(),
        bytes => Quantity::from_bytes(bytes)
            .map_or_else(|_| bytes.to_string(), |quantity| quantity.to_string()),
    }
}

/// Where a volume is in its life: one that its actor's template lacks is kept
/// until the rollout is complete.
pub(super) fn volume_phase(volume: &Volume) -> &str {
    match volume.phase.as_str() {
        "Ready" if volume.unbound => "Kept",
        phase => phase,
    }
}

/// What goes wrong, on one line.
pub(super) fn trouble(trouble: Option<&Trouble>) -> String {
    let Some(trouble) = trouble else {
        return String::new();
    };
    let next = match trouble.next_try.as_str() {
        "" => "not tried again by itself".to_owned(),
        time => format!("next try {time}"),
    };
    format!(
        "{} (failed tries: {}, last {}, {next})",
        trouble.message, trouble.attempts, trouble.last_try
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_shows_what_is_empty() {
        let rows = [
            vec!["a".to_owned(), "long name".to_owned()],
            vec!["bcd".to_owned(), String::new()],
        ];
        assert_eq!(
            table(&["ID", "NAME"], &rows),
            "ID    NAME\na     long name\nbcd   -\n"
        );
    }

    #[test]
    fn fields_without_a_value_are_left_out() {
        let text = fields(&[("Name", "x".into()), ("Node", String::new())]);
        assert_eq!(text, "Name: x\n");
    }

    #[test]
    fn an_age_has_one_unit() {
        for (seconds, shown) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(age_of(seconds), shown);
        }
    }
}
