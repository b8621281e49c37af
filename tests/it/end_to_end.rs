//! The built binary, from the outside.

use crate::support::binary::sentrybox;

#[test]
fn the_binary_tells_its_version() {
    let output = sentrybox().arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
