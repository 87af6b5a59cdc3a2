//! Tells the linker how to make the program small.
//!
//! These are arguments for the linker that `.cargo/config.toml` names. A build that does not see that
//! file, such as one for the host, links as its compiler likes.

use std::env;

const ARGUMENTS: [&str; 7] = [
    // Nobody reads these: there is no dynamic loader, no debugger and no unwinding.
    "--build-id=none",
    "--no-eh-frame-hdr",
    "-znorelro",
    // What is read and what is run lie in one segment, without padding between them.
    "-znoseparate-code",
    "--no-rosegment",
    // Functions that are equal become one: their addresses mean nothing here.
    "--icf=all",
    // Strings that end alike become one, too.
    "-O2",
];

/// What is left out of the program.
const SCRIPT: &str = "discard.ld";

fn main() {
    println!("cargo::rerun-if-changed={SCRIPT}");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    let lld = env::var("RUSTC_LINKER").is_ok_and(|linker| linker.ends_with("rust-lld"));
    if lld && env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl") {
        let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for argument in ARGUMENTS {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
        println!("cargo::rustc-link-arg-bins=--script={root}/{SCRIPT}");
    }
}
