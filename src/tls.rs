//! Which cryptography TLS connections use. Servers speak plain HTTP: this is for what calls out (benchmarks, traces).

/// Chooses ring for the whole process; must come before the first HTTP client is made.
pub(crate) fn install() {
    // An error means that the choice was made before, by an earlier call.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
