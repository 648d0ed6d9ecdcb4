//! TLS: a certificate from files, or one of our own making for a machine without a name.
//!
//! HTTP/1.1 alone is offered: WebSockets need it, and what HTTP/2 gains is little here. No default provider is installed,
//! so nothing else of the process changes.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A self-signed certificate's life: the longest that all browsers take.
const LASTS: Duration = Duration::days(397);
/// Before its end another one is made, at a start.
const RENEWED_BEFORE: Duration = Duration::days(30);
/// Clocks differ.
const EARLIER: Duration = Duration::days(1);
/// An address that is nobody's, to learn which of ours faces the network. Nothing is sent there.
const NOBODY: &str = "192.0.2.1:9";

/// A certificate with its key, ready to serve.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ServerConfig>,
    /// SHA-256 of the certificate, as browsers show it.
    fingerprint: String,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("TLS_CERT: {} cannot be read as PEM certificates: {reason}", path.display())]
    Certificate { path: PathBuf, reason: String },
    #[error("TLS_KEY: {} cannot be read as a PEM private key: {reason}", path.display())]
    Key { path: PathBuf, reason: String },
    #[error("the certificate and the key cannot be used: {0}; TLS_KEY must be the key of TLS_CERT's first certificate")]
    Unusable(tokio_rustls::rustls::Error),
    #[error("a certificate cannot be made: {0}")]
    Making(#[from] rcgen::Error),
    #[error("{} cannot be written: {cause}", path.display())]
    Folder { path: PathBuf, cause: std::io::Error },
}

impl Tls {
    /// A certificate, with those between it and its authority's, and its key.
    ///
    /// # Errors
    /// A file is missing or no PEM, or the two do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let no_certificate = |reason| TlsError::Certificate { path: certificate.to_owned(), reason };
        let chain = CertificateDer::pem_file_iter(certificate).map_err(|error| no_certificate(error.to_string()))?;
        let chain: Vec<_> = chain.collect::<Result<_, _>>().map_err(|error| no_certificate(error.to_string()))?;
        let Some(first) = chain.first() else { return Err(no_certificate("it holds none".to_owned())) };
        let fingerprint = fingerprint(first);
        let key = PrivateKeyDer::from_pem_file(key)
            .map_err(|error| TlsError::Key { path: key.to_owned(), reason: error.to_string() })?;
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(TlsError::Unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    /// A certificate that nobody vouches for, kept in `folder` until it nears its end or the names change.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn self_signed(folder: &Path, names: Vec<String>) -> Result<Self, TlsError> {
        let [certificate, key, note] =
            ["self-signed.pem", "self-signed.key", "self-signed.json"].map(|it| folder.join(it));
        let kept = fs::read_to_string(&note).ok().and_then(|text| serde_json::from_str::<Note>(&text).ok());
        if kept.is_some_and(|kept| kept.serves(&names))
            && let Ok(tls) = Self::from_files(&certificate, &key)
        {
            return Ok(tls);
        }
        let failed = |cause| TlsError::Folder { path: folder.to_owned(), cause };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let now = OffsetDateTime::now_utc();
        let (pem, key_pem) = make(&names, now)?;
        let note_text = Note { names, not_after: (now + LASTS).format(&Rfc3339).unwrap_or_default() };
        // The note comes last: without it what is there is made anew.
        write(folder, &key, key_pem.as_bytes()).map_err(failed)?;
        write(folder, &certificate, pem.as_bytes()).map_err(failed)?;
        write(folder, &note, &serde_json::to_vec(&note_text).unwrap_or_default()).map_err(failed)?;
        Self::from_files(&certificate, &key)
    }

    /// SHA-256 of the certificate, as browsers show it.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

/// What this machine is called by whoever may connect: its names and addresses, and `more`.
pub fn own_names(listens_on: IpAddr, more: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_ascii_lowercase());
    names.extend(host.ok().filter(|name| !name.is_empty()));
    if listens_on.is_unspecified() {
        let facing = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
            socket.connect(NOBODY)?;
            socket.local_addr()
        });
        names.extend(facing.ok().map(|address| address.ip().to_string()));
    } else {
        names.push(listens_on.to_string());
    }
    names.extend(more.iter().cloned());
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// What a kept certificate is for.
#[derive(Serialize, Deserialize)]
struct Note {
    names: Vec<String>,
    not_after: String,
}

impl Note {
    fn serves(&self, names: &[String]) -> bool {
        let end = OffsetDateTime::parse(&self.not_after, &Rfc3339);
        self.names == names && end.is_ok_and(|end| end - RENEWED_BEFORE > OffsetDateTime::now_utc())
    }
}

/// A certificate and its key, in PEM.
fn make(names: &[String], now: OffsetDateTime) -> Result<(String, String), TlsError> {
    let mut request = CertificateParams::new(names)?;
    request.not_before = now - EARLIER;
    request.not_after = now + LASTS;
    request.distinguished_name.push(DnType::CommonName, "aichat");
    request.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((request.self_signed(&key)?.pem(), key.serialize_pem()))
}

/// Writes a file that only its owner may read, whole or not at all.
fn write(folder: &Path, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let bytes: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
