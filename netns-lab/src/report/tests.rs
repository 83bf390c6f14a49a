use super::*;

const MS: u64 = 1_000_000;

/// Probes each millisecond from 1000 ms on, answered after 1 ms except in `gaps`.
fn probes(end: u64, gaps: &[(u64, u64)]) -> Probes {
    let one = |t: u64| Probe {
        sent: t * MS,
        lateness_ns: t % 10,
        received: (!gaps.iter().any(|g| (g.0..g.1).contains(&t))).then_some((t + 1) * MS),
    };
    Probes { probes: (1000..end).map(one).collect() }
}

#[test]
fn outage_is_from_last_before_to_first_after() {
    let outage = probes(4000, &[(2000, 2200)]).outage(2000 * MS, 3000 * MS).unwrap();
    assert_eq!(outage.outage, Some(Duration::from_millis(201)));
    assert_eq!((outage.last_before, outage.first_after), (1999 * MS, Some(2200 * MS)));
    assert_eq!(outage.noise, Some(Duration::from_millis(1)));
    assert_eq!(outage.lost, 200);
}

#[test]
fn a_late_outage_counts_and_a_shorter_one_before_does_not_hide_it() {
    let outage = probes(4000, &[(2000, 2003), (2050, 2100)]).outage(2000 * MS, 3000 * MS).unwrap();
    assert_eq!(outage.outage, Some(Duration::from_millis(51)));
}

#[test]
fn an_outage_that_outlasts_the_window_counts_to_its_end() {
    let outage = probes(4000, &[(2010, 2020), (2100, 3000)]).outage(2000 * MS, 2300 * MS).unwrap();
    assert_eq!(outage.outage, Some(Duration::from_millis(901)));
    assert_eq!((outage.last_before, outage.first_after), (2099 * MS, Some(3000 * MS)));
    // Noise is of the window alone: what follows it is the fault.
    assert_eq!(outage.noise, Some(Duration::from_millis(1)));
}

#[test]
fn no_recovery_is_said() {
    let outage = probes(4000, &[(2000, 4000)]).outage(2000 * MS, 3999 * MS).unwrap();
    assert_eq!((outage.outage, outage.first_after), (None, None));
    let outage = probes(4000, &[(2000, 2010), (2500, 4000)]).outage(2000 * MS, 3999 * MS).unwrap();
    assert_eq!((outage.outage, outage.last_before), (None, 2499 * MS));
}

#[test]
fn nothing_before_the_fault_is_no_outage() {
    assert_eq!(probes(2000, &[(1000, 1500)]).outage(1400 * MS, 2000 * MS), None);
}

#[test]
fn noise_needs_a_quiet_window_of_equal_length() {
    let probes = probes(6000, &[(1200, 1207), (2000, 2100), (4100, 4104)]);
    let noise = |until| probes.outage(2000 * MS, until * MS).unwrap().noise;
    assert_eq!(noise(2900), Some(Duration::from_millis(8)), "the window before");
    assert_eq!(noise(3500), Some(Duration::from_millis(5)), "the window after");
    assert_eq!(noise(4500), None, "neither is long enough");
}

#[test]
fn percentiles_of_lateness() {
    let p = probes(2000, &[]).lateness().unwrap();
    assert_eq!((p.median, p.max), (5, 9));
}
