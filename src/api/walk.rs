// SPDX-License-Identifier: Apache-2.0
//! The walk over a tree: each step knows its field path, and what is wrong is
//! noted, not returned, so that one walk finds everything.

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use super::{Problems, tree::Node};
use crate::error::Error;

/// A field of a document, there or not. `null` counts as not there.
#[derive(Debug, Clone)]
pub(super) struct Field<'n> {
    path: String,
    node: Option<&'n Node>,
}

impl<'n> Field<'n> {
    /// The whole document.
    pub(super) fn root(node: &'n Node) -> Self {
        Self {
            path: String::new(),
            node: there(node),
        }
    }

    /// Where it is.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Whether it holds something.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    /// Whether it is there and not an empty list, mapping or text.
    pub(super) fn says_something(&self) -> bool {
        match self.node {
            None => false,
            Some(Node::Text(text)) => !text.is_empty(),
            Some(Node::List(items)) => !items.is_empty(),
            Some(Node::Map(fields)) => !fields.is_empty(),
            Some(_) => true,
        }
    }

    /// The field of this name in a mapping; not there if this is none.
    pub(super) fn field(&self, name: &str) -> Field<'n> {
        let node = match self.node {
            Some(Node::Map(fields)) => fields.get(name).and_then(there),
            _ => None,
        };
        Field {
            path: join(&self.path, name),
            node,
        }
    }

    /// Notes that this field is wrong.
    pub(super) fn problem(&self, problems: &mut Problems, message: impl Display) {
        problems.add(&self.path, message);
    }

    /// Whether it is a mapping; everything else is noted, also if it is missing.
    pub(super) fn must_be_map(&self, problems: &mut Problems) -> bool {
        match self.node {
            Some(Node::Map(_)) => true,
            None if self.path.is_empty() => {
                self.problem(problems, "the document is empty");
                false
            }
            None => {
                self.problem(problems, "is required and must be a mapping");
                false
            }
            Some(other) => {
                self.wrong_type(problems, "a mapping", other);
                false
            }
        }
    }

    /// Notes every field of a mapping that is not among the known ones.
    pub(super) fn only(&self, known: &[&str], problems: &mut Problems) {
        let Some(Node::Map(fields)) = self.node else {
            return;
        };
        for name in fields.keys().filter(|k| !known.contains(&k.as_str())) {
            problems.add(
                &join(&self.path, name),
                format_args!("unknown field: known here are {}", known.join(", ")),
            );
        }
    }

    /// The items of a list; none if it is not there.
    pub(super) fn items(&self, problems: &mut Problems) -> Vec<Field<'n>> {
        match self.node {
            None => Vec::new(),
            Some(Node::List(items)) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Field {
                    path: format!("{}[{index}]", self.path),
                    node: there(node),
                })
                .collect(),
            Some(other) => {
                self.wrong_type(problems, "a list", other);
                Vec::new()
            }
        }
    }

    /// Text, if it is there.
    pub(super) fn text(&self, problems: &mut Problems) -> Option<&'n str> {
        match self.node? {
            Node::Text(text) => Some(text),
            other => {
                self.wrong_type(problems, "a string", other);
                None
            }
        }
    }

    /// Text that must be there.
    pub(super) fn required_text(&self, problems: &mut Problems) -> Option<&'n str> {
        if self.node.is_none() {
            self.problem(problems, "is required");
        }
        self.text(problems)
    }

    /// Text that must be there, as a type with a rule.
    pub(super) fn required<T: FromStr<Err = Error>>(&self, problems: &mut Problems) -> Option<T> {
        let text = self.required_text(problems)?;
        self.parsed(text, problems)
    }

    /// Text or a number, as text, that must be there.
    pub(super) fn required_text_or_number(&self, problems: &mut Problems) -> Option<&'n str> {
        match self.node {
            Some(Node::Number(text)) => Some(text),
            _ => self.required_text(problems),
        }
    }

    /// A number, if it is there, as it was written.
    pub(super) fn number(&self, problems: &mut Problems) -> Option<&'n str> {
        match self.node? {
            Node::Number(text) => Some(text),
            other => {
                self.wrong_type(problems, "a number", other);
                None
            }
        }
    }

    /// This text as a type with a rule.
    pub(super) fn parsed<T: FromStr<Err = Error>>(
        &self,
        text: &str,
        problems: &mut Problems,
    ) -> Option<T> {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(problems, error);
                None
            }
        }
    }

    /// A truth value; false if it is not there.
    pub(super) fn flag(&self, problems: &mut Problems) -> bool {
        match self.node {
            None => false,
            Some(Node::Bool(value)) => *value,
            Some(other) => {
                self.wrong_type(problems, "true or false", other);
                false
            }
        }
    }

    /// A list of texts; empty if it is not there.
    pub(super) fn texts(&self, problems: &mut Problems) -> Vec<String> {
        let mut texts = Vec::new();
        for item in self.items(problems) {
            if let Some(text) = item.required_text(problems) {
                texts.push(text.to_owned());
            }
        }
        texts
    }

    /// A mapping of texts; empty if it is not there.
    pub(super) fn text_map(&self, problems: &mut Problems) -> BTreeMap<String, String> {
        match self.node {
            None => BTreeMap::new(),
            Some(Node::Map(fields)) => fields
                .keys()
                .filter_map(|key| {
                    let text = self.field(key).required_text(problems)?;
                    Some((key.clone(), text.to_owned()))
                })
                .collect(),
            Some(other) => {
                self.wrong_type(problems, "a mapping", other);
                BTreeMap::new()
            }
        }
    }

    /// One of a few words, if it is there.
    pub(super) fn word<T: Copy>(&self, words: &[(&str, T)], problems: &mut Problems) -> Option<T> {
        let text = self.text(problems)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            self.problem(
                problems,
                format_args!("{text:?} is not known: use {}", known.join(" or ")),
            );
        }
        found.map(|(_, value)| *value)
    }

    fn wrong_type(&self, problems: &mut Problems, wanted: &str, found: &Node) {
        let (found, hint) = match found {
            Node::Null => ("nothing", ""),
            Node::Bool(_) => ("a truth value", " (quote it)"),
            Node::Number(_) => ("a number", " (quote it)"),
            Node::Text(_) => ("a string", ""),
            Node::List(_) => ("a list", ""),
            Node::Map(_) => ("a mapping", ""),
        };
        let hint = if wanted == "a string" { hint } else { "" };
        let subject = if self.path.is_empty() {
            "the document "
        } else {
            ""
        };
        self.problem(
            problems,
            format_args!("{subject}must be {wanted}, not {found}{hint}"),
        );
    }
}

