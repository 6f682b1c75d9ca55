// SPDX-License-Identifier: Apache-2.0
//! What is to be said about the keys of grants, and about who needs no signature. Pure.

use super::{
    Facts, Finding,
    judge::{fail, ok, warn},
};

/// A key should not sign for longer than this many days.
const OLD: u64 = 365;

/// The keys of grants.
pub(super) fn keys(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "keys";
    let keys = &facts.keys;
    let mut findings = Vec::new();
    for problem in &keys.problems {
        findings.push(warn(
            CHECK,
            format!("a public key is not used: {problem}"),
            "put the key right (`actor-volumes key show-public` prints it) or take the file away; the daemon sees it by itself",
        ));
    }
    match &keys.signing {
        Some(Err(why)) => findings.push(fail(
            CHECK,
            format!("grants cannot be signed: {why}"),
            "see keys.dir of the configuration; `actor-volumes key list` shows what is there",
        )),
        Some(Ok(days)) if *days > OLD => findings.push(warn(
            CHECK,
            format!("the same key signs grants for {days} days"),
            "`actor-volumes key rotate`, and `key remove` of the old one when no grant of it is needed any more",
        )),
        _ => {}
    }
    findings.push(match keys.trusted.as_slice() {
        [] => fail(
            CHECK,
            "no public key is trusted: every signed grant is refused",
            "let the node reach its control plane, which tells its keys; or give them in a directory of keys.trusted",
        ),
        ids => ok(CHECK, format!("grants count that are signed by {}", ids.join(", "))),
    });
    findings
}

/// Who needs no signature.
pub(super) fn unsigned(facts: &Facts) -> Vec<Finding> {
    const CHECK: &str = "unsigned grants";
    let trusted = &facts.config.node.trusted_namespaces;
    if trusted.is_empty() {
        return vec![ok(CHECK, "none is accepted")];
    }
    let one = |namespace: &crate::model::DnsLabel| {
        warn(
            CHECK,
            format!(
                "every pod author of namespace {namespace} may use the volumes of any actor that is resumed for it"
            ),
            "give pods all annotations of `actor-volumes actor resume`, and take the namespace out of node.trusted_namespaces",
        )
    };
    trusted.iter().map(one).collect()
}
