// SPDX-License-Identifier: Apache-2.0
//! `template rollback`

use clap::Args;

use crate::{
    cli::{Context, file, output},
    error::Result,
    model::DnsLabel,
    proto::api,
};

/// Options of `template rollback`.
#[derive(Debug, Args)]
pub struct Rollback {
    /// The template.
    name: DnsLabel,
    /// The revision whose content and volumes are to come back.
    #[arg(long, value_name = "REVISION")]
    to: u64,
}

impl Rollback {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let mut client = context.client().await?;
        let request = api::RollbackTemplateRequest {
            name: self.name.to_string(),
            revision: self.to,
        };
        let answer = client.rollback_template(request).await?;
        let template = answer.template.unwrap_or_default();
        output::print(&format!(
            "template {} {} (revision {})",
            template.name,
            file::applied(answer.applied),
            template.revision
        ))
    }
}
