//! `lab-client INTERFACE FILE`: a WireGuard client in user space, for machines without any other.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use gotatun::device::DeviceBuilder;
use gotatun::device::uapi::UapiServer;

/// Makes a WireGuard interface in this network namespace and serves it until a signal comes.
#[derive(Parser)]
struct Args {
    /// Name of the interface to make.
    interface: String,
    /// A file in wg-quick's format.
    file: std::path::PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(run(&args))
}

async fn run(args: &Args) -> Result<()> {
    let conf = netns_lab::WgConf::parse(&std::fs::read_to_string(&args.file)?)
        .context("reading the config")?;
    let uapi =
        UapiServer::default_unix_socket(&args.interface, None, None).map_err(|e| anyhow!("{e}"))?;
    let builder = DeviceBuilder::new().with_default_udp().with_uapi(uapi);
    let mut device =
        builder.create_tun(&args.interface).context("opening the tunnel")?.build().await?;
    let interface = args.interface.clone();
    tokio::task::spawn_blocking(move || netns_lab::bring_up(&interface, &conf)).await??;
    println!("lab-client: ready");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        () = device.wait() => return Err(anyhow!("the device failed")),
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    device.stop().await;
    let socket = format!("/var/run/wireguard/{}.sock", args.interface);
    let _ = std::fs::remove_file(Path::new(&socket));
    Ok(())
}
