// SPDX-License-Identifier: Apache-2.0
//! Certificates for tests. The end-to-end suite uses this file too.

use std::{fs, path::Path};

use actor_volumes::transport::TlsFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// An authority and what it has signed.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Files of somebody with this name, who trusts `trusted`.
    pub(crate) fn files(&self, dir: &Path, name: &str, trusted: &Self) -> TlsFiles {
        fs::create_dir_all(dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let write = |file: &str, text: String| {
            let path = dir.join(file);
            fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            ca: write("ca.crt", trusted.0.pem()),
            cert: write("tls.crt", cert.pem()),
            key: write("tls.key", key.serialize_pem()),
            server_name: Some("control.example".into()),
        }
    }
}
