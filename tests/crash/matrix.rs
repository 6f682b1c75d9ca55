// SPDX-License-Identifier: Apache-2.0
//! Which crash points each verb comes to.

use std::collections::BTreeMap;

use actor_volumes::host::crash::CrashPoint::{self, *};

macro_rules! verbs {
    ($($name:ident => $text:literal,)*) => {
        /// What is done to actors and volumes, in this order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Verb {
            $($name,)*
        }

        impl Verb {
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

verbs! {
    Apply => "template apply",
    Create => "actor create",
    Resume => "actor resume",
    Run => "the pod runs",
    Expand => "volume expand",
    Suspend => "the pod ends, actor suspend",
    Crash => "the pod dies, actor crash",
    Rollback => "template rollback",
    Update => "actor update",
    Adopt => "actor create --adopt",
    Retain => "actor delete, its volume retained",
    DeleteVolume => "volume delete",
    Delete => "actor delete",
}

/// Every verb writes to the store.
const STORE: &[CrashPoint] = &[BatchChecked, BatchCommitted];
const CREATE: &[CrashPoint] = &[CreateIntended, CreateAnswered, CreateRecorded];
const ATTACH: &[CrashPoint] = &[
    ControllerPublishIntended,
    ControllerPublishAnswered,
    ControllerPublishRecorded,
];
const RECORD: &[CrashPoint] = &[RecordWritten, RecordRenamed];
const PUBLISH: &[CrashPoint] = &[
    StageIntended,
    StageAnswered,
    StageRecorded,
    PublishIntended,
    PublishAnswered,
    PublishRecorded,
    SubPathIntended,
    SubPathAnswered,
];
const EXPAND: &[CrashPoint] = &[
    ExpandIntended,
    ExpandAnswered,
    ExpandRecorded,
    NodeExpandIntended,
    NodeExpandAnswered,
    NodeExpandRecorded,
];
const RELEASE: &[CrashPoint] = &[
    SubPathHidden,
    UnpublishIntended,
    UnpublishAnswered,
    UnpublishRecorded,
    UnstageIntended,
    UnstageAnswered,
    UnstageRecorded,
    RevokeIntended,
    RevokeAnswered,
    RevokeRecorded,
    ControllerUnpublishIntended,
    ControllerUnpublishAnswered,
    ControllerUnpublishRecorded,
];
const DELETE: &[CrashPoint] = &[DeleteIntended, DeleteAnswered, DeleteRecorded];

/// The points of each verb, in the order of their declaration. One that comes to
/// a point that is not here, or not to one that is, fails the test.
pub(crate) fn expected() -> BTreeMap<Verb, Vec<CrashPoint>> {
    let of = |verb: Verb| -> Vec<&[CrashPoint]> {
        match verb {
            Verb::Apply | Verb::Rollback => vec![STORE],
            Verb::Create => vec![STORE, CREATE],
            Verb::Resume => vec![STORE, ATTACH],
            // A node's records are files of their own.
            Verb::Run => vec![PUBLISH, RECORD],
            Verb::Expand => vec![STORE, EXPAND, RECORD],
            Verb::Suspend | Verb::Crash => vec![STORE, RELEASE, RECORD],
            // What is new is made, what is gone is deleted; it was detached before.
            Verb::Update => vec![STORE, CREATE, DELETE],
            // The volume is there.
            Verb::Adopt | Verb::Retain => vec![STORE],
            Verb::DeleteVolume | Verb::Delete => vec![STORE, DELETE],
        }
    };
    let sorted = |verb: &Verb| {
        let points = of(*verb).concat();
        let all = CrashPoint::ALL.iter().copied();
        (*verb, all.filter(|p| points.contains(p)).collect())
    };
    Verb::ALL.iter().map(sorted).collect()
}

/// A line a point, a column a verb.
pub(crate) fn shown(told: &BTreeMap<Verb, Vec<CrashPoint>>) -> String {
    let mut text = String::new();
    for (n, verb) in Verb::ALL.iter().enumerate() {
        text += &format!("{:>2}: {}\n", n + 1, verb.name());
    }
    for point in CrashPoint::ALL {
        text += &format!("{:<30}", point.name());
        for (n, verb) in Verb::ALL.iter().enumerate() {
            let there = told.get(verb).is_some_and(|points| points.contains(point));
            let cell = if there {
                (n + 1).to_string()
            } else {
                ".".into()
            };
            text += &format!("{cell:>3}");
        }
        text.push('\n');
    }
    text
}
