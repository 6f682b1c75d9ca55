// SPDX-License-Identifier: Apache-2.0
//! The parameters of a class that are for us and not for the driver.

use std::collections::BTreeMap;

use super::{FS_TYPE, OUR_PREFIX, RESERVED_PREFIX, SELINUX_CONTEXT, StorageClass};
use crate::{
    api::{Problems, rule, walk::Field},
    model::{SecretRef, SecretRefs, SecretUse},
};

/// What the parameters of a class say.
#[derive(Default)]
pub(super) struct Parameters {
    pub(super) for_the_driver: BTreeMap<String, String>,
    pub(super) fs_type: String,
    pub(super) selinux_context: String,
    pub(super) secret_refs: SecretRefs,
}

fn name_key(use_: SecretUse) -> String {
    format!("{RESERVED_PREFIX}{}-secret-name", use_.as_str())
}

fn namespace_key(use_: SecretUse) -> String {
    format!("{RESERVED_PREFIX}{}-secret-namespace", use_.as_str())
}

/// Takes the reserved keys out of the parameters.
pub(super) fn read(field: &Field<'_>, problems: &mut Problems) -> Parameters {
    let mut left = field.text_map(problems);
    let fs_type = left.remove(FS_TYPE).unwrap_or_default();
    if let Err(reason) = rule::check_fs_type(&fs_type) {
        field.field(FS_TYPE).problem(problems, reason);
    }
    let selinux_context = left.remove(SELINUX_CONTEXT).unwrap_or_default();
    if !selinux_context.is_empty()
        && let Err(reason) = rule::check_selinux_context(&selinux_context)
    {
        field.field(SELINUX_CONTEXT).problem(problems, reason);
    }
    let mut secret_refs = SecretRefs::new();
    for use_ in SecretUse::ALL {
        let name = left.remove(&name_key(use_));
        let namespace = left.remove(&namespace_key(use_));
        if let Some(secret) = secret_ref(field, use_, name, namespace, problems) {
            secret_refs.insert(use_, secret);
        }
    }
    left.retain(|key, _| {
        let ours = key.starts_with(OUR_PREFIX);
        if ours {
            field.field(key).problem(
                problems,
                format_args!("is not known: of {OUR_PREFIX} there is {SELINUX_CONTEXT} alone"),
            );
        }
        let reserved = key.starts_with(RESERVED_PREFIX);
        if reserved {
            field.field(key).problem(
                problems,
                format_args!(
                    "is not known: of {RESERVED_PREFIX} there are fstype, and <use>-secret-name with <use>-secret-namespace, where <use> is one of {}",
                    SecretUse::ALL.map(SecretUse::as_str).join(", ")
                ),
            );
        }
        !reserved && !ours
    });
    if let Err(reason) = rule::check_map(&left) {
        field.problem(problems, reason);
    }
    Parameters {
        for_the_driver: left,
        fs_type,
        selinux_context,
        secret_refs,
    }
}

fn secret_ref(
    field: &Field<'_>,
    use_: SecretUse,
    name: Option<String>,
    namespace: Option<String>,
    problems: &mut Problems,
) -> Option<SecretRef> {
    let (name_key, namespace_key) = (name_key(use_), namespace_key(use_));
    let mut whole = true;
    for (key, value, other) in [
        (&name_key, &name, &namespace_key),
        (&namespace_key, &namespace, &name_key),
    ] {
        match value {
            None if name.is_some() || namespace.is_some() => {
                field.field(key).problem(
                    problems,
                    format_args!("is required beside {other}: a secret has both"),
                );
                whole = false;
            }
            Some(text) if text.contains("${") => {
                field.field(key).problem(
                    problems,
                    "holds a template: templates are not supported, write the name itself, the same for every volume of the class",
                );
                whole = false;
            }
            _ => {}
        }
    }
    let (Some(name), Some(namespace), true) = (name, namespace, whole) else {
        return None;
    };
    match SecretRef::new(&namespace, &name) {
        Ok(secret) => Some(secret),
        Err(error) => {
            field.field(&name_key).problem(problems, error);
            None
        }
    }
}

/// The parameters as people write them.
pub(super) fn write(class: &StorageClass) -> BTreeMap<String, String> {
    let mut all = class.parameters.clone();
    for (key, value) in [
        (FS_TYPE, &class.fs_type),
        (SELINUX_CONTEXT, &class.selinux_context),
    ] {
        if !value.is_empty() {
            all.insert(key.into(), value.clone());
        }
    }
    for (use_, secret) in &class.secret_refs {
        all.insert(name_key(*use_), secret.name.clone());
        all.insert(namespace_key(*use_), secret.namespace.to_string());
    }
    all
}
