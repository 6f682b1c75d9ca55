// SPDX-License-Identifier: Apache-2.0
//! Changes in a JSON text that leave every other byte as it is: no number, no escape,
//! no blank and no order of keys is written anew. Pure.

use std::{collections::BTreeSet, fmt, ops::Range};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::error::{Error, Result};

/// The members of an object, in their order.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                let mut seen = BTreeSet::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !seen.insert(key.clone()) {
                        return Err(de::Error::custom(format!("the key {key:?} is there twice")));
                    }
                    members.push((key, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Each)
    }
}

/// An object as it is written.
pub(super) struct Object<'a> {
    text: &'a str,
    members: Vec<(String, &'a RawValue)>,
}

impl<'a> Object<'a> {
    /// Reads it; no other level of it is looked at.
    pub(super) fn read(text: &'a str) -> Result<Self> {
        let members: Members<'a> = serde_json::from_str(text).map_err(|e| not_json(&e))?;
        Ok(Self {
            text,
            members: members.0,
        })
    }

    /// The value of a member as it is written; null is none.
    pub(super) fn get(&self, key: &str) -> Result<Option<&'a str>> {
        Ok(self.raw(key)?.filter(|text| *text != "null"))
    }

    fn raw(&self, key: &str) -> Result<Option<&'a str>> {
        // Go takes keys of another case for the same: which of two it would believe must
        // not be a question.
        let mut like = self.members.iter();
        if let Some((found, _)) = like.find(|(k, _)| k.eq_ignore_ascii_case(key) && k != key) {
            return Err(Error::invalid(format!(
                "the key {found:?} is to be written {key:?}: runtimes differ in what they make of it"
            )));
        }
        let mut members = self.members.iter();
        let found = members.find(|(k, _)| k == key);
        Ok(found.map(|(_, value)| value.get()))
    }

    /// The keys, in their order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(key, _)| key.as_str())
    }

    /// The text with these members at these values: in the old one's place, or as the
    /// first ones.
    pub(super) fn with(&self, values: &[(&str, String)]) -> Result<String> {
        let mut splices = Vec::new();
        let mut new = String::new();
        for (key, value) in values {
            if let Some(old) = self.raw(key)? {
                splices.push((place(self.text, old), value.clone()));
                continue;
            }
            new.push_str(&format!("{}:{value},", quoted(key)));
        }
        if self.members.is_empty() {
            new.pop();
        }
        let at = self.first();
        splices.push((at..at, new));
        Ok(splice(self.text, splices))
    }

    /// Where the first member is, or would be.
    fn first(&self) -> usize {
        let inside = self.text.find('{').map_or(0, |at| at + 1);
        let blank = self.text[inside..].trim_ascii_start();
        self.text.len() - blank.len()
    }
}

