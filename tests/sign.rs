//! Proves that `wgha sign` makes the signatures that the providers' own clients make (tests/vectors/sign), and that nothing
//! secret is in what it says when it fails.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use wgha::sign::{Credentials, Header, Request, SignError, acs3, oci, tc3};
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Vector {
    scheme: String,
    unix: u64,
    method: String,
    url: String,
    body: Option<String>,
    content_type: Option<String>,
    key_id: String,
    secret: Option<String>,
    secret_file: Option<PathBuf>,
    token: Option<String>,
    nonce: Option<String>,
    service: Option<String>,
    action: Option<String>,
    version: Option<String>,
    region: Option<String>,
    headers: BTreeMap<String, String>,
}

impl Vector {
    fn credentials(&self) -> Credentials {
        let secret = match &self.secret_file {
            Some(file) => fs::read_to_string(directory().join(file)).unwrap(),
            None => self.secret.clone().unwrap(),
        };
        Credentials {
            id: self.key_id.clone(),
            secret: Zeroizing::new(secret),
            token: self.token.clone().map(Zeroizing::new),
        }
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: &self.method,
            url: &self.url,
            body: self.body.as_ref().map(String::as_bytes),
            content_type: self.content_type.as_deref().unwrap_or("application/json"),
        }
    }

    fn sign(&self) -> Result<Vec<Header>, SignError> {
        let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
        let (action, version) = (text(&self.action), text(&self.version));
        let (action, version) = (action.as_str(), version.as_str());
        match self.scheme.as_str() {
            "acs3" => {
                let (call, nonce) = (acs3::Call { action, version }, text(&self.nonce));
                acs3::sign(&self.request(), &call, &self.credentials(), self.unix, &nonce)
            }
            "tc3" => {
                let service = text(&self.service);
                let region = self.region.as_deref();
                let call = tc3::Call { service: &service, action, version, region };
                tc3::sign(&self.request(), &call, &self.credentials(), self.unix)
            }
            "oci" => oci::sign(&self.request(), &self.credentials(), self.unix),
            other => panic!("unknown scheme {other}"),
        }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/sign")
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(&fs::read_to_string(directory().join("vectors.json")).unwrap()).unwrap()
}

fn lower(headers: impl IntoIterator<Item = (impl AsRef<str>, String)>) -> BTreeMap<String, String> {
    headers.into_iter().map(|(name, value)| (name.as_ref().to_lowercase(), value)).collect()
}

#[test]
fn as_the_providers_clients_sign() {
    let mut seen = BTreeMap::<String, usize>::new();
    for vector in vectors() {
        let made = vector.sign().unwrap();
        let what = format!("{} {} at {}", vector.scheme, vector.url, vector.unix);
        assert_eq!(lower(made), lower(vector.headers), "{what}");
        *seen.entry(vector.scheme).or_default() += 1;
    }
    let expected = [("acs3", 10), ("oci", 8), ("tc3", 7)];
    assert_eq!(seen, expected.map(|(scheme, n)| (scheme.to_owned(), n)).into());
}

fn first(scheme: &str) -> Vector {
    vectors().into_iter().find(|vector| vector.scheme == scheme).unwrap()
}

/// What is signed depends on each of these: none of them may be left out.
#[test]
fn everything_is_signed() {
    let change: [fn(&mut Vector); 7] = [
        |vector| vector.unix += 1,
        |vector| vector.url.push_str("?x=y&RegionId"),
        |vector| vector.url = vector.url.replace("//", "//other."),
        |vector| vector.body = Some("{\"other\":1}".to_owned()),
        |vector| vector.action = Some("Other".to_owned()),
        |vector| vector.secret = Some("other".to_owned()),
        |vector| vector.method = "PUT".to_owned(),
    ];
    // (scheme, those that do not matter there): TC3 signs neither action (a header) nor knows methods but one; a GET
    // has no body, and OCI's secret is a file.
    for (scheme, without) in [("acs3", &[][..]), ("tc3", &[4, 6]), ("oci", &[3, 4, 5])] {
        let authorization =
            |vector: &Vector| lower(vector.sign().unwrap())["authorization"].clone();
        let before = authorization(&first(scheme));
        for (index, change) in change.iter().enumerate().filter(|(n, _)| !without.contains(n)) {
            let mut changed = first(scheme);
            change(&mut changed);
            assert_ne!(authorization(&changed), before, "{scheme}, change {index}");
        }
    }
}

