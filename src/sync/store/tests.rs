use std::fs;

use super::*;
use crate::wireguard::PeerState;

fn endpoints_with(port: u16) -> Endpoints {
    let endpoints = Endpoints::default();
    endpoints.begin("wg0", 1);
    publish(&endpoints, port);
    endpoints
}

fn publish(endpoints: &Endpoints, port: u16) {
    let peer = PeerState {
        public_key: [1; 32],
        endpoint: Some(([192, 0, 2, 1], port).into()),
        last_handshake: None,
        received: 0,
    };
    endpoints.publish("wg0", 1, &[peer]);
}

#[tokio::test]
async fn what_is_kept_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(dir.path()).unwrap());
    let endpoints = endpoints_with(7);
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(keep(Arc::clone(&state), endpoints.clone(), ended));
    drop(end);
    task.await.unwrap();
    let text = fs::read_to_string(dir.path().join(FILE)).unwrap();
    let key = PublicKey([1; 32]);
    let peer = format!("{{\"key\":\"{key}\",\"endpoint\":\"192.0.2.1:7\",\"handshake_ns\":0}}");
    assert_eq!(text.trim_end(), format!("{{\"wg0\":[{peer}]}}"));
    let again = Endpoints::default();
    restore(&state, &again);
    assert_eq!(again.look("wg0").peers, endpoints.look("wg0").peers);
}

#[tokio::test(start_paused = true)]
async fn the_disk_is_written_rarely_and_at_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let state = Arc::new(StateDir::open(dir.path()).unwrap());
    let endpoints = endpoints_with(1);
    let (end, ended) = oneshot::channel();
    let task = tokio::spawn(keep(Arc::clone(&state), endpoints.clone(), ended));
    let path = dir.path().join(FILE);
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(EVERY / 10).await;
    let first = fs::read_to_string(&path).unwrap();
    publish(&endpoints, 3);
    tokio::time::sleep(EVERY / 2).await;
    assert_eq!(fs::read_to_string(&path).unwrap(), first, "too soon");
    drop(end);
    task.await.unwrap();
    assert!(fs::read_to_string(&path).unwrap().contains("192.0.2.1:3"));
}

#[test]
fn a_damaged_file_and_damaged_keys_are_no_trouble() {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    for (text, count) in [
        ("{", 0),
        ("{\"wg0\":[{\"key\":\"x\",\"endpoint\":\"192.0.2.1:1\"}]}", 0),
        ("{\"wg0\":[{\"key\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"}]}", 1),
    ] {
        fs::write(dir.path().join(FILE), text).unwrap();
        let endpoints = Endpoints::default();
        restore(&state, &endpoints);
        assert_eq!(endpoints.look("wg0").peers.len(), count, "{text}");
    }
}
