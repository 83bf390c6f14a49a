//! Networks of namespaces, faults and probes for wgha.
