use super::*;
use crate::wireguard::plan::{Keepalives, Moves, plan};

const CONF: &str = "[Interface]\nPrivateKey=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\nListenPort=51820\n\
    FwMark=9\nMTU=1420\n[Peer]\nPublicKey=xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\n\
    AllowedIPs=10.9.0.2/32\nEndpoint=192.0.2.1:7\nPresharedKey=FpCyhws9cxwWoV4xELtfJvjJN+zQVRPISllRWgeopVE=";

/// Runs in a network namespace of its own.
fn alone(test: impl Future<Output = ()> + Send) {
    std::thread::scope(|s| {
        let body = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(test);
        };
        s.spawn(body).join().unwrap();
    });
}

async fn tunnel() -> (Tunnel, WgConf) {
    let conf = WgConf::parse("wgtest0", CONF).unwrap().conf;
    let (mut tunnel, _) = Tunnel::create("wgtest0", SourceUdp::default(), &conf).await.unwrap();
    let change = plan(&tunnel.read().await, &conf, Keepalives::Off, Moves::TakenBack);
    tunnel.apply(&change).await.unwrap();
    (tunnel, conf)
}

#[test]
fn made_again_it_knows_all_but_the_time() {
    alone(async {
        let (mut tunnel, conf) = tunnel().await;
        assert!(tunnel.clock_error_ns() < 100_000_000);
        tunnel.clock_ns -= 1_000_000_000;
        assert!(tunnel.clock_error_ns() > 900_000_000);
        let before = tunnel.read().await;
        tunnel.resume().await.unwrap();
        let (again, _) = tunnel.again().await.unwrap();
        assert!(again.suspended() && again.exists());
        assert!(again.clock_error_ns() < 100_000_000);
        assert_eq!(again.read().await, before);
        assert!(plan(&before, &conf, Keepalives::Off, Moves::TakenBack).is_empty());
        again.close().await;
        assert!(if_nametoindex("wgtest0").is_err());
    });
}

#[test]
fn a_tun_device_that_is_deleted_is_missed() {
    alone(async {
        let (tunnel, _) = tunnel().await;
        assert!(tunnel.exists());
        let mut ip = std::process::Command::new("ip");
        assert!(ip.args(["link", "del", "wgtest0"]).status().unwrap().success());
        assert!(!tunnel.exists());
    });
}

/// A resume that failed leaves gotatun where it can resume again.
#[test]
fn a_resume_that_fails_can_be_repeated() {
    alone(async {
        let up = ["link", "set", "lo", "up"];
        assert!(std::process::Command::new("ip").args(up).status().unwrap().success());
        let (mut tunnel, _) = tunnel().await;
        let taken = std::net::UdpSocket::bind("0.0.0.0:51820").unwrap();
        for _ in 0..2 {
            let e = tunnel.resume().await.unwrap_err();
            assert!(matches!(e, WgError::PortTaken(51820)), "{e}");
            assert!(tunnel.suspended());
        }
        drop(taken);
        // A program that another test starts holds our closed sockets until it runs.
        let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while let Err(e) = tunnel.resume().await {
            assert!(matches!(e, WgError::PortTaken(_)) && std::time::Instant::now() < end, "{e}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert!(!tunnel.suspended());
        tunnel.suspend().await.unwrap();
        // The sockets are closed by now, not soon.
        std::net::UdpSocket::bind("0.0.0.0:51820").unwrap();
    });
}
