//! `wgha keygen`.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::process::ExitCode;

use anyhow::Context;
use wgha_proto::Keyring;

use super::{KeygenArgs, exit};
use crate::keyfile;

/// Makes a key and writes it to the file, or to standard output.
pub(super) fn run(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    let ring = match &args.witness_from {
        Some(path) => witness(path)?,
        None => keyfile::generate(args.id).context("no key was made")?,
    };
    match &args.out {
        Some(path) => keyfile::create(path, &ring)?,
        None => to_stdout(&ring).context("cannot write to standard output")?,
    }
    Ok(ExitCode::from(exit::DONE))
}

fn witness(path: &std::path::Path) -> anyhow::Result<Keyring> {
    let ring = keyfile::load(path)?;
    anyhow::ensure!(
        !ring.is_witness(),
        "{}: holds witness keys already; expected a gateway's key file",
        path.display()
    );
    Ok(ring.to_witness())
}

/// Past the buffer of `std::io::stdout`, which is never wiped.
fn to_stdout(ring: &Keyring) -> std::io::Result<()> {
    let mut out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    out.write_all(ring.to_text().as_bytes())
}
