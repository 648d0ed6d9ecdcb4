use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::*;
use crate::api::fixture::server_with;

fn names() -> Vec<String> {
    own_names([127, 0, 0, 1].into(), &["chat.example.org".into()])
}

fn connector(certificate: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[test]
fn a_certificate_is_kept_until_its_names_change_or_it_nears_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("tls");
    let first = Tls::self_signed(&folder, names()).unwrap();
    for file in ["self-signed.key", "self-signed.pem", "self-signed.json"] {
        let mode = fs::metadata(folder.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(first.fingerprint().len(), 32 * 3 - 1);
    let again = Tls::self_signed(&folder, names()).unwrap();
    assert_eq!(again.fingerprint(), first.fingerprint());
    let mut more = names();
    more.push("other.example.org".into());
    let renamed = Tls::self_signed(&folder, more.clone()).unwrap();
    assert_ne!(renamed.fingerprint(), first.fingerprint());
    let soon = OffsetDateTime::now_utc() + Duration::days(29);
    let note = Note { names: more.clone(), not_after: soon.format(&Rfc3339).unwrap() };
    fs::write(folder.join("self-signed.json"), serde_json::to_vec(&note).unwrap()).unwrap();
    let renewed = Tls::self_signed(&folder, more.clone()).unwrap();
    assert_ne!(renewed.fingerprint(), renamed.fingerprint());
    fs::write(folder.join("self-signed.key"), "broken").unwrap();
    let mended = Tls::self_signed(&folder, more).unwrap();
    assert_ne!(mended.fingerprint(), renewed.fingerprint());
}

#[test]
fn files_that_are_no_pair_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = ["one", "two"].map(|it| folder.path().join(it));
    Tls::self_signed(&one, names()).unwrap();
    Tls::self_signed(&two, names()).unwrap();
    let (certificate, key) = (one.join("self-signed.pem"), two.join("self-signed.key"));
    let told = |certificate: &Path, key: &Path| Tls::from_files(certificate, key).err().unwrap().to_string();
    assert!(told(&certificate, &key).contains("TLS_KEY must be the key of"), "{}", told(&certificate, &key));
    assert!(told(&folder.path().join("absent"), &key).starts_with("TLS_CERT: "));
    assert!(told(&key, &key).contains("it holds none"), "{}", told(&key, &key));
    assert!(told(&certificate, &certificate).starts_with("TLS_KEY: "));
    assert!(!told(&certificate, &key).contains("BEGIN"), "no key is told");
}

#[tokio::test]
async fn a_server_speaks_tls_and_bad_clients_stop_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tls = Tls::self_signed(folder.path(), names()).unwrap();
    let server = server_with(|state| {
        state.tls = Some(tls);
        state.limits.header_timeout = std::time::Duration::from_millis(500);
    })
    .await;
    let connector = connector(&folder.path().join("self-signed.pem"));
    // Plain HTTP, garbage, silence.
    let mut silent = TcpStream::connect(&server.address).await.unwrap();
    for bytes in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\u{16}\u{3}\u{1}\0\u{1}garbage"] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        // Reset or closed, but not answered in plain.
        let _ = stream.read_to_end(&mut rest).await;
        assert!(!rest.starts_with(b"HTTP"), "{rest:?}");
    }
    for name in ["localhost", "127.0.0.1", "chat.example.org"] {
        let stream = TcpStream::connect(&server.address).await.unwrap();
        let mut stream = connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
        let request = "POST /api/logout HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204") && answer.contains("Secure"), "{answer}");
    }
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let other = ServerName::try_from("evil.example").unwrap();
    connector.connect(other, stream).await.expect_err("a name that is not ours");

    let begun = Instant::now();
    let mut rest = Vec::new();
    let _ = silent.read_to_end(&mut rest).await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "a handshake that never comes is given up");
    let stream = TcpStream::connect(&server.address).await.unwrap();
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    let address = format!("wss://{}/ws", server.address);
    let (mut socket, _) = tokio_tungstenite::client_async(address, stream).await.unwrap();
    let first = futures::StreamExt::next(&mut socket).await.unwrap().unwrap();
    assert!(first.to_text().unwrap().contains("session_started"), "{first}");
}
