//! `cargo lab`: every tool of this project behind one command.
fn main() {}