#[test]
fn what_cannot_be_signed() {
    for url in [
        "ftp://h/",
        "https://",
        "https:///path",
        "https://user@h/",
        "https://h/a b",
        "https://h/#x",
        "https://h/?a=b+c",
        "https://h/?a=%2",
        "https://h/?a=%zz",
        "https://h/?a=ä",
    ] {
        let mut vector = first("acs3");
        url.clone_into(&mut vector.url);
        assert!(matches!(vector.sign(), Err(SignError::Url(_))), "{url}");
    }
    for value in ["", "a\r\nHost: other", "ä", "a\tb"] {
        for scheme in ["acs3", "tc3"] {
            let mut vector = first(scheme);
            vector.action = Some(value.to_owned());
            assert!(
                matches!(vector.sign(), Err(SignError::Header(_))),
                "{scheme} action {value:?}"
            );
        }
        for scheme in ["acs3", "tc3", "oci"] {
            let mut vector = first(scheme);
            value.clone_into(&mut vector.key_id);
            assert!(
                matches!(vector.sign(), Err(SignError::Header(_))),
                "{scheme} key id {value:?}"
            );
        }
    }
    let mut vector = first("oci");
    vector.key_id.push('"');
    assert!(matches!(vector.sign(), Err(SignError::Header(_))));
    let mut vector = first("tc3");
    vector.method = "GET".to_owned();
    assert!(matches!(vector.sign(), Err(SignError::Method(_))));
    for scheme in ["acs3", "tc3", "oci"] {
        let mut vector = first(scheme);
        vector.unix = u64::MAX;
        assert!(matches!(vector.sign(), Err(SignError::Time)), "{scheme}");
    }
}

/// (its path, what is wrong): keys that are none.
#[test]
fn private_keys_that_are_none() {
    let pem = fs::read_to_string(directory().join("oci-pkcs8.pem")).unwrap();
    let cut: String = pem.lines().take(5).map(|line| format!("{line}\n")).collect();
    let half = pem.replacen("MII", "MIJ", 1);
    for (text, why) in [
        ("", "is not in PEM"),
        ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", "is not in PEM"),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----",
            "passphrase",
        ),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAA\n-----END RSA PRIVATE KEY-----",
            "passphrase",
        ),
        ("-----BEGIN PRIVATE KEY-----\n!\n-----END PRIVATE KEY-----", "is no base64"),
        (cut.as_str(), "has no end"),
        (half.as_str(), "is no RSA key"),
    ] {
        let mut vector = first("oci");
        let (dir, file) = secret(text);
        vector.secret_file = Some(file);
        let error = vector.sign().unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
        drop(dir);
    }
}

fn secret(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    (dir, path)
}

fn wgha(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_wgha")).arg("sign").args(args).output().unwrap()
}

fn acs3_args(file: &Path) -> Vec<&str> {
    let file = file.to_str().unwrap();
    let fixed = ["--action", "A", "--api-version", "V", "POST", "https://vpc.aliyuncs.com/?a=b"];
    [&["acs3", "--key-id", "id", "--secret-file", file][..], &fixed].concat()
}

/// The headers, as curl takes them from a pipe, with a nonce that is another each time.
#[test]
fn the_command() {
    let (_dir, file) = secret("hidden-secret\nhidden-token\n");
    let mut nonces = Vec::new();
    for _ in 0..2 {
        let output = wgha(&acs3_args(&file));
        assert_eq!((output.status.code(), &output.stderr[..]), (Some(0), &b""[..]));
        let text = String::from_utf8(output.stdout).unwrap();
        let headers: BTreeMap<_, _> =
            text.lines().map(|line| line.split_once(": ").unwrap()).collect();
        assert_eq!((headers["x-acs-action"], headers["x-acs-version"]), ("A", "V"));
        assert_eq!(headers["x-acs-security-token"], "hidden-token");
        assert!(
            headers["Authorization"]
                .starts_with("ACS3-HMAC-SHA256 Credential=id,SignedHeaders=host;")
        );
        assert!(!text.contains("hidden-secret"));
        nonces.push(headers["x-acs-signature-nonce"].to_owned());
    }
    assert_ne!(nonces[0], nonces[1]);
}

/// A pipe is as good as a file, and quotes are escaped for curl's config.
#[test]
fn the_command_for_curls_config() {
    let pem = directory().join("oci-pkcs8.pem");
    let script = format!(
        "cat {} | {} sign oci --curl --key-id t/u/f --secret-file /dev/stdin GET https://h/x",
        pem.display(),
        env!("CARGO_BIN_EXE_wgha")
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 2, "{text} {}", String::from_utf8_lossy(&output.stderr));
    assert!(text.starts_with("header = \"date: "), "{text}");
    assert!(
        text.contains("header = \"Authorization: Signature algorithm=\\\"rsa-sha256\\\","),
        "{text}"
    );
}

#[test]
fn the_command_refuses() {
    let (_dir, file) = secret("hidden-secret");
    fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let (_empty, nothing) = secret("\n");
    let (_long, long) = secret(&"hidden-secret".repeat(2000));
    let missing = Path::new("/nonexistent/secret");
    for (file, why) in [
        (file.as_path(), "can be read or written by others (mode 0640)"),
        (&nothing, "is empty"),
        (&long, "is longer than 16384 bytes"),
        (missing, "/nonexistent/secret: No such file"),
    ] {
        let output = wgha(&acs3_args(file));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.contains(why) && !said.contains("hidden"), "{said}");
    }
    assert_eq!(wgha(&["acs3", "POST", "https://h/"]).status.code(), Some(2));
}