/// The elements of an array as it is written; of none: no elements.
pub(super) fn elements(array: Option<&str>) -> Result<Vec<&str>> {
    let Some(text) = array else {
        return Ok(Vec::new());
    };
    let elements: Vec<&RawValue> = serde_json::from_str(text).map_err(|e| not_json(&e))?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

/// The array with this element at this place.
pub(super) fn insert(array: Option<&str>, at: usize, new: &str) -> Result<String> {
    let elements = elements(array)?;
    let text = array.unwrap_or("[]");
    if let Some(next) = elements.get(at) {
        let start = place(text, next).start;
        return Ok(splice(text, vec![(start..start, format!("{new},"))]));
    }
    Ok(match elements.last() {
        Some(last) => {
            let end = place(text, last).end;
            splice(text, vec![(end..end, format!(",{new}"))])
        }
        None => format!("[{new}]"),
    })
}

/// The array without the elements that go.
pub(super) fn remove(array: &str, goes: &[bool]) -> Result<String> {
    let elements = elements(Some(array))?;
    let spans: Vec<_> = elements.iter().map(|e| place(array, e)).collect();
    Ok(cut(array, &spans, goes))
}

/// The text without some of the parts that have commas between them.
fn cut(text: &str, spans: &[Range<usize>], goes: &[bool]) -> String {
    let mut splices = Vec::new();
    let mut some_stay = false;
    for (index, (span, goes)) in spans.iter().zip(goes).enumerate() {
        if !goes {
            // What was before the first one that stays, with the commas between.
            if !some_stay && index > 0 {
                splices.push((spans[0].start..span.start, String::new()));
            }
            some_stay = true;
        } else if some_stay {
            // With the comma that is before it.
            splices.push((spans[index - 1].end..span.end, String::new()));
        }
    }
    if !some_stay && let (Some(first), Some(last)) = (spans.first(), spans.last()) {
        splices.push((first.start..last.end, String::new()));
    }
    splice(text, splices)
}

/// A text as JSON.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Where a part of the text is in it.
fn place(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// The text with other words in these places, which do not overlap.
fn splice(text: &str, mut splices: Vec<(Range<usize>, String)>) -> String {
    splices.sort_by_key(|(span, _)| (span.start, span.end));
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    for (span, new) in splices {
        out.push_str(&text[from..span.start]);
        out.push_str(&new);
        from = span.end;
    }
    out.push_str(&text[from..]);
    out
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::invalid(format!(
        "it is not the JSON of an OCI runtime specification: {error}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_is_set_and_the_rest_keeps_its_bytes() {
        let text = "\n{ \"b\" : 1.50e+2 , \"a\":{\"x\" :1},\"n\":null }\n";
        let object = Object::read(text).unwrap();
        let set = object.with(&[("b", "2".into()), ("c", "[]".into()), ("n", "3".into())]);
        assert_eq!(
            set.unwrap(),
            "\n{ \"c\":[],\"b\" : 2 , \"a\":{\"x\" :1},\"n\":3 }\n"
        );
        assert_eq!(object.get("n").unwrap(), None);
        assert_eq!(object.get("a").unwrap(), Some("{\"x\" :1}"));
        let empty = Object::read("{ }").unwrap();
        assert_eq!(empty.with(&[("c", "1".into())]).unwrap(), "{ \"c\":1}");
    }

    #[test]
    fn elements_come_and_go_with_their_commas() {
        let text = "[ 1 , 2 ]";
        for (at, with) in [(0, "[ 9,1 , 2 ]"), (1, "[ 1 , 9,2 ]"), (2, "[ 1 , 2,9 ]")] {
            let inserted = insert(Some(text), at, "9").unwrap();
            assert_eq!(inserted, with);
            let goes: Vec<bool> = (0..3).map(|i| i == at).collect();
            let removed = remove(&inserted, &goes).unwrap();
            assert_eq!(elements(Some(&removed)).unwrap(), ["1", "2"], "{removed}");
        }
        assert_eq!(insert(None, 0, "9").unwrap(), "[9]");
        assert_eq!(insert(Some(" [ ] "), 0, "9").unwrap(), "[9]");
        assert_eq!(remove("[1,2,3]", &[true, false, true]).unwrap(), "[2]");
        assert_eq!(remove("[1,2,3]", &[false, true, true]).unwrap(), "[1]");
        assert_eq!(remove("[1,2]", &[true, true]).unwrap(), "[]");
    }

    #[test]
    fn what_is_there_twice_or_in_another_case_is_refused() {
        for text in [
            "{\"a\":1,\"a\":2}",
            "{\"a\":1,\"\\u0061\":2}",
            "[]",
            "{",
            "",
        ] {
            assert!(Object::read(text).is_err(), "{text}");
        }
        let other = Object::read("{\"Mounts\":[]}").unwrap();
        assert!(other.get("mounts").is_err());
        assert!(other.with(&[("mounts", "[]".into())]).is_err());
        let both = Object::read("{\"mounts\":[],\"mountS\":[]}").unwrap();
        assert!(both.get("mounts").is_err());
    }
}
