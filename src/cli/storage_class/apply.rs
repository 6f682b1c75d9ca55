// SPDX-License-Identifier: Apache-2.0
//! `storageclass apply`

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

/// Options of `storageclass apply`.
#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    file: File,
}

impl Apply {
    pub(super) async fn run(self, context: &Context<'_>) -> Result<()> {
        let text = self.file.read()?;
        let mut client = context.client().await?;
        let request = api::ApplyStorageClassRequest { text };
        let answer = client.apply_storage_class(request).await?;
        output::print(&format!(
            "storageclass {} {}",
            answer.storage_class.unwrap_or_default().name,
            file::applied(answer.applied)
        ))
    }
}
