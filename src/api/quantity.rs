// SPDX-License-Identifier: Apache-2.0
//! Capacities in the notation of Kubernetes, such as `5Gi`, as exact bytes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The most bytes that CSI can express.
const MAX_BYTES: u64 = i64::MAX as u64;
/// The longest text that is read: far more digits than any capacity has.
const MAX_CHARS: usize = 128;

const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Decimal suffixes and their powers of ten.
const DECIMAL: [(&str, i64); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

/// A number of bytes, at least 1 and at most `i64::MAX`.
///
/// It is read without floats and never rounds down: a part of a byte counts as
/// a whole one. It is shown in the largest binary unit that is exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity(u64);

impl Quantity {
    /// This many bytes.
    pub fn from_bytes(bytes: u64) -> Result<Self> {
        match bytes {
            0 => Err(Error::invalid("a capacity of 0 bytes: it must be positive")),
            1..=MAX_BYTES => Ok(Self(bytes)),
            _ => Err(Error::invalid(format!(
                "a capacity of {bytes} bytes is more than {MAX_BYTES}, the most that CSI can express"
            ))),
        }
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Quantity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes = bytes_of(text).map_err(|reason| match reason {
            Reason::Syntax => {
                let shown: String = text.chars().take(MAX_CHARS).collect();
                Error::invalid(format!(
                    "{shown:?} is not a quantity: write a number of bytes with an optional suffix, such as 5Gi, 1.5G or 1e9"
                ))
            }
            Reason::NotPositive => {
                Error::invalid(format!("{text:?} is not a capacity: it must be positive"))
            }
            Reason::TooLarge => Error::invalid(format!(
                "{text:?} is more than {MAX_BYTES} bytes, the most that CSI can express"
            )),
        })?;
        Ok(Self(bytes))
    }
}

enum Reason {
    Syntax,
    NotPositive,
    TooLarge,
}

/// What follows the number.
enum Unit {
    /// A power of ten.
    Ten(i64),
    /// A power of 1024.
    Binary(usize),
}

fn bytes_of(text: &str) -> Result<u64, Reason> {
    if text.len() > MAX_CHARS {
        return Err(Reason::Syntax);
    }
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + part.len() == 0 || part.contains('.') {
        return Err(Reason::Syntax);
    }
    let unit = unit_of(suffix).ok_or(Reason::Syntax)?;

    // The value is 0.d1d2d3… times ten to the `point`, times the binary unit.
    let digits: Vec<u32> = whole
        .bytes()
        .chain(part.bytes())
        .map(|b| u32::from(b - b'0'))
        .collect();
    let Some(zeros) = digits.iter().position(|d| *d != 0) else {
        return Err(Reason::NotPositive);
    };
    if negative {
        return Err(Reason::NotPositive);
    }
    let digits = &digits[zeros..];
    // Both lengths are at most MAX_CHARS.
    let mut point = whole.len() as i64 - zeros as i64;
    if let Unit::Ten(power) = unit {
        point = point.saturating_add(power);
    }
    // Ten to the 19th is more than MAX_BYTES already.
    if point > 19 {
        return Err(Reason::TooLarge);
    }

    let (mut bytes, mut rest) = if point <= -(MAX_CHARS as i64) {
        // So small that not even an exabyte of it makes a byte, and no binary
        // unit goes with a power of ten: some part of one byte.
        (0_u128, vec![1])
    } else if point <= 0 {
        let mut rest = vec![0; point.unsigned_abs() as usize];
        rest.extend_from_slice(digits);
        (0, rest)
    } else {
        let digit = |index: usize| u128::from(digits.get(index).copied().unwrap_or(0));
        let point = point as usize;
        let whole = (0..point).fold(0_u128, |sum, index| sum * 10 + digit(index));
        (whole, digits.get(point..).unwrap_or(&[]).to_vec())
    };

    if let Unit::Binary(power) = unit {
        for _ in 0..power {
            // At most 10^20 * 1024^6, far below the end of u128.
            bytes = bytes * 1024 + u128::from(times_1024(&mut rest));
        }
    }
    if rest.iter().any(|digit| *digit != 0) {
        bytes += 1;
    }
    match u64::try_from(bytes) {
        Ok(bytes @ 1..=MAX_BYTES) => Ok(bytes),
        _ => Err(Reason::TooLarge),
    }
}

/// Multiplies the decimal digits after the point and returns what goes over it.
fn times_1024(digits: &mut [u32]) -> u32 {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let value = *digit * 1024 + carry;
        *digit = value % 10;
        carry = value / 10;
    }
    carry
}

fn unit_of(suffix: &str) -> Option<Unit> {
    if let Some(index) = BINARY.iter().position(|s| *s == suffix) {
        return Some(Unit::Binary(index + 1));
    }
    if let Some((_, power)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Some(Unit::Ten(*power));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Beyond these bounds the answer does not depend on the exponent any more.
    let power = digits.bytes().fold(0_i64, |sum, b| {
        (sum * 10 + i64::from(b - b'0')).min(1 << 32)
    });
    Some(Unit::Ten(if exponent.starts_with('-') {
        -power
    } else {
        power
    }))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A quantity is never 0, so that this is at most 63.
        let units = (self.0.trailing_zeros() / 10) as usize;
        match units.checked_sub(1).and_then(|index| BINARY.get(index)) {
            Some(suffix) => write!(f, "{}{suffix}", self.0 >> (10 * units)),
            None => write!(f, "{}", self.0),
        }
    }
}

impl TryFrom<String> for Quantity {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> Self {
        quantity.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(text: &str) -> u64 {
        text.parse::<Quantity>().unwrap().bytes()
    }