/// The first documents of every kind: `apiVersion` and `kind`.
pub(super) fn check_kind(root: &Field<'_>, api_version: &str, kind: &str, problems: &mut Problems) {
    let field = root.field("apiVersion");
    if let Some(found) = field.text(problems).filter(|v| *v != api_version) {
        field.problem(
            problems,
            format_args!("{found:?} is not supported: write {api_version} or leave it out"),
        );
    }
    let field = root.field("kind");
    if let Some(found) = field.required_text(problems).filter(|k| *k != kind) {
        field.problem(
            problems,
            format_args!("{found:?} is not expected here: it must be {kind}"),
        );
    }
}

fn there(node: &Node) -> Option<&Node> {
    (*node != Node::Null).then_some(node)
}

/// The path of a field; a name that would be read wrong is quoted.
fn join(path: &str, name: &str) -> String {
    let plain = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    match (path.is_empty(), plain) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{:?}]", name.chars().take(128).collect::<String>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tree::load;

    #[test]
    fn paths_name_the_field_as_people_write_it() {
        let tree = load("spec: {volumes: [{name: 1, 'a.b/c': x}]}").unwrap();
        let mut problems = Problems::default();
        let volume = &Field::root(&tree)
            .field("spec")
            .field("volumes")
            .items(&mut problems)[0];
        assert!(volume.field("name").required_text(&mut problems).is_none());
        volume.only(&["name"], &mut problems);
        volume.field("size").required_text(&mut problems);
        assert_eq!(
            problems.to_string(),
            "spec.volumes[0].name: must be a string, not a number (quote it)\n\
             spec.volumes[0][\"a.b/c\"]: unknown field: known here are name\n\
             spec.volumes[0].size: is required"
        );
    }

    #[test]
    fn null_counts_as_not_there() {
        let tree = load("{a: null, b: [null]}").unwrap();
        let mut problems = Problems::default();
        let root = Field::root(&tree);
        assert!(!root.field("a").is_there());
        assert!(root.field("a").items(&mut problems).is_empty());
        assert!(problems.is_empty());
        assert!(root.field("b").texts(&mut problems).is_empty());
        assert_eq!(problems.to_string(), "b[0]: is required");
    }

    #[test]
    fn says_something_is_false_for_what_is_empty() {
        let tree = load("{a: '', b: [], c: {}, d: null, e: false, f: x}").unwrap();
        let said = |name: &str| Field::root(&tree).field(name).says_something();
        assert_eq!(
            ["a", "b", "c", "d", "e", "f"].map(said),
            [false, false, false, false, true, true]
        );
    }
}
