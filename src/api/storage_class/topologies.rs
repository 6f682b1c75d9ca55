// SPDX-License-Identifier: Apache-2.0
//! `allowedTopologies`: from where volumes of a class must be reachable.

use serde_json::{Value, json};

use crate::{
    api::{Problems, walk::Field},
    model::Topology,
};

/// The most places that the terms may stand for.
const MAX_PLACES: usize = 128;

/// The places that the terms allow. An expression with several values stands for
/// one place a value; expressions of one term hold together.
pub(super) fn read(list: &Field<'_>, problems: &mut Problems) -> Vec<Topology> {
    let mut places: Vec<Topology> = Vec::new();
    for term in list.items(problems) {
        if !term.must_be_map(problems) {
            continue;
        }
        term.only(&["matchLabelExpressions"], problems);
        for place in of_term(&term.field("matchLabelExpressions"), problems) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
    }
    if places.len() > MAX_PLACES {
        list.problem(
            problems,
            format_args!("stands for {} places: at most {MAX_PLACES}", places.len()),
        );
        places.clear();
    }
    places
}

fn of_term(list: &Field<'_>, problems: &mut Problems) -> Vec<Topology> {
    let expressions = list.items(problems);
    if expressions.is_empty() {
        list.problem(
            problems,
            "must hold at least one expression: a place without a label is no place",
        );
        return Vec::new();
    }
    let mut places = vec![Topology::new()];
    for expression in &expressions {
        if !expression.must_be_map(problems) {
            continue;
        }
        expression.only(&["key", "values"], problems);
        let key = expression.field("key");
        let values = expression.field("values");
        let (name, allowed) = (key.required_text(problems), values.texts(problems));
        if allowed.is_empty() {
            values.problem(problems, "must hold at least one value");
        }
        let Some(name) = name else { continue };
        if name.is_empty() {
            key.problem(problems, "must not be empty");
        }
        let taken = |p: &Topology| p.keys().any(|k| k.eq_ignore_ascii_case(name));
        if places.iter().any(taken) {
            key.problem(
                problems,
                format_args!("{name:?} is there twice: name all its values in one expression"),
            );
        }
        if places.len() * allowed.len() > MAX_PLACES {
            list.problem(
                problems,
                format_args!("stand for more than {MAX_PLACES} places: name fewer values"),
            );
            return Vec::new();
        }
        places = places
            .iter()
            .flat_map(|place| {
                allowed.iter().map(|value| {
                    let mut place = place.clone();
                    place.insert(name.to_owned(), value.clone());
                    place
                })
            })
            .collect();
    }
    places
}

/// The places as people write them: one term each.
pub(super) fn write(places: &[Topology]) -> Value {
    let terms = places.iter().map(|place| {
        let expressions: Vec<_> = place
            .iter()
            .map(|(key, value)| json!({"key": key, "values": [value]}))
            .collect();
        json!({"matchLabelExpressions": expressions})
    });
    Value::Array(terms.collect())
}
