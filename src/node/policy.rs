// SPDX-License-Identifier: Apache-2.0
//! The policy of this node, before anything is recorded or published.

use super::{Agent, admit::Admitted};
use crate::{
    delivery::Flags,
    error::Result,
    model::{GrantVolume, SandboxView},
    policy::{self, Denial},
};

impl Agent {
    /// An error if the policy forbids it, which is counted.
    pub(super) async fn allow(&self, admitted: &Admitted, sandbox: &SandboxView) -> Result<()> {
        self.may_have(admitted, sandbox).await.map_err(|denial| {
            self.shared.metrics.policy_denial(denial.rule.as_str());
            denial.into()
        })
    }

    /// Whether the pod may have what is granted.
    pub(super) async fn may_have(
        &self,
        admitted: &Admitted,
        sandbox: &SandboxView,
    ) -> Result<(), Denial> {
        let mut beside = 0;
        for volume in self.volumes_of(&sandbox.id) {
            let state = volume.state.lock().await;
            let others = state.record.publications.iter().filter(|p| {
                p.scope.home() == sandbox.id && p.scope != admitted.scope && p.ending.is_none()
            });
            beside += others.count();
        }
        policy::decide(&admitted.grant, sandbox, beside, &self.settings.policy)
    }

    /// What the bind mounts of the volume are made with.
    pub(super) fn flags(&self, volume: &GrantVolume) -> Flags {
        Flags {
            no_exec: self.settings.policy.no_exec.has(&volume.driver),
            id_mapped: false,
        }
    }
}
