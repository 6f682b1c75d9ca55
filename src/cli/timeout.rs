// SPDX-License-Identifier: Apache-2.0
//! How long a verb waits.

use std::time::Duration;

use clap::Args;

/// The option of verbs that wait.
#[derive(Debug, Args)]
pub(super) struct Timeout {
    /// How long to wait: seconds, or a number with ms, s, m or h.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse)]
    pub(super) timeout: Duration,
}

impl Timeout {
    /// The wait as requests name it.
    pub(super) fn as_ms(&self) -> u32 {
        // 0 would stand for the server's default.
        u32::try_from(self.timeout.as_millis())
            .unwrap_or(u32::MAX)
            .max(1)
    }
}

fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let number: Option<u64> = digits.parse().ok();
    match number.and_then(|n| n.checked_mul(unit)) {
        Some(ms) if unit > 0 => Ok(Duration::from_millis(ms)),
        _ => Err("write seconds, or a number with ms, s, m or h, such as 90s".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_seconds_or_names_its_unit() {
        assert_eq!(parse("30"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
