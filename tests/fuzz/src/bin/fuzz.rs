//! libFuzzer before the target that FUZZ_TARGET names.
#![no_main]

use std::env;
use std::sync::LazyLock;

static TARGET: LazyLock<wgha_fuzz::Target> = LazyLock::new(|| {
    let wanted = env::var("FUZZ_TARGET").unwrap_or_default();
    let found = wgha_fuzz::TARGETS.into_iter().find(|(name, _)| *name == wanted);
    let names = wgha_fuzz::TARGETS.map(|(name, _)| name).join(", ");
    found.unwrap_or_else(|| panic!("FUZZ_TARGET is \"{wanted}\" and not one of {names}")).1
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
