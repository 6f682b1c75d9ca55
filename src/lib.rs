// SPDX-License-Identifier: Apache-2.0
//! actor-volumes gives each suspendable *actor* volumes of its own: created with
//! the actor, mounted whenever it runs, unmounted at suspend, there again with
//! the latest state at resume, deleted with the actor.
//!
//! # The map
//!
//! ```text
//!   people, platforms                       containerd, CSI drivers
//!        │                                    │            │
//!       cli ──▶ rpc ──▶ control ◀─┐      nri ─┤           csi
//!        │               │ store  │       │   │            ▲
//!       api              ▼        │   nri_plugin  cri      │
//!    template, class,   csi      run      │        │       │
//!    annotation, grant            │       ▼        ▼       │
//!                                 └───▶ node ◀─────┘───────┘
//!                                       record, plan, worker, sweep
//!                                         │            │
//!                                   policy, delivery  host ◀── helper
//!                                     (pure: which    (syscalls,
//!                                      mounts)         mount table)
//! ```
//!
//! The helper is a process of its own behind a socket: what enters a mounted
//! volume, or mounts, is asked of it by the node agent. `keys` signs grants for the
//! control plane, and says for the node agent who has signed them.
//!
//! Beside it stand the doors that are not NRI: hook, wrapper and guard (in runc's place),
//! `bundle` and `bind`. They read by `oci` what is to be made, ask the node agent by `rpc`,
//! and write it into config.json, or mount it by `host::attach` into the container.
//!
//! Arrows of `use` point one way, and `tests/arrows.rs` holds them. Only
//! [`run`] knows all rooms.
//!
//! # The roads
//!
//! 1. Template → [`api::template`] → stored revision.
//! 2. Create actor → intent recorded → CreateVolume → Ready.
//! 3. Resume → new generation → ControllerPublishVolume where the driver has
//!    it → a grant, returned as annotations.
//! 4. RunPodSandbox → the grant is checked → publishing starts in the
//!    background; CreateContainer joins it and is answered with bind mounts, or
//!    with a retryable error before the runtime's deadline. The other doors come
//!    to the same by GiveContainer.
//! 5. Scope ended and every member's exit proven → NodeUnpublishVolume → when
//!    no publication is left, NodeUnstageVolume → released.
//! 6. Suspend → revoke → release proven → ControllerUnpublishVolume.
//! 7. Delete → all of 5 and 6 proven → DeleteVolume → record gone.
//!
//! # What holds
//!
//! The invariants I1 to I11 are in `docs/design.md`, each with the test that
//! tries to break it. In one line: a volume is never deleted while attached,
//! never detached while published, never unpublished while a process of its
//! scope lives, and a container never runs without the volume it asked for.

pub mod api;
pub mod cli;
pub mod config;
pub mod control;
pub mod cri;
pub mod csi;
pub mod delivery;
pub mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod helper;
pub mod host;
pub mod keys;
pub mod link;
pub mod local_driver;
pub mod model;
pub mod node;
pub mod nri;
pub mod nri_plugin;
pub mod oci;
pub mod policy;
pub mod proto;
pub mod rpc;
pub mod run;
pub mod secret;
pub mod telemetry;
pub mod transport;
