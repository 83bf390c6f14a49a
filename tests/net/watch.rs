//! Changes by others are noticed, and nothing else is.

use std::time::Duration;

use tokio::time::timeout;
use wgha::config::FloatingIp;
use wgha::net::source::{self, SourcePlan};
use wgha::net::watch::Watch;
use wgha::net::{Lifetime, Netlink, address};

use crate::namespace::{Ns, as_root, ip, nft};

const QUIET: Duration = Duration::from_millis(300);
/// Changes in a burst.
const FLOOD: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(30);

fn machine() -> Ns {
    let ns = Ns::new();
    ns.ip("link add eth0 type veth peer name eth0p");
    ns.ip("link set eth0 up");
    ns.ip("link set eth0p up");
    ns.address("eth0", "10.0.0.2/24");
    ns.address("eth0", "fd00::2/64");
    ns
}

/// Reads what is left of the set-up.
async fn settle(watch: &mut Watch) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    while timeout(QUIET, watch.changed()).await.is_ok() {}
}

#[test]
fn every_kind_of_change_is_told_and_then_it_is_quiet() {
    as_root("watch::every_kind_of_change_is_told_and_then_it_is_quiet", || {
        machine().run_async(|| async {
            let mut watch = Watch::open().unwrap();
            settle(&mut watch).await;
            for change in [
                "addr add 10.0.0.10/32 dev eth0",
                "addr del 10.0.0.10/32 dev eth0",
                "addr add fd00::10/128 dev eth0 nodad",
                "addr del fd00::10/128 dev eth0",
                "-4 rule add pref 50 lookup 5",
                "-4 rule del pref 50",
                "-6 rule add pref 50 lookup 5",
                "-6 rule del pref 50",
                "-4 route add 192.0.2.0/24 via 10.0.0.1 table 99",
                "-4 route flush table 99",
                "-6 route add 2001:db8::/64 via fd00::1",
                "-6 route del 2001:db8::/64",
                "link set eth0 mtu 1400",
                "link add br9 type bridge",
                "link del br9",
                "link del eth0",
            ] {
                assert!(timeout(QUIET, watch.changed()).await.is_err(), "noise before {change}");
                ip(change);
                timeout(PATIENCE, watch.changed()).await.expect(change).unwrap();
                while timeout(QUIET, watch.changed()).await.is_ok() {}
            }
            for change in ["add table inet own", "flush ruleset"] {
                assert!(timeout(QUIET, watch.changed()).await.is_err(), "noise before {change}");
                nft(change);
                timeout(PATIENCE, watch.changed()).await.expect(change).unwrap();
                while timeout(QUIET, watch.changed()).await.is_ok() {}
            }
        });
    });
}

#[test]
fn a_burst_is_told_a_few_times_and_its_last_change_is_not_lost() {
    as_root("watch::a_burst_is_told_a_few_times_and_its_last_change_is_not_lost", || {
        machine().run_async(|| async {
            let mut watch = Watch::open().unwrap();
            settle(&mut watch).await;
            let nl = Netlink::open().unwrap();
            let writer = nl.clone();
            let flood = tokio::spawn(async move {
                for n in 0..FLOOD {
                    let address = format!("10.7.{}.{}/32", n / 250, n % 250).parse().unwrap();
                    writer.put_address("eth0", address, Lifetime::Forever, false).await.unwrap();
                }
            });
            let (mut told, mut seen) = (0, 0);
            while timeout(QUIET, watch.changed()).await.is_ok() {
                told += 1;
                seen = nl.addresses(Some("eth0")).await.unwrap().len();
            }
            flood.await.unwrap();
            assert!((1..FLOOD / 2).contains(&told), "{told}");
            let all = nl.addresses(Some("eth0")).await.unwrap().len();
            assert!(all >= FLOOD && seen == all, "the last look saw {seen} of {all}");
        });
    });
}

