// SPDX-License-Identifier: Apache-2.0
//! gVisor through the wrapper: its own ways with mounts.

use std::fs;

use crate::{
    bundle::Bundle,
    host::{Host, kill},
    runtime::Runtime,
};

#[test]
#[ignore = "needs root: run by make test"]
fn what_is_written_outlives_a_sandbox_that_is_killed() {
    let Some(runtime) = Runtime::find("runsc") else {
        return;
    };
    let host = Host::start();
    let annotations = host.actor("a", "t");
    let bundle = Bundle::new(&host, "g1", &annotations);
    let mut wrapped = runtime.wrapped(&host);
    let path = bundle.dir.display().to_string();
    for overlay in ["--overlay2=all:memory", "--overlay"] {
        let before = bundle.text();
        wrapped.more = vec![overlay];
        let create = ["create", "--bundle", &path, "g1"];
        wrapped.is_refused(&create, "nothing that is written would reach the volume");
        assert_eq!(bundle.text(), before);
    }
    for more in [&[][..], &["--overlay2=none"], &["--directfs=false"]] {
        wrapped.more = more.to_vec();
        wrapped.start(&bundle, "g1");
        let volume = bundle.given(&host.path("m"))[0].1.clone();
        wrapped.sh(
            "g1",
            "echo inside > /my-data/a; cat /my-data/b 2>/dev/null || true",
        );
        assert_eq!(fs::read_to_string(volume.join("a")).unwrap(), "inside\n");
        for text in ["one", "two and more"] {
            fs::write(volume.join("b"), text).unwrap();
            assert_eq!(wrapped.sh("g1", "cat /my-data/b"), text, "{more:?}");
        }
        fs::remove_file(volume.join("b")).unwrap();
        wrapped.sh("g1", "test ! -e /my-data/b");
        wrapped.sh("g1", "echo last > /my-data/last");
        kill(wrapped.pid("g1"));
        assert_eq!(fs::read_to_string(volume.join("last")).unwrap(), "last\n");
        fs::remove_file(volume.join("last")).unwrap();
        wrapped.run(&["delete", "--force", "g1"]);
        host.until_nothing_is_published();
    }
}
