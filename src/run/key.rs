// SPDX-License-Identifier: Apache-2.0
//! `key`: the files of keys, without a daemon.

use crate::{
    cli::key::{Key, KeyCommand, Keys, Place},
    config::Config,
    error::{Error, Result},
    keys::{KeyDir, KeyId, PublicKey, State},
};

/// Does what the command says.
pub(super) fn run(command: &KeyCommand) -> Result<()> {
    match command {
        KeyCommand::Generate(options) => {
            let dir = dir(&options.place)?;
            let key = dir.generate()?;
            options.print(&shown(&dir, &key, State::Waiting))
        }
        KeyCommand::Rotate(options) => {
            let dir = dir(&options.place)?;
            let key = dir.rotate(options.to.as_deref().map(str::parse).transpose()?.as_ref())?;
            options.print(&shown(&dir, &key, State::Signing))
        }
        KeyCommand::ShowPublic(options) => {
            let dir = dir(&options.place)?;
            let key = match &options.id {
                None => dir.signing()?.public().clone(),
                Some(id) => find(&dir, &id.parse()?)?.0,
            };
            options.print(&key.to_pem()?)
        }
        KeyCommand::List(options) => {
            let dir = dir(&options.place)?;
            let (found, problems) = dir.list()?;
            options.print(&Keys {
                directory: directory(&options.place)?,
                keys: found.iter().map(|f| shown(&dir, &f.key, f.state)).collect(),
                problems,
            })
        }
        KeyCommand::Remove(options) => {
            let dir = dir(&options.place)?;
            let (key, state) = find(&dir, &options.id.parse()?)?;
            dir.remove(key.id())?;
            options.print(&shown(&dir, &key, state))
        }
    }
}

fn directory(place: &Place) -> Result<std::path::PathBuf> {
    match &place.dir {
        Some(dir) => Ok(dir.clone()),
        None => Ok(Config::load(&place.config)?.key_dir()),
    }
}

fn dir(place: &Place) -> Result<KeyDir> {
    directory(place).map(KeyDir::new)
}

fn find(dir: &KeyDir, id: &KeyId) -> Result<(PublicKey, State)> {
    let mut found = dir.list()?.0.into_iter();
    let found = found.find(|f| f.key.id() == id);
    found.map(|f| (f.key, f.state)).ok_or_else(|| {
        Error::not_found(format!(
            "there is no key {id}: see `actor-volumes key list`"
        ))
    })
}

fn shown(dir: &KeyDir, key: &PublicKey, state: State) -> Key {
    Key {
        id: key.id().to_string(),
        state: match state {
            State::Signing => "signing",
            State::Waiting => "waiting",
            State::Trusted => "trusted",
        },
        public: dir.public_file(key.id()),
    }
}
