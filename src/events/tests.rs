use std::fs;

use super::*;
use crate::state::tests::SmallDisk;

fn event(term: u64) -> Event {
    Event {
        at: rfc3339(1_795_307_400_123_000_000),
        from: "backup".into(),
        to: "master".into(),
        term,
        reason: "no master".into(),
        phases_ms: Phases { detect: Some(12.5), ..Phases::default() },
    }
}

fn terms(events: &[Event]) -> Vec<u64> {
    events.iter().map(|e| e.term).collect()
}

fn file_lines(dir: &Path) -> usize {
    fs::read_to_string(dir.join(FILE)).unwrap().lines().count()
}

#[test]
fn the_json_is_that_of_the_contract() {
    let json = serde_json::to_string(&event(7)).unwrap();
    let expected = concat!(
        r#"{"at":"2026-11-22T00:30:00.123Z","from":"backup","to":"master","term":7,"#,
        r#""reason":"no master","phases_ms":{"detect":12.5,"address":null,"announce":null,"#,
        r#""wireguard":null,"first_handshake":null,"handshakes_90_percent":null,"hooks":null,"claims":null}}"#
    );
    assert_eq!(json, expected);
}

#[test]
fn times_and_durations_are_written_as_promised() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(-1), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(i64::MAX), "2262-04-11T23:47:16.854Z");
    assert_eq!(phase_ms(Duration::from_micros(612_340)), 612.3);
}

#[test]
fn events_and_their_figures_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    let first = log.push(event(1));
    let second = log.push(event(2));
    log.update(first, |p| p.hooks = Some(40.0));
    log.update(second, |p| p.address = Some(1.5));
    log.update(second, |p| p.hooks = Some(2.0));
    drop(log);
    let log = EventLog::open(dir.path());
    let events = log.last(10);
    assert_eq!(terms(&events), [1, 2]);
    assert_eq!(events[0].phases_ms.hooks, Some(40.0));
    assert_eq!((events[1].phases_ms.address, events[1].phases_ms.hooks), (Some(1.5), Some(2.0)));
    assert_eq!(file_lines(dir.path()), 2, "an opened log is compact");
    assert!(log.push(event(3)) > second, "numbers go on");
}

#[test]
fn last_gives_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    for term in 1..=5 {
        log.push(event(term));
    }
    assert_eq!(terms(&log.last(2)), [4, 5]);
    assert_eq!(terms(&log.last(99)), [1, 2, 3, 4, 5]);
    assert!(log.last(0).is_empty());
}

#[test]
fn memory_and_disk_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    let total = 6000;
    for term in 1..=total {
        let id = log.push(event(term));
        log.update(id, |p| p.hooks = Some(1.0));
        if term % 500 == 0 {
            assert!(file_lines(dir.path()) <= MAX_LINES + 1);
        }
    }
    let kept = terms(&log.last(usize::MAX));
    assert_eq!((kept.len(), kept.last()), (MAX_EVENTS, Some(&total)));
    drop(log);
    assert_eq!(terms(&EventLog::open(dir.path()).last(usize::MAX)), kept);
}

#[test]
fn an_update_without_news_or_of_a_forgotten_event_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    let id = log.push(event(1));
    log.update(id, |p| p.detect = Some(12.5));
    log.update(EventId(999), |p| p.detect = Some(1.0));
    assert_eq!(file_lines(dir.path()), 1);
}

#[tokio::test]
async fn followers_see_events_at_once_and_miss_none() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    log.push(event(1));
    let (past, mut later) = log.follow(10);
    log.push(event(2));
    assert_eq!(terms(&past), [1]);
    assert_eq!(later.recv().await.unwrap(), event(2));
    for term in 0..100 {
        log.push(event(term));
    }
    assert!(matches!(later.recv().await, Err(broadcast::error::RecvError::Lagged(_))));
}

#[test]
fn a_torn_last_line_costs_that_line_alone() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    log.push(event(1));
    log.push(event(2));
    let path = dir.path().join(FILE);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    let log = EventLog::open(dir.path());
    assert_eq!(terms(&log.last(10)), [1]);
    log.push(event(3));
    assert_eq!(terms(&EventLog::open(dir.path()).last(10)), [1, 3]);
    assert!(!dir.path().join("events.jsonl.corrupt").exists());
}

#[test]
fn damaged_lines_are_kept_aside_and_the_good_ones_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let log = EventLog::open(dir.path());
    log.push(event(1));
    let path = dir.path().join(FILE);
    let mut bytes = b"garbage\n{\"id\":1}\n\xff\xff\n".to_vec();
    bytes.extend(fs::read(&path).unwrap());
    fs::write(&path, &bytes).unwrap();
    let log = EventLog::open(dir.path());
    assert_eq!(terms(&log.last(10)), [1]);
    assert_eq!(fs::read(dir.path().join("events.jsonl.corrupt")).unwrap(), bytes);
    assert_eq!(file_lines(dir.path()), 1);
}

#[test]
fn a_full_disk_costs_nothing_but_the_disk() {
    let disk = SmallDisk::mount();
    let log = EventLog::open(disk.0.path());
    log.push(event(1));
    disk.fill();
    // Enough to go beyond the page that the file already has.
    for term in 2..100 {
        log.push(event(term));
    }
    assert_eq!(log.last(usize::MAX).len(), 99);
    disk.empty();
    log.push(event(100));
    let kept = terms(&EventLog::open(disk.0.path()).last(usize::MAX));
    assert_eq!(kept, (1..=100).collect::<Vec<_>>(), "all came to the disk when it could");
}
