// SPDX-License-Identifier: Apache-2.0
//! The words of this project as types. Pure: no I/O, no clock, no runtime.

mod access;
mod grant;
mod name;
mod place;
mod scope;
mod secret_ref;
mod sub_path;
mod topology;
mod view;

pub(crate) use name::check_subdomain;

pub use access::{AccessMode, ReclaimPolicy, VolumeMode};
pub use grant::{Audience, Grant, GrantActor, GrantDevice, GrantMount, GrantVolume};
pub use name::{
    ActorRef, ActorUid, DnsLabel, DriverName, Generation, NodeName, RuntimeId, VolumeKey, VolumeUid,
};
pub use place::clean_path;
pub use scope::{Door, Scope, ScopeKey};
pub use secret_ref::{SecretRef, SecretRefs, SecretUse};
pub use sub_path::SubPath;
pub use topology::{Topology, reaches};
pub use view::{ContainerView, SandboxView, ViewMount};
