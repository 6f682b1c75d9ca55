// SPDX-License-Identifier: Apache-2.0
//! YAML (and JSON, which is YAML too) to a tree, within limits.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{
    Spanned, UserMessageFormatter,
    options::{DuplicateKeyPolicy, NonFiniteFloatPolicy},
};

use super::Problems;

/// The longest document that is read.
pub(super) const MAX_TEXT_BYTES: usize = 256 * 1024;

/// A value of a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// Nothing, `null` or `~`; the same as a field that is not there.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as text: a float would round it.
    Number(String),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping.
    Map(BTreeMap<String, Node>),
}

/// Reads exactly one document.
pub(super) fn load(text: &str) -> Result<Node, Problems> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Problems::of_document(format_args!(
            "the document has {} bytes: at most {MAX_TEXT_BYTES} are read",
            text.len()
        )));
    }
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            flow_nesting_limit: 32,
            max_events: 200_000,
            max_nodes: 100_000,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 100,
            max_documents: 2,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: 4 * MAX_TEXT_BYTES,
            max_total_scalar_bytes: 4 * MAX_TEXT_BYTES,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 20_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 1_000,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // A volume may be called `no`, and `yes` is not a truth value.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        emit_comments: false,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(finish(raw, text)),
        Err(serde_saphyr::Error::MultipleDocuments { .. }) => Err(Problems::of_document(
            "there are several documents: give one document a file",
        )),
        // An empty file has no document at all.
        Err(serde_saphyr::Error::Eof { .. }) if text.trim().is_empty() => Ok(Node::Null),
        Err(error) => Err(Problems::of_document(format_args!(
            "cannot read it as YAML: {}",
            error.render_with_formatter(&UserMessageFormatter)
        ))),
    }
}

