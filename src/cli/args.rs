//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Active/standby WireGuard gateways.
#[derive(Debug, Parser)]
#[command(
    name = "wgha",
    version,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong use, or `run` found its config or a file that it names wrong, 3 no daemon answers."
)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
pub struct Global {
    /// The config file; its name gives the defaults of socket and state directory
    #[arg(long, global = true, value_name = "PATH", default_value = "/etc/wgha/wgha.toml")]
    pub config: PathBuf,
    /// The node that this machine is, if its addresses and name do not tell
    #[arg(long, global = true, value_name = "NAME")]
    pub node: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Be a member of the cluster, until stopped
    Run(RunArgs),
    /// Look for mistakes in the config and on this machine
    Check,
    /// Show what the daemon knows
    Status(StatusArgs),
    /// Give the role of master to another gateway
    Handover(HandoverArgs),
    /// Keep this node from being master, or let it again
    Maintenance(MaintenanceArgs),
    /// Show what happened, and why
    Events(EventsArgs),
    /// Have the daemon read its files again
    Reload(ReloadArgs),
    /// Have the program that is now at the daemon's path take its place: check, handover if master, replace
    Upgrade(UpgradeArgs),
    /// Run the claims of the config by hand
    Claim(ClaimArgs),
    /// Take off what a daemon that died left on this machine
    Release,
    /// Make the cluster's key file, or a witness's from it
    Keygen(KeygenArgs),
    /// Print the headers that sign a request to a cloud, where curl cannot
    Sign(SignArgs),
}

/// `wgha run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Take over a WireGuard interface that something else has brought up
    #[arg(long)]
    pub take_over: bool,
    /// Be a witness of this cluster, too; as often as needed
    #[arg(long, value_name = "PATH")]
    pub also: Vec<PathBuf>,
}

/// `wgha status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// One JSON object
    #[arg(long)]
    pub json: bool,
    /// Again every second
    #[arg(long)]
    pub watch: bool,
}

/// `wgha handover`.
#[derive(Args, Clone, Debug)]
pub struct HandoverArgs {
    /// The successor; the best gateway unless given
    #[arg(long, value_name = "NODE")]
    pub to: Option<String>,
    /// Even if configs or WireGuard implementations differ
    #[arg(long)]
    pub force: bool,
}

/// `wgha maintenance`.
#[derive(Args, Clone, Debug)]
pub struct MaintenanceArgs {
    /// Whether this node keeps out
    pub switch: Switch,
    /// Even if no other gateway can serve
    #[arg(long)]
    pub force: bool,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Hand over and keep out
    On,
    /// Take part again
    Off,
}

/// `wgha events`.
#[derive(Args, Clone, Debug)]
pub struct EventsArgs {
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    /// Go on with new events as they happen
    #[arg(long)]
    pub follow: bool,
}

/// `wgha reload`.
#[derive(Args, Clone, Debug)]
pub struct ReloadArgs {
    /// Have the config's nodes vote from now on, although a node that voted is lost for good. Never for one that is
    /// only out of reach: both sides may then have a master
    #[arg(long)]
    pub force_voters: bool,
}

/// `wgha upgrade`.
#[derive(Args, Clone, Debug)]
pub struct UpgradeArgs {
    /// As master, even if no other gateway can take over: nobody serves until it is back
    #[arg(long)]
    pub force: bool,
}

/// `wgha claim`.
#[derive(Args, Clone, Debug)]
pub struct ClaimArgs {
    /// What the programs are asked
    pub verb: ClaimVerb,
    /// Let nothing be changed: programs whose API can do that say what they would do
    #[arg(long)]
    pub dry_run: bool,
    /// Assert although this node is not master
    #[arg(long)]
    pub force: bool,
}

/// `assert` or `verify`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ClaimVerb {
    /// Get what each claim is for
    Assert,
    /// Say whether this node has it
    Verify,
}

/// `wgha keygen`.
#[derive(Args, Clone, Debug)]
pub struct KeygenArgs {
    /// A new file of mode 0600; standard output unless given
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Derive a witness's keys from this key file of a gateway
    #[arg(long, value_name = "FILE")]
    pub witness_from: Option<PathBuf>,
    /// The new key's number, unique in its key file
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "witness_from")]
    pub id: u16,
}

/// `wgha sign`.
#[derive(Args, Clone, Debug)]
pub struct SignArgs {
    /// How
    #[command(subcommand)]
    pub scheme: SignScheme,
    /// Print lines for curl's --config instead of lines for its --header @-
    #[arg(long, global = true)]
    pub curl: bool,
}

/// Whose signature.
#[derive(Clone, Debug, Subcommand)]
pub enum SignScheme {
    /// Alibaba Cloud's ACS3-HMAC-SHA256
    Acs3 {
        /// The operation, such as DescribeEipAddresses
        #[arg(long)]
        action: String,
        /// The API's version, such as 2016-04-28
        #[arg(long = "api-version", value_name = "VERSION")]
        version: String,
        /// What is signed.
        #[command(flatten)]
        request: SignRequest,
    },
    /// Tencent Cloud's TC3-HMAC-SHA256
    Tc3 {
        /// The product, such as vpc
        #[arg(long)]
        service: String,
        /// The operation, such as DescribeAddresses
        #[arg(long)]
        action: String,
        /// The API's version, such as 2017-03-12
        #[arg(long = "api-version", value_name = "VERSION")]
        version: String,
        /// Where, such as eu-frankfurt
        #[arg(long)]
        region: Option<String>,
        /// What is signed.
        #[command(flatten)]
        request: SignRequest,
    },
    /// Oracle Cloud's HTTP signatures (RSA-SHA256)
    Oci {
        /// What is signed.
        #[command(flatten)]
        request: SignRequest,
    },
}

/// A request to sign.
#[derive(Args, Clone, Debug)]
pub struct SignRequest {
    /// The id of the secret; for oci TENANCY/USER/FINGERPRINT
    #[arg(long, value_name = "ID")]
    pub key_id: String,
    /// A file with the secret, and a session token on the second line if there is one; for oci a PEM file
    #[arg(long, value_name = "FILE")]
    pub secret_file: PathBuf,
    /// A file with the body; none unless given
    #[arg(long, value_name = "FILE")]
    pub body: Option<PathBuf>,
    /// The body's media type
    #[arg(long, value_name = "TYPE", default_value = "application/json")]
    pub content_type: String,
    /// The method, in capitals
    pub method: String,
    /// The URL, its query percent-encoded
    pub url: String,
}