#[test]
fn a_full_buffer_counts_as_a_change() {
    as_root("watch::a_full_buffer_counts_as_a_change", || {
        machine().run_async(|| async {
            let mut watch = Watch::open().unwrap();
            settle(&mut watch).await;
            let batch: String = (0..20_000)
                .map(|n| format!("route add 172.16.{}.{}/32 dev eth0 table 99\n", n / 250, n % 250))
                .collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), batch).unwrap();
            ip(&format!("-batch {}", file.path().display()));
            timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
            while timeout(QUIET, watch.changed()).await.is_ok() {}
            ip("link set eth0 mtu 1400");
            timeout(PATIENCE, watch.changed()).await.unwrap().unwrap();
        });
    });
}

#[test]
fn putting_things_right_comes_to_rest() {
    as_root("watch::putting_things_right_comes_to_rest", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let vip =
                FloatingIp { address: "10.0.0.10/32".parse().unwrap(), interface: "eth0".into() };
            let plan = SourcePlan {
                port: 51820,
                v4: Some(("10.0.0.10".parse().unwrap(), "eth0".into())),
                v6: None,
            };
            let mut watch = Watch::open().unwrap();
            settle(&mut watch).await;
            for wreck in ["addr del 10.0.0.10/32 dev eth0", "-4 rule flush", "nft flush ruleset"] {
                address::claim(&nl, &vip).await.unwrap();
                source::install(&nl, &plan).await.unwrap();
                while timeout(QUIET, watch.changed()).await.is_ok() {}
                match wreck.strip_prefix("nft ") {
                    Some(change) => nft(change),
                    None => ip(wreck),
                };
                let (mut looks, mut repairs) = (0, 0);
                while timeout(QUIET, watch.changed()).await.is_ok() {
                    looks += 1;
                    assert!(looks < 10, "no rest after {wreck}");
                    let claimed = address::claim(&nl, &vip).await.unwrap();
                    let installed = source::install(&nl, &plan).await.unwrap();
                    repairs += u32::from(claimed || installed);
                }
                assert_eq!(repairs, 1, "{wreck}");
                assert!(looks <= 3, "{looks} looks after {wreck}");
                assert!(address::held(&nl, &vip).await.unwrap());
            }
        });
    });
}

/// The floating IPs live for 4 s and are renewed each second: nobody need look at that.
#[test]
fn a_lifetime_that_begins_anew_is_no_change() {
    as_root("watch::a_lifetime_that_begins_anew_is_no_change", || {
        machine().run_async(|| async {
            let nl = Netlink::open().unwrap();
            let floating = |address: &str| FloatingIp {
                address: address.parse().unwrap(),
                interface: "eth0".into(),
            };
            let vips = ["10.0.0.10/32", "10.9.0.1/24", "fd00::10/128", "fd01::1/64"].map(floating);
            let valid = Lifetime::Seconds(15);
            let mut watch = Watch::open().unwrap();
            settle(&mut watch).await;
            for vip in &vips {
                assert!(address::claim_for(&nl, vip, valid).await.unwrap());
                timeout(PATIENCE, watch.changed()).await.expect("a new address").unwrap();
            }
            settle(&mut watch).await;
            for _ in 0..3 {
                for vip in &vips {
                    address::renew(&nl, vip, valid).await.unwrap();
                }
                let told = timeout(QUIET, watch.changed()).await;
                assert!(told.is_err(), "renewals were told");
            }
            // What others do to one that was renewed is told as before.
            for change in [
                "addr change 10.0.0.10/32 dev eth0 valid_lft forever preferred_lft forever",
                "addr del 10.0.0.10/32 dev eth0",
                "addr del fd00::10/128 dev eth0",
                "addr add fd00::10/128 dev eth0 nodad",
            ] {
                ip(change);
                timeout(PATIENCE, watch.changed()).await.expect(change).unwrap();
                while timeout(QUIET, watch.changed()).await.is_ok() {}
            }
            // Nobody renews them: that is a change again.
            timeout(Duration::from_secs(60), watch.changed()).await.expect("they expire").unwrap();
        });
    });
}
