//! The `ecq` command.
fn main() {}
