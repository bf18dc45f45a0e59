//! Luna command line.
fn main() {}