/// What the parser gives: floats are not yet text.
enum Raw {
    Null,
    Bool(bool),
    Integer(String),
    Float(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(BTreeMap<String, Spanned<Raw>>),
}

fn finish(raw: Spanned<Raw>, text: &str) -> Node {
    match raw.value {
        Raw::Null => Node::Null,
        Raw::Bool(value) => Node::Bool(value),
        Raw::Integer(value) => Node::Number(value),
        Raw::Float(value) => {
            // The float may have lost digits: take them from the document. The
            // comparison proves that the span is that of this number.
            let span = raw.defined.span();
            let written = span
                .byte_offset()
                .zip(span.byte_len())
                .and_then(|(start, len)| {
                    let start = usize::try_from(start).ok()?;
                    let end = start.checked_add(usize::try_from(len).ok()?)?;
                    text.get(start..end)
                })
                .map(str::trim)
                .filter(|written| written.parse() == Ok(value));
            Node::Number(written.map_or_else(|| value.to_string(), str::to_owned))
        }
        Raw::Text(value) => Node::Text(value),
        Raw::List(items) => Node::List(items.into_iter().map(|i| finish(i, text)).collect()),
        Raw::Map(fields) => Node::Map(
            fields
                .into_iter()
                .map(|(key, value)| (key, finish(value, text)))
                .collect(),
        ),
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Integer(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Raw, A::Error> {
        let mut map = BTreeMap::new();
        while let Some((key, value)) = fields.next_entry()? {
            map.insert(key, value);
        }
        Ok(Raw::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> BTreeMap<String, Node> {
        match load(text) {
            Ok(Node::Map(map)) => map,
            other => panic!("{text}: {other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        load(text).unwrap_err().to_string()
    }

    #[test]
    fn numbers_keep_every_digit_that_was_written() {
        for written in [
            "1.00000000000000000000001",
            "18446744073709551617",
            "1e3",
            "1E-3",
            "1e999",
            "0.1",
            "5368709120",
            "-3",
        ] {
            let expected = Node::Number(written.into());
            assert_eq!(map(&format!("a: {written}"))["a"], expected);
            assert_eq!(map(&format!("ä: ö\na: {written} # c"))["a"], expected);
            assert_eq!(map(&format!("{{\"a\": {written} }}"))["a"], expected);
            assert_eq!(map(&format!("b: &x {written}\na: *x"))["a"], expected);
        }
    }

    #[test]
    fn only_true_and_false_are_truth_values() {
        let map = map("a: true\nb: no\nc: on\nd: 'true'\ne: 0755\nf: 1_000\ng:\nh: ~");
        assert_eq!(map["a"], Node::Bool(true));
        assert_eq!(map["b"], Node::Text("no".into()));
        assert_eq!(map["c"], Node::Text("on".into()));
        assert_eq!(map["d"], Node::Text("true".into()));
        assert_eq!(map["e"], Node::Text("0755".into()));
        assert_eq!(map["f"], Node::Text("1_000".into()));
        assert_eq!(map["g"], Node::Null);
        assert_eq!(map["h"], Node::Null);
    }

    #[test]
    fn json_is_read_too() {
        let json =
            "{\n\t\"a\": [1, \"x\\u00e4\\n\", null, {\"b\": false}],\n\t\"c\": \"\\\"\"\n}\n";
        let map = map(json);
        assert_eq!(
            map["a"],
            Node::List(vec![
                Node::Number("1".into()),
                Node::Text("xä\n".into()),
                Node::Null,
                Node::Map([("b".into(), Node::Bool(false))].into()),
            ])
        );
        assert_eq!(map["c"], Node::Text("\"".into()));
    }

    #[test]
    fn an_empty_document_is_null() {
        for text in ["", "\n", "---\n", "# nothing\n"] {
            assert_eq!(load(text), Ok(Node::Null), "{text:?}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused() {
        assert!(refusal("a: 1\na: 2").contains("duplicate"));
        assert!(refusal("{\"x\": {\"a\": 1, \"a\": 2}}").contains("duplicate"));
    }

    #[test]
    fn several_documents_are_refused() {
        assert!(refusal("a: 1\n---\nb: 2\n").contains("one document a file"));
        assert!(refusal("---\na: 1\n---\na: 1\n").contains("one document a file"));
    }

    #[test]
    fn what_would_grow_or_nest_without_end_is_refused() {
        let bomb = (1..12).fold("a0: &a0 [x, x, x, x]\n".to_owned(), |text, n| {
            let last = n - 1;
            text + &format!("a{n}: &a{n} [*a{last}, *a{last}, *a{last}, *a{last}]\n")
        });
        refusal(&bomb);
        refusal(&"[".repeat(100_000));
        refusal(&(0..200).fold(String::new(), |t, n| t + &" ".repeat(n) + "a:\n"));
        refusal("a: &a [*a]");
        assert!(refusal(&" ".repeat(MAX_TEXT_BYTES + 1)).contains("at most"));
    }

    #[test]
    fn text_does_not_multiply_through_aliases() {
        for text in [
            format!(
                "a: &a {}\nb: [{}]\n",
                "x".repeat(100_000),
                "*a, ".repeat(900)
            ),
            format!(
                "a: &a \"\\n{}\"\nb: [{}]\n",
                "x".repeat(100_000),
                "*a, ".repeat(900)
            ),
            format!(
                "a: &a \"\\n{}\"\nb: &b [{}]\nc: [{}]\n",
                "x".repeat(100_000),
                "*a, ".repeat(50),
                "*b, ".repeat(50)
            ),
        ] {
            assert!(refusal(&text).contains("limits"), "{}", refusal(&text));
        }
    }

    #[test]
    fn long_comments_are_no_problem() {
        let comments = "  # about it\n".repeat(200);
        let text = format!("{comments}a:\n{comments}  - b: 1\n{comments}    c: 2\n{comments}");
        assert!(load(&text).is_ok());
    }

    #[test]
    fn aliases_and_merges_work_within_the_limits() {
        let map = map("base: &b {x: 1}\nmore:\n  <<: *b\n  y: 2\n");
        let expected = [
            ("x".to_owned(), Node::Number("1".into())),
            ("y".to_owned(), Node::Number("2".into())),
        ];
        assert_eq!(map["more"], Node::Map(expected.into()));
    }
}
