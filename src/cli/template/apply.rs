// SPDX-License-Identifier: Apache-2.0
//! `template apply`

use clap::Args;

use crate::{
    cli::{
        Context,
        file::{self, File},
        output,
    },
    error::Result,
    proto::api,
};

/// Options of `template apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    file: File,
}

impl Apply {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let text = self.file.read()?;
        let mut client = context.client().await?;
        let request = api::ApplyTemplateRequest { text };
        let answer = client.apply_template(request).await?;
        let template = answer.template.unwrap_or_default();
        output::print(&format!(
            "template {} {} (revision {})",
            template.name,
            file::applied(answer.applied),
            template.revision
        ))
    }
}