    fn refusal(text: &str) -> String {
        text.parse::<Quantity>().unwrap_err().to_string()
    }

    #[test]
    fn every_suffix_is_known() {
        for (text, expected) in [
            ("1", 1),
            ("5Gi", 5 << 30),
            ("1Ki", 1 << 10),
            ("1Mi", 1 << 20),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("7Ei", 7 << 60),
            ("1k", 1_000),
            ("1M", 1_000_000),
            ("1G", 1_000_000_000),
            ("1T", 1_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
            ("9E", 9_000_000_000_000_000_000),
            ("5000m", 5),
            ("5000000u", 5),
            ("5000000000n", 5),
            ("1e3", 1_000),
            ("1E3", 1_000),
            ("1E+3", 1_000),
            ("5000e-3", 5),
            ("+1.5Gi", 3 << 29),
            (".5Ki", 512),
            ("5.", 5),
            ("0.000001E", 1_000_000_000_000),
            ("9223372036854775807", i64::MAX as u64),
            ("0000000000000000000000001Gi", 1 << 30),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn a_part_of_a_byte_counts_as_a_whole_one() {
        for (text, expected) in [
            ("1n", 1),
            ("1.1", 2),
            ("1001m", 2),
            ("0.1Ki", 103),
            ("1.00000000000000000000000000000000001", 2),
            ("1.00000000000000000000000000000000001Gi", (1 << 30) + 1),
            ("1e-999999999999999999999", 1),
            ("0.3Gi", 322_122_548),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_positive_is_refused() {
        for text in ["0", "0Gi", "0.000", "-1", "-5Gi", "-0", "0e9999999999"] {
            assert!(refusal(text).contains("must be positive"), "{text}");
        }
    }

    #[test]
    fn what_overflows_is_refused() {
        for text in [
            "9223372036854775808",
            "9223372036854775807.1",
            "8Ei",
            "7.9999999999999999999Ei",
            "10E",
            "1e19",
            "1e99999999999999999999",
            "18446744073709551617",
            "999999999999999999999999999999Ei",
        ] {
            assert!(refusal(text).contains("the most that CSI"), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_refused() {
        for text in [
            "",
            " ",
            "Gi",
            "5 Gi",
            " 5Gi",
            "5gi",
            "5KI",
            "5K",
            "5GB",
            "5Gib",
            "1e",
            "1e+",
            "1e1.5",
            "1eGi",
            "1e3Gi",
            "1.2.3",
            ".",
            "+",
            "--1",
            "0x10",
            "1_000",
            "１",
            "5Gi\n",
            "∞",
            &"1".repeat(129),
        ] {
            assert!(refusal(text).contains("not a quantity"), "{text:?}");
        }
    }

    #[test]
    fn it_is_shown_in_the_largest_exact_binary_unit() {
        for (text, shown) in [
            ("5Gi", "5Gi"),
            ("1024Gi", "1Ti"),
            ("1.5Gi", "1536Mi"),
            ("1000", "1000"),
            ("1024", "1Ki"),
            ("1G", "1000000000"),
            ("4Ei", "4Ei"),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().to_string(), shown);
        }
    }

    /// The same by plain rational arithmetic, within what u128 holds.
    fn reference(digits: u64, places: u32, up: u128, down: u128) -> Option<u64> {
        let numerator = u128::from(digits) * up;
        let denominator = 10_u128.pow(places) * down;
        let bytes = numerator.div_ceil(denominator);
        (1..=u128::from(MAX_BYTES))
            .contains(&bytes)
            .then_some(bytes as u64)
    }

    fn unit() -> impl Strategy<Value = (String, u128, u128)> {
        let named = (0_usize..16).prop_map(|index| match index {
            0..6 => (BINARY[index].to_owned(), 1 << (10 * (index + 1)), 1),
            _ => {
                let (suffix, power) = DECIMAL[index - 6];
                let (up, down) = ten(power);
                (suffix.to_owned(), up, down)
            }
        });
        let exponent = (-15_i64..=18, any::<bool>()).prop_map(|(power, upper)| {
            let (up, down) = ten(power);
            (
                format!("{}{power}", if upper { 'E' } else { 'e' }),
                up,
                down,
            )
        });
        prop_oneof![named, exponent]
    }

    fn ten(power: i64) -> (u128, u128) {
        let factor = 10_u128.pow(power.unsigned_abs() as u32);
        if power < 0 { (1, factor) } else { (factor, 1) }
    }

    proptest! {
        #[test]
        fn it_agrees_with_plain_arithmetic(
            digits in prop_oneof![0..10_000_u64, 0..=u64::MAX / 10],
            places in 0_u32..=19,
            (suffix, up, down) in unit(),
        ) {
            let text = format!("{digits:020}");
            let (whole, part) = text.split_at(text.len() - places as usize);
            let text = format!("{whole}.{part}{suffix}");
            let read = text.parse::<Quantity>().ok().map(Quantity::bytes);
            prop_assert_eq!(read, reference(digits, places, up, down), "{}", text);
        }

        #[test]
        fn what_is_shown_reads_back(bytes in prop_oneof![
            1..=MAX_BYTES,
            (1..1024_u64, 0..6_u32).prop_map(|(n, unit)| (n << (10 * unit)).clamp(1, MAX_BYTES)),
        ]) {
            let quantity = Quantity::from_bytes(bytes).unwrap();
            prop_assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity);
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), near in "[+-]?[0-9.]{0,40}[eEKkMGTPinum+-]{0,3}[0-9]{0,30}") {
            for text in [text, near] {
                if let Ok(quantity) = text.parse::<Quantity>() {
                    prop_assert!(quantity.bytes() >= 1);
                }
            }
        }
    }
}
