//! What can be typed, and what comes of it.

use clap::{CommandFactory, Parser};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_arguments_hold_together() {
    Cli::command().debug_assert();
}

#[test]
fn config_and_node_stand_anywhere() {
    let cli = parse("wgha check").unwrap();
    assert_eq!(cli.global.config.to_str(), Some("/etc/wgha/wgha.toml"));
    for line in ["wgha --config /a --node gw1 status", "wgha status --config /a --node gw1"] {
        let global = parse(line).unwrap().global;
        assert_eq!((global.config.to_str(), global.node.as_deref()), (Some("/a"), Some("gw1")));
    }
}

#[test]
fn every_command_of_the_contract() {
    for line in [
        "wgha run",
        "wgha run --take-over",
        "wgha run --config /a --also /b --also /c",
        "wgha release",
        "wgha check",
        "wgha status",
        "wgha status --json",
        "wgha status --watch",
        "wgha handover",
        "wgha handover --to gw2 --force",
        "wgha maintenance on",
        "wgha maintenance off --force",
        "wgha events",
        "wgha events --json --follow",
        "wgha reload",
        "wgha reload --force-voters",
        "wgha upgrade",
        "wgha upgrade --force",
        "wgha keygen",
        "wgha keygen --out /k --id 2",
        "wgha keygen --out /w --witness-from /k",
        "wgha sign acs3 --key-id k --secret-file /s --action a --api-version v POST https://h/",
        "wgha sign tc3 --key-id k --secret-file /s --service vpc --action a --api-version v --curl POST https://h/",
        "wgha sign oci --key-id t/u/f --secret-file /s --body /b PUT https://h/",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn wrong_use() {
    for line in [
        "wgha",
        "wgha frob",
        "wgha check now",
        "wgha maintenance",
        "wgha maintenance maybe",
        "wgha keygen --id 70000",
        "wgha keygen --id 2 --witness-from /k",
    ] {
        let error = parse(line).unwrap_err();
        assert!(error.use_stderr(), "{line}");
        assert_eq!(error.exit_code(), i32::from(exit::WRONG_USE), "{line}");
    }
}
