// SPDX-License-Identifier: Apache-2.0

use super::*;

fn refused(text: &str) -> String {
    Config::parse(text).unwrap_err().full_message()
}

#[test]
fn the_printed_default_reads_back_as_the_default() {
    let text = Config::print_default().replace("driver = []\n", "");
    assert_eq!(Config::parse(&text).unwrap(), Config::default());
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    assert!(refused("[node]\nstat_dir = \"/x\"").contains("stat_dir"));
}

#[test]
fn a_mount_root_that_is_too_long_for_csi_is_refused() {
    let text = format!("[node]\nmount_root = \"/{}\"", "x".repeat(80));
    assert!(refused(&text).contains("CSI allows 128"));
}

#[test]
fn records_and_mounts_must_not_share_a_directory() {
    assert!(refused("[node]\nstate_dir=\"/a\"\nmount_root=\"/a/b\"").contains("within"));
}

#[test]
fn a_driver_is_named_once_and_by_an_absolute_socket() {
    let table = "[[driver]]\nname = \"a.b\"\nendpoint = \"unix:///x.sock\"\n";
    let config = Config::parse(table).unwrap();
    let socket = config.driver[0].socket().unwrap();
    assert_eq!(socket, Some(PathBuf::from("/x.sock")));
    assert!(refused(&table.repeat(2)).contains("twice"));
    assert!(refused(&table.replace("unix:///x.sock", "tcp://h:1")).contains("unix socket"));
    assert!(refused(&table.replace("endpoint = \"unix:///x.sock\"", "")).contains("no endpoint"));
}

#[test]
fn plain_tcp_is_refused_and_tls_needs_its_files() {
    let tcp = "[[driver]]\nname = \"a.b\"\ncontroller_endpoint = \"tcp://csi.x:9000\"\n";
    assert!(refused(tcp).contains("plain TCP is refused"));
    let files = "[driver.tls]\nca = \"/c/ca\"\ncert = \"/c/crt\"\nkey = \"/c/key\"\n";
    let config = Config::parse(&format!("{tcp}{files}")).unwrap();
    let controller = config.driver[0].controller().unwrap().unwrap();
    assert_eq!(controller.to_string(), "tcp://csi.x:9000");
    let relative = files.replace("/c/key", "key");
    assert!(refused(&format!("{tcp}{relative}")).contains("absolute"));
    let unix = tcp.replace("tcp://csi.x:9000", "unix:///c.sock");
    assert!(refused(&format!("{unix}{files}")).contains("leave it out"));
    let node = tcp
        .replace("controller_endpoint", "endpoint")
        .replace("tcp://csi.x:9000", "/n.sock");
    assert!(refused(&format!("{node}{files}")).contains("missing"));
}

#[test]
fn a_driver_that_sees_the_mount_root_elsewhere_needs_short_paths_there_too() {
    let table = |root: &str| {
        format!("[[driver]]\nname = \"a.b\"\nendpoint = \"/x.sock\"\nmount_root = \"{root}\"\n")
    };
    assert!(Config::parse(&table("/csi")).is_ok());
    assert!(refused(&table(&format!("/{}", "x".repeat(80)))).contains("at most 128"));
    assert!(refused(&table("csi")).contains("absolute"));
}
