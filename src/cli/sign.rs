//! `wgha sign`.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::args::{SignArgs, SignRequest, SignScheme};
use super::{exit, print};
use crate::bounded;
use crate::sign::{Credentials, Header, Request, acs3, oci, tc3};

/// The longest secret file, in bytes: an RSA key of 4096 bits has 3,300.
const MAX_SECRET: u64 = 16 * 1024;
/// The longest body, in bytes.
const MAX_BODY: u64 = 1024 * 1024;

/// Prints the headers that sign a request.
pub(super) fn run(args: &SignArgs) -> anyhow::Result<ExitCode> {
    let (SignScheme::Acs3 { request, .. }
    | SignScheme::Tc3 { request, .. }
    | SignScheme::Oci { request }) = &args.scheme;
    let body = request.body.as_deref().map(|path| read(path, MAX_BODY)).transpose()?;
    let to_sign = Request {
        method: &request.method,
        url: &request.url,
        body: body.as_deref().map(Vec::as_slice),
        content_type: &request.content_type,
    };
    let unix =
        SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is wrong")?.as_secs();
    let headers = match &args.scheme {
        SignScheme::Acs3 { action, version, .. } => {
            let call = acs3::Call { action, version };
            acs3::sign(&to_sign, &call, &credentials(request)?, unix, &nonce()?)?
        }
        SignScheme::Tc3 { service, action, version, region, .. } => {
            let call = tc3::Call { service, action, version, region: region.as_deref() };
            tc3::sign(&to_sign, &call, &credentials(request)?, unix)?
        }
        SignScheme::Oci { .. } => {
            let secret = text(&request.secret_file)?;
            oci::sign(
                &to_sign,
                &Credentials { id: request.key_id.clone(), secret, token: None },
                unix,
            )?
        }
    };
    print(&lines(&headers, args.curl))?;
    Ok(ExitCode::from(exit::DONE))
}

/// As curl reads them from `-H @-`, or from `--config -`.
fn lines(headers: &[Header], curl: bool) -> Zeroizing<String> {
    let line = |(name, value): &Header| {
        if curl {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("header = \"{name}: {value}\"\n")
        } else {
            format!("{name}: {value}\n")
        }
    };
    Zeroizing::new(headers.iter().map(line).collect())
}

/// The secret is the first line of its file, and a session token the second, if there is one.
fn credentials(request: &SignRequest) -> anyhow::Result<Credentials> {
    let text = text(&request.secret_file)?;
    let mut lines = text.lines().map(|line| Zeroizing::new(line.trim().to_owned()));
    let secret = lines.next().filter(|secret| !secret.is_empty());
    let secret = secret.with_context(|| format!("{}: is empty", request.secret_file.display()))?;
    let token = lines.next().filter(|token| !token.is_empty());
    Ok(Credentials { id: request.key_id.clone(), secret, token })
}

fn text(path: &Path) -> anyhow::Result<Zeroizing<String>> {
    let named = || path.display().to_string();
    let mode = std::fs::metadata(path).with_context(named)?;
    // What is no file, such as a pipe of the shell, has no others who could open it.
    ensure!(
        !mode.is_file() || mode.mode() & 0o077 == 0,
        "{}: can be read or written by others (mode {:04o}); expected mode 0600",
        path.display(),
        mode.mode() & 0o7777
    );
    bounded::secret_text(&File::open(path).with_context(named)?, MAX_SECRET).with_context(named)
}

fn read(path: &Path, most: u64) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let named = || path.display().to_string();
    bounded::secret(&File::open(path).with_context(named)?, most).with_context(named)
}

/// 32 hexadecimal digits that were never there before.
fn nonce() -> anyhow::Result<String> {
    let mut random = [0; 16];
    SystemRandom::new().fill(&mut random).ok().context("no random numbers")?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
