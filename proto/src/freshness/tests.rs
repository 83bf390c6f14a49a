use super::*;

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

#[test]
fn window_table() {
    // (counter, whether it is new), in this order.
    let table = [
        (0, false),
        (1, true),
        (1, false),
        (3, true),
        (2, true),
        (2, false),
        (66, true),
        (3, false),
        (2, false), // 64 behind: too old to tell
        (4, true),  // 62 behind
        (4, false),
        (65, true),
        (65, false),
        (130, true), // a jump by a whole window
        (66, false),
        (67, true),
        (67, false),
        (u64::MAX, true),
        (u64::MAX, false),
        (u64::MAX - 63, true),
        (u64::MAX - 64, false),
        (130, false),
    ];
    let mut window = Window::default();
    for (step, (counter, new)) in table.into_iter().enumerate() {
        assert_eq!(window.is_new(counter), new, "step {step}, counter {counter}");
        if new {
            window.mark(counter);
        }
    }
}

#[test]
fn loss_counts_holes_of_the_last_64() {
    let mut window = Window::default();
    assert_eq!(window.lost(), None);
    // What was sent before the session was established is no loss.
    for counter in [7, 8, 11] {
        window.mark(counter);
    }
    assert_eq!(window.lost(), Some(2));
    for counter in 12..=200 {
        window.mark(counter);
    }
    assert_eq!(window.lost(), Some(0));
}

#[test]
fn an_echo_counts_for_the_detection_time() {
    let mut log = SendLog::default();
    let within = Duration::from_millis(600);
    assert_eq!(log.echo_of(1, at(0), within), EchoOf::NeverSent);
    assert_eq!(log.next(at(100)), 1);
    assert_eq!(log.next(at(300)), 2);
    assert_eq!(log.echo_of(1, at(700), within), EchoOf::Recent(at(100)));
    assert_eq!(log.echo_of(1, at(701), within), EchoOf::Stale);
    assert_eq!(log.echo_of(2, at(701), within), EchoOf::Recent(at(300)));
    assert_eq!(log.echo_of(3, at(701), within), EchoOf::NeverSent);
    assert_eq!(log.echo_of(0, at(701), within), EchoOf::Stale);
}

#[test]
fn the_send_log_is_bounded() {
    let mut log = SendLog::default();
    for _ in 0..5000 {
        log.next(at(1));
    }
    assert_eq!(log.sent.len(), LOG_LEN);
    assert_eq!(log.echo_of(5000, at(1), Duration::ZERO), EchoOf::Recent(at(1)));
    assert_eq!(log.echo_of(1, at(1), Duration::ZERO), EchoOf::Stale);
}

#[test]
fn the_clock_filter_trusts_the_shortest_round_trip() {
    let mut filter = ClockFilter::default();
    assert_eq!(filter.offset_ns(), None);
    filter.add(Duration::from_millis(9), 900);
    filter.add(Duration::from_millis(1), 100);
    filter.add(Duration::from_millis(5), 500);
    assert_eq!(filter.offset_ns(), Some(100));
    for _ in 0..8 {
        filter.add(Duration::from_millis(7), 700);
    }
    assert_eq!(filter.offset_ns(), Some(700));
}

#[test]
fn clocks_apart_table() {
    // (offset in ms, apart after it), one after the other.
    let table = [
        (0, false),
        (999, false),
        (-999, false),
        (1000, true),
        (900, true),
        (-900, true),
        (-800, true),
        (799, false),
        (900, false),
        (-1000, true),
        (-12_000, true),
        (0, false),
    ];
    let mut watch = ClockWatch::default();
    for (ms, apart) in table {
        let before = watch.apart;
        assert_eq!(watch.look(ms * 1_000_000), before != apart, "{ms} ms is told once");
        assert_eq!(watch.apart, apart, "{ms} ms");
    }
    assert!(watch.look(i64::MIN));
}

#[test]
fn one_slow_answer_does_not_move_the_clock() {
    let ms = Duration::from_millis;
    let mut filter = ClockFilter::default();
    assert_eq!(filter.offset_ns(), None);
    filter.add(ms(1), 100);
    // Its way there took much longer than its way back.
    filter.add(ms(3000), 1_500_000_000);
    assert_eq!(filter.offset_ns(), Some(100));
    // A clock that was set is believed when the samples from before are gone.
    for _ in 0..8 {
        filter.add(ms(2), 12_000_000_000);
    }
    assert_eq!(filter.offset_ns(), Some(12_000_000_000));
}
